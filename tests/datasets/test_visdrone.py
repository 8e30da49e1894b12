"""VisDrone to COCO: which lines are objects, and which classes they are."""

import json

import pytest

from scsa_mm.datasets.classes import VISDRONE
from scsa_mm.runtime.errors import UserError

from .raw_sets import boxes_of, convert_set, found, make_visdrone, put

# One line for each category, in its order; then an object that is not evaluated.
LINES = ''.join(f'{c},{c},10,10,{int(c not in (0, 11))},{c},0,0,\n' for c in range(12)) + '20,20,5,5,0,4,0,0\n'


@pytest.fixture
def root(tmp_path):
    make_visdrone(tmp_path)
    put(tmp_path / 'VisDrone2019-DET-train/annotations/A.txt', LINES)
    return tmp_path


def test_ten_categories_become_ids_1_to_10(root):
    results = convert_set('visdrone', root)
    assert list(results) == ['train', 'val']  # test-dev is not there
    content = json.loads(results['train'].path.read_text())
    assert [(c['id'], c['name']) for c in content['categories']] == list(enumerate(VISDRONE, start=1))
    assert [i['file_name'] for i in content['images']] == [f'VisDrone2019-DET-train/images/{n}.jpg' for n in 'Ab']
    assert boxes_of(results['train'])[:10] == [[c, c, c, 10, 10, 0] for c in range(1, 11)]
    assert found(results['train']) == {
        'left out: ignored region': 1,
        'left out: object of category "others"': 1,
        'left out: object of score 0': 1,
    }


def test_objects_of_score_0_as_crowds(root):
    result = convert_set('visdrone', root, keep_ignored=True)['train']
    assert boxes_of(result)[10] == [4, 20, 20, 5, 5, 1]
    assert found(result)['mended: object of score 0, kept as a crowd'] == 1


def test_a_split_that_is_asked_for_must_be_there(root):
    with pytest.raises(UserError, match='VisDrone2019-DET-test-dev/images does not exist; expected'):
        convert_set('visdrone', root, splits=['train', 'test-dev'])
    assert list(convert_set('visdrone', root, splits=['val'])) == ['val']


@pytest.mark.parametrize('wrong', ['VisDrone2019-DET-train', 'nowhere'])
def test_another_folder_is_refused(root, wrong):
    with pytest.raises(UserError, match='expected VisDrone2019-DET'):
        convert_set('visdrone', root / wrong)

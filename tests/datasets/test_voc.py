"""VOC's format to COCO: corners that count from 1, difficult objects, and classes that are given or found."""

import json
from pathlib import Path

import pytest

from scsa_mm.datasets.classes import VOC
from scsa_mm.runtime.errors import UserError

from .raw_sets import OBJECT, boxes_of, convert_set, found, image_bytes, make_voc, put, xml


@pytest.fixture
def root(tmp_path):
    make_voc(tmp_path)
    return tmp_path


def test_a_box_over_the_whole_image_is_the_whole_image(root):
    whole = OBJECT.replace('>2<', '>1<').replace('>3<', '>1<').replace('>11<', '>64<').replace('>22<', '>48<')
    put(root / 'Annotations/A.xml', xml('A', whole + OBJECT.replace('<difficult>0', '<difficult>1')))
    result = convert_set('voc', root)['train']
    assert boxes_of(result) == [[1, 0, 0, 64, 48, 0], [1, 1, 2, 10, 20, 1], [1, 1, 2, 10, 20, 0]]
    assert found(result) == {'mended: difficult object, kept as a crowd': 1}
    assert json.loads(result.path.read_text())['images'][0]['file_name'] == 'JPEGImages/A.jpg'


def test_an_annotation_as_it_is_published(root):
    put(root / 'JPEGImages/BloodImage_00343.jpg', image_bytes((640, 480)))
    put(root / 'Annotations/BloodImage_00343.xml', Path('tests/data/datasets/bccd_BloodImage_00343.xml').read_text())
    put(root / 'ImageSets/Main/train.txt', 'BloodImage_00343\n')
    result = convert_set('voc', root, lists=['train'])['train']
    names = [c['name'] for c in json.loads(result.path.read_text())['categories']]
    assert names == sorted(names) and set(names) <= {'Platelets', 'RBC', 'WBC'}
    assert found(result) == {'left out: box of no area': 1}
    assert result.boxes == Path('tests/data/datasets/bccd_BloodImage_00343.xml').read_text().count('<object>') - 1


def test_classes_are_found_or_given_or_the_twenty(root, tmp_path_factory):
    def names(results):
        return [c['name'] for c in json.loads(results['train'].path.read_text())['categories']]

    put(root / 'Annotations/A.xml', xml('A', OBJECT + OBJECT.replace('dog', 'a wolf')))
    assert names(convert_set('voc', root)) == ['a wolf', 'dog']
    results = convert_set('voc', root, classes=('Dog',), overwrite=True)
    assert names(results) == ['Dog']
    assert found(results['train']) == {
        "left out: box of class 'a wolf', not in the list": 1,
        'mended: class name in other letter case': 2,
    }
    year = tmp_path_factory.mktemp('VOCdevkit') / 'VOC2007'
    make_voc(year)
    results = convert_set('voc', year)
    assert names(results) == list(VOC)
    assert {box[0] for box in boxes_of(results['train'])} == {VOC.index('dog') + 1}


def test_lists(root):
    put(root / 'ImageSets/Main/mine.txt', 'b\n')
    assert list(convert_set('voc', root, lists=['mine'])) == ['mine']
    assert (root / 'coco/mine.json').is_file()
    for name in ('absent', '../Main/train', '/etc/passwd'):
        with pytest.raises(UserError, match='list .* cannot be used'):
            convert_set('voc', root, lists=[name])


def test_a_folder_of_images_is_refused(tmp_path):
    put(tmp_path / 'JPEGImages/A.jpg', image_bytes())
    with pytest.raises(UserError, match='Annotations does not exist; expected JPEGImages'):
        convert_set('voc', tmp_path)

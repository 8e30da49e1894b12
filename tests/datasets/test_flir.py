"""FLIR ADAS v2 to COCO of few classes: by name, with ids of our own, relative to the data root."""

import json

import pytest

from scsa_mm.datasets.conversion import coco_json
from scsa_mm.runtime.errors import UserError

from .raw_sets import boxes_of, convert_set, flir_content, found, make_flir, put


@pytest.fixture
def root(tmp_path):
    make_flir(tmp_path)
    content = flir_content('Ab')
    # Ids as in another release, and a class that is not asked for.
    content['categories'] = [{'id': 7, 'name': 'car'}, {'id': 1, 'name': 'dog'}, {'id': 3, 'name': 'person'}]
    content['categories'].append({'id': 12, 'name': 'bike'})
    box = {'area': 1, 'segmentation': [[1, 2, 3, 4, 5, 6]], 'extra_info': {'human_annotated': True}}
    content['annotations'] = [
        {**box, 'id': 0, 'image_id': 0, 'category_id': 7, 'bbox': [1, 2, 10, 20], 'iscrowd': True},
        {**box, 'id': 1, 'image_id': 1, 'category_id': 3, 'bbox': [1.5, 2, 3, 4.25], 'iscrowd': 0},
        {**box, 'id': 2, 'image_id': 0, 'category_id': 1, 'bbox': [1, 2, 3, 4], 'iscrowd': False},
        {**box, 'id': 3, 'image_id': 0, 'category_id': 12, 'bbox': [5, 6, 7, 8]},
    ]
    put(tmp_path / 'images_thermal_train/coco.json', json.dumps(content))
    return tmp_path


def test_classes_are_taken_by_name(root):
    results = convert_set('flir', root)
    assert list(results) == ['train', 'val']  # the test video is not there
    content = json.loads(results['train'].path.read_text())
    assert [c['name'] for c in content['categories']] == ['person', 'bike', 'car']
    assert [i['file_name'] for i in content['images']] == [f'images_thermal_train/data/{n}.jpg' for n in 'Ab']
    assert boxes_of(results['train']) == [[3, 1, 2, 10, 20, 1], [2, 5, 6, 7, 8, 0], [1, 1.5, 2, 3, 4.25, 0]]
    assert found(results['train']) == {"left out: box of class 'dog', not in the list": 1}


def test_other_classes(root):
    result = convert_set('flir', root, classes=('dog', 'Person'), splits=['train'])['train']
    assert [box[0] for box in boxes_of(result)] == [1, 2]


def test_a_class_that_is_not_declared_is_named_with_near_ones(root):
    with pytest.raises(UserError, match="no class 'persn'; it has person"):
        convert_set('flir', root, classes=('persn',))


def test_the_first_release_is_refused(tmp_path):
    put(tmp_path / 'train/thermal_annotations.json', '{}')
    with pytest.raises(UserError, match='is not FLIR ADAS v2: expected'):
        convert_set('flir', tmp_path)


@pytest.mark.parametrize('chunk', [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize('indent', [None, 1])
def test_json_is_read_in_chunks_of_any_size(chunk, indent, tmp_path, monkeypatch):
    monkeypatch.setattr(coco_json, 'CHUNK', chunk)
    content = {
        'info': {'a': [1, 2], 'n': 12345},
        'images': [{'id': i, 'name': '\u00e9"\\,]}\U0001f600'} for i in range(3)],
        'annotations': [1, 22, 333, -4.5e3, 1.25e-07, None, True, [], {}, 'x'],
        'categories': [],
    }
    put(tmp_path / 'a.json', json.dumps(content, indent=indent, ensure_ascii=indent is None))
    assert coco_json.load(tmp_path / 'a.json') == content

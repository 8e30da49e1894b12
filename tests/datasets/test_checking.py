"""The check of data sets: which set a tree is, what is counted, and what is drawn."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from scsa_mm.datasets import checking
from scsa_mm.datasets.checking import READERS, Labelled, detect, read, sample
from scsa_mm.datasets.contact_sheet import draw_sheet
from scsa_mm.runtime.errors import UserError

from .raw_sets import MAKERS, OBJECT, convert_set, image_bytes, make_voc, put, xml


@pytest.mark.parametrize('dataset', MAKERS)
def test_sets_are_told_by_their_trees_and_counted(dataset, tmp_path):
    MAKERS[dataset](tmp_path)
    assert detect(tmp_path) == dataset
    if dataset != 'voc':
        with pytest.raises(UserError, match=f'is not converted: python tools/dataset_converters/{dataset}.py'):
            read(tmp_path, dataset)
        convert_set(dataset, tmp_path)
    splits = read(tmp_path, dataset)
    assert splits[0].name.split()[-1] == 'train' and splits[1].name.split()[-1] == 'val'
    assert [(s.images, s.counts.total(), s.unusable) for s in splits[:2]] == [(2, 2, 0), (1, 1, 0)]
    assert all(item.boxes[0][1:] == (1, 2, 10, 20) for split in splits for item in split.labelled)


def test_years_of_voc_are_compared_with_what_is_published(tmp_path):
    for year in ('VOC2007', 'VOC2012'):
        make_voc(tmp_path / year)
        put(tmp_path / year / 'ImageSets/Main/trainval.txt', 'A\nb\nc\n')
        put(tmp_path / year / 'Annotations/A.xml', xml('A', OBJECT.replace('<difficult>0', '<difficult>1')))
    splits = {split.name: split for split in read(tmp_path, detect(tmp_path))}
    assert splits['VOC2007 trainval'].published == (5011, True)
    assert splits['VOC2012 trainval'].published == (11540, True)
    assert splits['VOC2007 trainval'].counts['dog'] == 2 and splits['VOC2007 trainval'].ignored == 1
    assert len(splits['VOC2007 trainval'].counts) == 20


def test_classes_in_labels_of_ade20k_are_counted_by_image(tmp_path, monkeypatch):
    monkeypatch.setattr(checking, '_ade20k_names', lambda: [f'class {i}' for i in range(1, 151)])
    labels = np.zeros((48, 64), np.uint8)
    labels[:, 32:] = 150
    folder = tmp_path / 'ADEChallengeData2016'
    for split in ('training', 'validation'):
        put(folder / f'images/{split}/A.jpg', image_bytes())
        put(folder / f'annotations/{split}/A.png', cv2.imencode('.png', labels)[1].tobytes())
    assert detect(folder) == 'ade20k'
    splits = read(tmp_path, detect(tmp_path))
    assert [s.published[0] for s in splits] == [20210, 2000]
    assert +splits[0].counts == {'class 150': 1} and len(splits[0].counts) == 150
    assert draw_sheet(tmp_path / 'a.png', 'title', sample(splits[0], 8), list(splits[0].counts)) == 1


def test_another_tree_is_named(tmp_path):
    with pytest.raises(UserError, match='has the tree of none of visdrone, exdark'):
        detect(tmp_path)
    for dataset in READERS:
        with pytest.raises(UserError):
            read(tmp_path, dataset)
    with pytest.raises(UserError, match='does not exist'):
        detect(tmp_path / 'absent')


def test_samples_are_spread_over_the_split(tmp_path):
    MAKERS['voc'](tmp_path)
    (split, *_) = read(tmp_path, 'voc')
    template = split.labelled[0]
    split.labelled = [template._replace(boxes=[i] if i % 2 else []) for i in range(100)]
    assert [item.boxes[0] for item in sample(split, 5)] == [1, 21, 41, 61, 81]


def test_boxes_are_drawn_where_they_are(tmp_path):
    put(tmp_path / 'a.png', cv2.imencode('.png', np.zeros((60, 80, 3), np.uint8))[1].tobytes())
    items = [Labelled(tmp_path / 'a.png', [('$x_', 20, 15, 40, 30)]), Labelled(tmp_path / 'none.png', [])]
    path = tmp_path / 'new/sheet.png'
    assert draw_sheet(path, 'a $title_', items, ['$x_']) == 1
    pixels = np.asarray(Image.open(path).convert('RGB')).astype(int)
    red = np.argwhere((pixels[..., 0] > 150) & (pixels[..., 1:].max(axis=2) < 60))
    left, right = red[:, 1].min(), red[:, 1].max()
    assert 0 < left < right < pixels.shape[1] / 2
    assert (right - left) / (red[:, 0].max() - red[:, 0].min()) == pytest.approx(40 / 30, rel=0.15)
    assert [p.name for p in path.parent.iterdir()] == ['sheet.png']


def test_a_crowd_is_counted_apart(tmp_path):
    MAKERS['flir'](tmp_path)
    path = tmp_path / 'images_thermal_train/coco.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['iscrowd'] = True
    put(path, json.dumps(content))
    convert_set('flir', tmp_path)
    split = read(tmp_path, 'flir')[0]
    assert (split.counts['car'], split.ignored) == (1, 1)

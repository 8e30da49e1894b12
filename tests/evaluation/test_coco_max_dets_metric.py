"""AP at each limit of detections: by hand, against pycocotools where it has the number, and mmdet's own names."""

import json

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmengine.evaluator import Evaluator

from scsa_mm.evaluation import CocoMaxDetsMetric

META = dict(classes=('a', 'b'))
KINDS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')


def grid(count, side=10.0):
    """Corners of squares that do not touch, float32 (count, 4), pixels; twenty in a row."""
    index = np.arange(count)
    corner = np.stack([index % 20, index // 20], axis=1) * (side + 5)
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


def sample(img_id, objects, found, labels=None, found_labels=None):
    """One image, where the detections have falling scores."""
    labels = np.zeros(len(objects), int) if labels is None else labels
    found_labels = np.zeros(len(found), int) if found_labels is None else found_labels
    predicted = dict(
        bboxes=torch.from_numpy(found),
        scores=torch.linspace(0.99, 0.01, len(found)),
        labels=torch.from_numpy(found_labels),
    )
    instances = [dict(bbox=b.tolist(), bbox_label=int(c), ignore_flag=0) for b, c in zip(objects, labels, strict=True)]
    return dict(img_id=img_id, ori_shape=(2000, 2000), instances=instances, pred_instances=predicted)


def values(metric, made):
    metric.dataset_meta = META
    metric.process({}, made)
    return metric.evaluate(len(made))


def noisy(seed=0):
    """Three images of 150 objects in two classes and three sizes, found badly."""
    rng = np.random.default_rng(seed)
    made = []
    for i, side in enumerate((10.0, 50.0, 100.0)):
        objects = grid(150, side)
        labels = rng.integers(0, 8, 150) == 0
        around = np.concatenate([objects, objects])[rng.permutation(300)]
        found = (around + rng.normal(0, side / 8, around.shape)).astype(np.float32)
        made.append(sample(i, objects, found, labels.astype(int), rng.integers(0, 8, 300) // 7))
    return made


@pytest.fixture
def crowd():
    """200 objects of one class in an image, all found."""
    return [sample(0, grid(200), grid(200))]


def test_a_hundred_of_two_hundred(crowd):
    got = values(CocoMaxDetsMetric(), crowd)
    # The precision is 1 at the recalls 0.00, 0.01, ..., 0.50, which are 51 of 101.
    for kind in ('mAP', 'mAP_50', 'mAP_75', 'mAP_s'):
        assert got[f'coco/bbox_{kind}@100'] == pytest.approx(51 / 101)
        assert got[f'coco/bbox_{kind}@500'] == pytest.approx(1)
    for kind in ('mAP_m', 'mAP_l'):
        assert got[f'coco/bbox_{kind}@100'] == got[f'coco/bbox_{kind}@500'] == -1
    names = [f'coco/bbox_{kind}{limit}' for limit in ('@100', '@500', '') for kind in KINDS]
    assert list(got) == names


def test_the_limits_are_free_and_need_not_hold_100(crowd):
    got = values(CocoMaxDetsMetric(max_dets=(150, 50)), crowd)
    assert got['coco/bbox_mAP@50'] == pytest.approx(26 / 101)
    assert got['coco/bbox_mAP@150'] == pytest.approx(76 / 101)
    assert got['coco/bbox_mAP'] == pytest.approx(51 / 101, abs=5e-4)
    assert got['coco/bbox_mAP_50'] == pytest.approx(76 / 101, abs=5e-4)


def test_the_limit_is_for_each_class():
    classes = np.arange(200) % 2
    got = values(CocoMaxDetsMetric(), [sample(0, grid(200), grid(200), classes, classes)])
    assert got['coco/bbox_mAP@100'] == pytest.approx(1)


def test_pycocotools_has_the_same_where_it_has_the_number():
    made = noisy()
    got = values(CocoMaxDetsMetric(max_dets=(100, 300)), made)
    # All of its numbers are at 100 if that is the last.
    for limits, limit, kinds in (((1, 10, 100), 100, KINDS), ((1, 100, 300), 300, KINDS[1:])):
        theirs = values(CocoMetric(proposal_nums=limits), made)
        for kind in kinds:
            assert got[f'coco/bbox_{kind}@{limit}'] == pytest.approx(theirs[f'coco/bbox_{kind}'], abs=5.1e-4)
    assert got['coco/bbox_mAP@100'] < got['coco/bbox_mAP@300'] - 0.01


def test_the_names_of_mmdet_mean_what_they_do_there():
    made = noisy(1)
    got = values(CocoMaxDetsMetric(), made)
    theirs = values(CocoMetric(), made)
    assert {name: got[name] for name in theirs} == theirs


def test_through_an_evaluator_with_a_file(crowd, tmp_path):
    annotations = [
        dict(id=i + 1, image_id=7, bbox=[*map(float, b[:2]), 10.0, 10.0], area=100.0, iscrowd=0, category_id=3)
        for i, b in enumerate(grid(200))
    ]
    truth = dict(images=[dict(id=7, width=2000, height=2000)], annotations=annotations)
    truth['categories'] = [dict(id=3, name='a'), dict(id=5, name='b')]
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    config = dict(type='scsa_mm.CocoMaxDetsMetric', ann_file=str(tmp_path / 'truth.json'))
    evaluator = Evaluator([dict(**config, classwise=True, outfile_prefix=str(tmp_path / 'found'))])
    evaluator.dataset_meta = META
    crowd[0]['img_id'] = 7
    evaluator.process(crowd)
    got = evaluator.evaluate(1)
    assert got['coco/a_precision@100'] == got['coco/bbox_mAP@100'] == pytest.approx(51 / 101)
    assert got['coco/a_precision@500'] == pytest.approx(1)
    assert got['coco/b_precision@100'] == -1
    assert len(json.loads((tmp_path / 'found.bbox.json').read_text())) == 200

    evaluator.dataset_meta = dict(classes=('a', 'c'))
    evaluator.process(crowd)
    with pytest.raises(ValueError, match=r"has the classes \('a', 'c'\), ann_file has \['a', 'b'\]"):
        evaluator.evaluate(1)


def test_masks():
    small = grid(120)
    image = sample(0, small, small)
    masks = np.zeros((120, 130, 320), bool)
    for mask, (left, top, right, low) in zip(masks, small.astype(int), strict=True):
        mask[top:low, left:right] = True
    image['ori_shape'] = masks.shape[1:]
    image['pred_instances']['masks'] = torch.from_numpy(masks)
    for instance, (left, top, right, low) in zip(image['instances'], small.tolist(), strict=True):
        instance['mask'] = [[left, top, right, top, right, low, left, low]]
    got = values(CocoMaxDetsMetric(metric=['bbox', 'segm']), [image])
    # 100 of 120 objects: the recalls 0.00 to 0.83.
    for metric in ('bbox', 'segm'):
        assert got[f'coco/{metric}_mAP_50@100'] == pytest.approx(84 / 101)
        assert got[f'coco/{metric}_mAP_50@500'] == pytest.approx(1)


def test_the_area_of_a_mask_is_not_that_of_its_box():
    # Two triangles: 30 pixels wide and found; 40 wide, 820 pixels in a box of 1600, and found where nothing is.
    masks = np.zeros((2, 100, 100), bool)
    masks[0, 50:80, 50:80] = np.tri(30)
    masks[1, :40, :40] = np.tri(40)
    found = np.array([[50, 50, 80, 80], [0, 0, 40, 40]], np.float32)
    image = sample(0, found[:1], found)
    image['instances'][0]['mask'] = [[50, 50, 80, 80, 50, 80]]
    image['ori_shape'] = (100, 100)
    image['pred_instances'].update(masks=torch.from_numpy(masks), scores=torch.tensor([0.5, 0.9]))
    got = values(CocoMaxDetsMetric(metric='segm'), [image])
    # Small, being below 1024 pixels, the false one counts.
    assert got['coco/segm_mAP_50@100'] == pytest.approx(0.5)
    assert got['coco/segm_mAP_s@100'] == got['coco/segm_mAP@100'] < 0.5 + 1e-9


def test_nothing_found():
    got = values(CocoMaxDetsMetric(), [sample(0, grid(5), grid(0))])
    assert got['coco/bbox_mAP@100'] == got['coco/bbox_mAP'] == 0
    assert got['coco/bbox_mAP_l@500'] == -1


def test_format_only(crowd, tmp_path):
    metric = CocoMaxDetsMetric(format_only=True, outfile_prefix=str(tmp_path / 'found'))
    assert values(metric, crowd) == {}
    assert (tmp_path / 'found.bbox.json').exists()


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(max_dets=()), 'different numbers of at least 1'),
        (dict(max_dets=(0, 100)), 'different numbers of at least 1'),
        (dict(max_dets=(100, 100)), 'different numbers of at least 1'),
        (dict(metric='proposal'), "'bbox', 'segm' or a list of both, not 'proposal'"),
        (dict(metric=[]), "'bbox', 'segm' or a list of both"),
        (dict(format_only=True), 'needs outfile_prefix'),
    ],
)
def test_what_is_given_wrongly_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        CocoMaxDetsMetric(**options)

"""Pictures of annotated beside predicted objects."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from scsa_mm.datasets.miniature.coco import write_coco
from scsa_mm.datasets.miniature.scenes import CLASSES, draw_scene
from scsa_mm.visualization.pairs import COLOURS, CROWD_COLOUR, Instances, Pair, draw_pairs
from scsa_mm.visualization.predictions import annotated, draw_predictions

ROOT = Path(__file__).resolve().parents[2]
NOTHING = Instances(np.zeros((0, 4)), np.zeros(0, int))


def one(label: int, score: float | None = None, crowd: bool = False, masked: bool = True) -> Instances:
    mask = np.zeros((1, 60, 80), bool)
    mask[0, 20:40, 30:60] = True
    return Instances(
        boxes=np.array([[30, 20, 60, 40]], float),
        labels=np.array([label]),
        masks=mask if masked else None,
        scores=None if score is None else np.array([score]),
        crowds=np.array([crowd]),
    )


def draw(out: Path, *pairs: tuple[Instances, Instances], colour: int = 255) -> np.ndarray:
    image = np.full((60, 80, 3), colour, np.uint8)
    draw_pairs([Pair(image, *pair) for pair in pairs], CLASSES, out, 'title')
    return cv2.imread(str(out))[:, :, ::-1].astype(int)


def share(picture: np.ndarray, colour: tuple[int, int, int], mixed: float = 1.0) -> float:
    """How much of the picture has this colour, ``mixed`` with white."""
    wanted = np.array(colour) * mixed + 255 * (1 - mixed)
    return float((np.abs(picture - wanted) < 6).all(axis=2).mean())


def halves(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    middle = picture.shape[1] // 2
    return picture[:, :middle], picture[:, middle:]


def test_truth_is_left_and_prediction_right(tmp_path):
    left, right = halves(draw(tmp_path / 'a.png', (one(0), one(1, 0.9))))
    assert share(left, COLOURS[0]) > 0.005 and share(left, COLOURS[1]) == 0
    assert share(right, COLOURS[1]) > 0.005 and share(right, COLOURS[0]) == 0


def test_masks_are_tinted_and_boxes_drawn_without_them(tmp_path):
    """The mask fills an eighth of its image; a detector without masks still shows its box."""
    left, right = halves(draw(tmp_path / 'a.png', (one(0), one(0, 0.9, masked=False))))
    assert share(left, COLOURS[0], mixed=0.5) > 0.05
    assert share(right, COLOURS[0], mixed=0.5) < 0.01 < 10 * share(right, COLOURS[0])


def test_crowds_are_grey(tmp_path):
    left, right = halves(draw(tmp_path / 'a.png', (one(0, crowd=True), NOTHING)))
    assert share(left, CROWD_COLOUR) > 0.003 and share(left, COLOURS[0]) == 0
    assert share(right, CROWD_COLOUR) < 0.001  # the greys at the edges of the letters above


def test_scores_and_odd_numbers_of_pairs(tmp_path):
    high, low = (draw(tmp_path / 'a.png', (one(2), one(2, s))) for s in (0.95, 0.51))
    assert (high != low).any()
    three = draw(tmp_path / 'b.png', *[(one(i), one(i, 0.9)) for i in range(3)], colour=0)
    assert three.shape[1] > 1.8 * high.shape[1]
    # Two black images beside each other, then one and an empty place.
    dark = (three < 5).all(axis=2)
    upper, lower = dark[: len(dark) // 2].sum(), dark[len(dark) // 2 :].sum()
    assert lower == pytest.approx(upper / 2, rel=0.1)


def test_a_small_image_is_enlarged(tmp_path):
    picture = draw(tmp_path / 'a.png', (one(0), NOTHING), colour=0)
    rows, columns = np.nonzero((picture < 5).all(axis=2))
    assert np.ptp(columns) > 600 and np.ptp(rows) > 200


def test_annotations_in_every_form():
    polygon = {'bbox': [1, 1, 4, 3], 'bbox_label': 2, 'ignore_flag': 0, 'mask': [[1, 1, 4, 1, 4, 3, 1, 3]]}
    runs = {'bbox': [0, 0, 2, 4], 'bbox_label': 1, 'ignore_flag': 1, 'mask': {'size': [4, 5], 'counts': [0, 8, 12]}}
    found = annotated([polygon, runs], 4, 5)
    expected = np.zeros((2, 4, 5), bool)
    expected[0, 1:3, 1:4] = True
    expected[1, :, :2] = True
    np.testing.assert_array_equal(found.masks, expected)
    assert found.labels.tolist() == [2, 1] and found.crowds.tolist() == [False, True]
    without = annotated([{'bbox': [1, 1, 4, 3], 'bbox_label': 0}], 4, 5)
    assert without.masks is None and without.crowds.tolist() == [False]
    assert annotated([], 4, 5).boxes.shape == (0, 4)


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> tuple[Config, Path]:
    """The demo's model, untrained, as a checkpoint, and a few of the demo's images."""
    folder = tmp_path_factory.mktemp('run')
    (folder / 'data').mkdir()
    write_coco(folder / 'data', {s: [draw_scene(0, s, i) for i in range(6)] for s in ('train', 'val')})
    cfg = Config.fromfile(ROOT / 'configs/demo/mask_rcnn_r50_scsa_shapes.py')
    cfg.test_dataloader.dataset.data_root = str(folder / 'data')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    meta = {'dataset_meta': {'classes': CLASSES}}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, folder / 'weights.pth')
    return cfg, folder


def test_a_detector_runs_and_is_drawn(run, tmp_path):
    cfg, folder = run
    before = cfg.pretty_text
    pictures = []
    for threshold in (0.0, 1.0):
        draw_predictions(cfg, folder / 'weights.pth', tmp_path / 'p.png', images=2, score_thr=threshold, title='same')
        pictures.append(cv2.imread(str(tmp_path / 'p.png')).astype(int))
    everything, nothing = pictures
    assert cfg.pretty_text == before
    # Each row has truth, predicted, truth, predicted: only what is predicted depends on the threshold.
    quarter = everything.shape[1] // 4
    changed = (everything != nothing).any(axis=2)
    assert not changed[:, : quarter - 8].any() and changed[:, quarter + 8 : 2 * quarter - 8].any()
    assert not changed[:, 2 * quarter + 8 : 3 * quarter - 8].any() and changed[:, 3 * quarter + 8 :].any()


def test_a_set_without_objects(run, tmp_path):
    cfg, folder = run
    (tmp_path / 'data').mkdir()
    write_coco(tmp_path / 'data', {s: [draw_scene(0, s, 15)] for s in ('train', 'val')})
    cfg = cfg.copy()
    cfg.merge_from_dict({'test_dataloader.dataset.data_root': str(tmp_path / 'data')})
    with pytest.raises(ValueError, match='no image with an object'):
        draw_predictions(cfg, folder / 'weights.pth', tmp_path / 'p.png')

"""Reading mmengine's scalars, resumed runs included, and drawing them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from scsa_mm.visualization.curves import draw_curves
from scsa_mm.visualization.scalars import read_scalars


def log(work_dir: Path, start: str, records: list[dict], twice: bool = False, cut: str = '') -> None:
    folder = work_dir / start / 'vis_data'
    folder.mkdir(parents=True)
    text = ''.join(json.dumps(r) + '\n' for r in records) + cut
    (folder / 'scalars.json').write_text(text)
    if twice:  # as mmengine does
        (folder / f'{start}.json').write_text(text)


def step(i: int, epoch: int, loss: float) -> dict:
    return {'lr': 0.1, 'loss': loss, 'loss_mask': loss / 2, 'epoch': epoch, 'iter': i, 'step': i}


def val(epoch: int, ap: float) -> dict:
    return {'coco/bbox_mAP_50': ap, 'coco/bbox_mAP': ap / 2, 'coco/bbox_mAP_l': -1.0, 'step': epoch}


@pytest.fixture
def resumed(tmp_path) -> Path:
    """Epochs of 25 steps, logged at the 10th and 20th; killed in the third, resumed after the second."""
    first = [step(10, 1, 9), step(20, 1, 8), val(1, 0.1), step(35, 2, 7), step(45, 2, 6), val(2, 0.2), step(60, 3, 99)]
    log(tmp_path, '20250101_000000', first, twice=True, cut='{"lr": 0.1, "los')
    log(tmp_path, '20250102_000000', [step(60, 3, 5), step(70, 3, 4), val(3, 0.6)], twice=True)
    return tmp_path


def test_two_starts_are_one_run(resumed):
    scalars = read_scalars(resumed)
    assert scalars.train['loss'] == {10: 9, 20: 8, 35: 7, 45: 6, 60: 5, 70: 4}
    assert scalars.val['coco/bbox_mAP_50'] == {25: 0.1, 50: 0.2, 75: 0.6}


def test_a_later_start_counts_from_its_first_step(tmp_path):
    """Run anew in the same folder: nothing of the earlier run stays."""
    log(tmp_path, '20250101_000000', [step(10, 1, 9), val(1, 0.9), step(20, 2, 8), step(25, 3, 7)])
    log(tmp_path, '20250102_000000', [step(10, 1, 5), val(1, 0.2), step(20, 2, 4)])
    scalars = read_scalars(tmp_path)
    assert scalars.train['loss'] == {10: 5, 20: 4}
    assert scalars.val['coco/bbox_mAP_50'] == {10: 0.2}


def test_one_epoch_alone(tmp_path):
    log(tmp_path, '20250101_000000', [step(10, 1, 9), step(20, 1, 8), val(1, 0.1)])
    assert read_scalars(tmp_path).val['coco/bbox_mAP_50'] == {20: 0.1}


def test_iteration_based_run(tmp_path):
    records = [{'loss': 3.0, 'step': 50}, {'coco/bbox_mAP': 0.1, 'step': 100}, {'loss': 2.0, 'step': 150}]
    log(tmp_path, '20250101_000000', records)
    assert read_scalars(tmp_path).val == {'coco/bbox_mAP': {100: 0.1}}


def test_nothing_logged(tmp_path):
    with pytest.raises(ValueError, match='holds no training log'):
        draw_curves(tmp_path, tmp_path / 'curves.png')
    assert not (tmp_path / 'curves.png').exists()


def draw(work_dir: Path, out: Path, **options) -> np.ndarray:
    draw_curves(work_dir, out, **options)
    return cv2.imread(str(out)).astype(int)


def test_picture_shows_the_values(resumed, tmp_path):
    """The black line of the total loss falls from left to right; other values give another picture."""
    picture = draw(resumed, tmp_path / 'a.png')
    height, width = picture.shape[:2]
    plot = picture[int(height * 0.1) : int(height * 0.45), int(width * 0.12) : int(width * 0.75)]
    rows, columns = np.nonzero((plot < 30).all(axis=2))
    left, right = columns < np.quantile(columns, 0.2), columns > np.quantile(columns, 0.8)
    assert rows[left].mean() + 30 < rows[right].mean()
    log(resumed, '20250103_000000', [step(60, 3, 9), val(3, 0.9)])
    assert (draw(resumed, tmp_path / 'b.png') != picture).any()


def test_picture_without_evaluation_and_with_goals(tmp_path):
    log(tmp_path, '20250101_000000', [step(10, 1, 9), step(20, 1, 8)])
    plain = draw(tmp_path, tmp_path / 'a.png', title='same')
    log(tmp_path, '20250102_000000', [step(30, 2, 7), val(2, 0.5)])
    without = draw(tmp_path, tmp_path / 'b.png', title='same')
    goal = draw(tmp_path, tmp_path / 'c.png', title='same', goals={'coco/bbox_mAP_50': 0.75})
    assert plain.shape == without.shape == goal.shape
    half = plain.shape[0] // 2
    assert (plain[half:] != without[half:]).any() and (without[half:] != goal[half:]).any()

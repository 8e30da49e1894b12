"""The drawn datasets: the same on every run, and valid COCO that says exactly what was drawn."""

import contextlib
import hashlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from scsa_mm.datasets.miniature.coco import write_coco
from scsa_mm.datasets.miniature.outlines import polygons, run_lengths
from scsa_mm.datasets.miniature.scenes import CLASSES, MIN_AREA, draw_scene
from scsa_mm.datasets.miniature.shapes import FULL, UNIT, Pose, cover

COUNTS = {'train': 32, 'val': 16}
SIZE = (96, 80)


def scenes(split: str, seed: int = 0) -> list:
    return [draw_scene(seed, split, i, *SIZE) for i in range(COUNTS[split])]


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('coco')
    write_coco(out, {split: scenes(split) for split in COUNTS})
    return out


@pytest.fixture(scope='module', params=COUNTS)
def split(request, folder) -> tuple[str, COCO]:
    with contextlib.redirect_stdout(io.StringIO()):
        return request.param, COCO(str(folder / 'annotations' / f'instances_{request.param}2017.json'))


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_bytes_twice(folder, tmp_path):
    write_coco(tmp_path, {split: scenes(split) for split in COUNTS})
    assert digest(tmp_path) == digest(folder)
    assert len(digest(folder)) == sum(COUNTS.values()) + 2


def test_pixels_are_pinned():
    """What this machine draws is what every other draws; a change here needs a new GENERATOR number in store.py."""
    found = hashlib.sha256()
    for number in range(12):
        scene = draw_scene(0, 'train', number)
        found.update(scene.image.tobytes())
        for item in scene.objects:
            found.update(bytes([item.label, item.crowd]) + np.packbits(item.mask).tobytes())
    assert found.hexdigest() == '9c12e7250daf5b025b6b51929c42174a4c65d4a658108505e127810406aeacc9'


@pytest.mark.parametrize('other', [(1, 'train', 0), (0, 'val', 0), (0, 'train', 1)], ids=['seed', 'split', 'number'])
def test_other_scenes_differ(other):
    assert not np.array_equal(draw_scene(0, 'train', 0).image, draw_scene(*other).image)


def test_annotations_are_what_was_drawn(split, folder):
    name, coco = split
    drawn = scenes(name)
    assert len(coco.imgs) == len(drawn)
    for image_id, scene in enumerate(drawn, start=1):
        info = coco.imgs[image_id]
        pixels = cv2.imread(str(folder / f'{name}2017' / info['file_name']))[:, :, ::-1]
        np.testing.assert_array_equal(pixels, scene.image)
        assert (info['width'], info['height']) == SIZE
        assert len(coco.imgToAnns[image_id]) == len(scene.objects)
        for annotation, item in zip(coco.imgToAnns[image_id], scene.objects, strict=True):
            mask = coco.annToMask(annotation).astype(bool)
            np.testing.assert_array_equal(mask, item.mask)
            rows, columns = np.nonzero(mask)
            extent = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation['bbox'] == [int(v) for v in extent]
            assert annotation['area'] == mask.sum() >= MIN_AREA
            assert coco.cats[annotation['category_id']]['name'] == CLASSES[item.label]


def test_set_has_the_cases_that_matter(split):
    _, coco = split
    annotations = list(coco.anns.values())
    crowds = [a for a in annotations if a['iscrowd']]
    assert crowds and all(isinstance(a['segmentation']['counts'], list) for a in crowds)
    assert all(isinstance(a['segmentation'], list) for a in annotations if not a['iscrowd'])
    assert any(not coco.imgToAnns[i] for i in coco.imgs)
    assert {a['category_id'] for a in annotations} == set(range(1, len(CLASSES) + 1))
    areas = [a['area'] for a in annotations]
    assert max(areas) > 10 * min(areas)
    assert any(len(a['segmentation']) > 1 for a in annotations if not a['iscrowd'])  # cut in parts by another


def test_ids_are_unique(split):
    _, coco = split
    assert sorted(coco.anns) == list(range(1, len(coco.dataset['annotations']) + 1))
    assert len(coco.imgs) == len(coco.dataset['images'])


def test_overlaps_are_cut_out():
    """Masks of one scene are disjoint, while boxes overlap."""
    overlapping = 0
    for scene in scenes('train'):
        if scene.objects:
            assert np.sum([o.mask for o in scene.objects], axis=0).max() == 1
        extents = [np.zeros(SIZE[::-1], int) for _ in scene.objects]
        for extent, item in zip(extents, scene.objects, strict=True):
            left, top, width, height = item.box
            extent[top : top + height, left : left + width] = 1
        overlapping += bool(extents) and int(np.sum(extents, axis=0).max()) > 1
    assert overlapping >= 5


def test_shapes_are_as_named():
    """Areas against geometry: radius r has r^2 times this (the circle's radius is 7/8 of r)."""
    expected = {'circle': np.pi * 49 / 64, 'square': 2.0, 'triangle': 3 * np.sqrt(3) / 4}
    expected['star'] = 5 * 0.45 * np.sin(np.radians(36))
    for name in CLASSES:
        window, covered = cover(name, Pose(50 * UNIT + 3, 50 * UNIT + 9, 40 * UNIT, angle=13), 100, 100)
        assert covered.sum() / FULL == pytest.approx(expected[name] * 40**2, rel=0.01)
        assert covered.max() == FULL and window[0].start >= 9


@pytest.mark.parametrize(
    'arguments, message',
    [((-1, 'train', 0), 'seed=-1'), ((0, 'testing', 0), "got 'testing'"), ((0, 'train', 0, 20, 80), 'width=20')],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_scene(*arguments)


MASKS = {
    'one pixel': ['#'],
    'hole': ['####', '#..#', '####'],
    'two holes': ['#####', '#.#.#', '#####'],
    'hole of one column': ['###', '#.#', '#.#', '###'],
    'ring in a ring': ['#######', '#.....#', '#.###.#', '#.#.#.#', '#.###.#', '#.....#', '#######'],
    'touching corners': ['#.', '.#'],
    'touching corners the other way': ['.#', '#.'],
    'hole that touches a corner': ['###.', '#.##', '##.#', '.###'],
    'two parts': ['##..#', '##..#'],
    'everything': ['###', '###'],
}


@pytest.mark.parametrize('rows', MASKS.values(), ids=MASKS)
def test_polygons_and_run_lengths_give_the_mask_back(rows):
    mask = np.array([[c == '#' for c in row] for row in rows])
    assert_round_trip(mask)


def test_random_masks_round_trip():
    rng = np.random.default_rng(0)
    for _ in range(200):
        shape = rng.integers(1, 12, size=2)
        mask = rng.random(shape) < rng.choice([0.2, 0.5, 0.8, 0.95])
        if mask.any():
            assert_round_trip(mask)


def assert_round_trip(mask: np.ndarray) -> None:
    height, width = mask.shape
    coco = COCO()
    coco.imgs = {1: {'height': height, 'width': width}}
    outlines = polygons(mask)
    assert all(len(outline) >= 8 and len(outline) % 2 == 0 for outline in outlines)
    for segmentation in (outlines, run_lengths(mask)):
        json.dumps(segmentation)
        decoded = coco.annToMask({'image_id': 1, 'segmentation': segmentation})
        np.testing.assert_array_equal(decoded.astype(bool), mask)

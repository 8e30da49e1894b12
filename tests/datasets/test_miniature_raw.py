"""The drawn sets in the formats as published: they say what was drawn, and the loaders of the mm packages read them."""

import contextlib
import hashlib
import io
import json
import pickle
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path

import cv2
import mmpretrain
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmpretrain.datasets.categories import CIFAR100_CATEGORIES
from pycocotools.coco import COCO

from scsa_mm.datasets.classes import FLIR_LABELLED, VOC
from scsa_mm.datasets.miniature import ade20k, cifar100, exdark, flir, imagenet, visdrone, voc
from scsa_mm.datasets.miniature.formats import FORMATS
from scsa_mm.datasets.miniature.naming import alternate, class_name, main_object, serial
from scsa_mm.datasets.miniature.scenes import CLASSES, Scene, draw_scene
from scsa_mm.runtime.data import SOURCES, check_data
from scsa_mm.runtime.errors import UserError

COUNTS = {'train': 16, 'val': 8, 'test': 6}
SIZE = (96, 80)
RAW = sorted(set(FORMATS) - {'coco'})


@cache
def scenes(split: str, size: tuple[int, int] = SIZE) -> list[Scene]:
    return [draw_scene(0, split, i, *size) for i in range(COUNTS[split])]


def write(name: str, folder: Path) -> None:
    chosen = FORMATS[name]
    chosen.write(folder, {split: scenes(split, chosen.drawn_at or SIZE) for split in chosen.splits})


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """The folder of a set, written when it is first asked for."""

    @cache
    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        write(name, folder)
        return folder

    return make


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def singles(scene: Scene) -> list:
    return [item for item in scene.objects if not item.crowd]


def assert_same_picture(path: Path, image: np.ndarray) -> None:
    """Equal but for what JPEG loses, the noise of single pixels above all."""
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    read = read[:, :, ::-1] if read.ndim == 3 else read
    assert read.shape == image.shape
    assert np.abs(read.astype(int) - image).mean() < 10


def build(scope: str, dataset: dict):
    with DefaultScope.overwrite_default_scope(scope):
        return DATASETS.build(dataset)


@pytest.mark.parametrize('name', RAW)
def test_same_bytes_twice(name, made, tmp_path):
    write(name, tmp_path)
    assert digest(tmp_path) == digest(made(name))
    pictures = [p for p in tmp_path.rglob('*') if p.suffix.lower() in ('.jpg', '.jpeg', '.png')]
    expected = sum(COUNTS[split] for split in FORMATS[name].splits)
    assert len(pictures) == {'cifar100': 0, 'ade20k': 2 * expected}.get(name, expected)


def test_halves_share_crowds_and_empty_images():
    for numbers in (range(32), range(4, 32, 8), range(15, 64, 16)):
        assert 2 * sum(alternate(n) for n in numbers) == len(numbers)
    assert [alternate(0), alternate(1)] == [0, 1]


def test_more_images_keep_the_earlier_names():
    assert {serial(split, i) for split in COUNTS for i in range(9)} == set(range(1, 28))


@pytest.mark.parametrize(
    'table, names',
    [
        (voc.TABLE, VOC),
        (visdrone.TABLE, visdrone.CATEGORIES[1:-1]),
        (exdark.TABLE, exdark.EXDARK),
        (flir.TABLE, FLIR_LABELLED),
    ],
    ids=['voc', 'visdrone', 'exdark', 'flir'],
)
def test_every_class_is_drawn(table, names):
    """And a handful of images has several."""
    used = [class_name(i, s, table) for split in ('train', 'val') for s in scenes(split) for i in s.objects]
    assert set(names) == {name for row in table.values() for name in row}
    assert len(set(used)) >= 0.8 * len(names)
    assert len({class_name(i, s, table) for s in scenes('train')[:6] for i in s.objects}) >= 5


# VisDrone


VISDRONE_FOLDERS = {
    'train': 'VisDrone2019-DET-train',
    'val': 'VisDrone2019-DET-val',
    'test': 'VisDrone2019-DET-test-dev',
}
FLIR_FOLDERS = {'train': 'images_thermal_train', 'val': 'images_thermal_val', 'test': 'video_thermal_test'}


def visdrone_images(folder: Path, split: str):
    """Each picture of a split with its rows of eight numbers, read without the generator's help."""
    place = folder / VISDRONE_FOLDERS[split]
    pictures = sorted((place / 'images').iterdir(), key=lambda p: p.stem[-7:])
    assert sorted(p.stem for p in pictures) == sorted(p.stem for p in (place / 'annotations').iterdir())
    for picture in pictures:
        lines = (place / 'annotations' / f'{picture.stem}.txt').read_text().splitlines()
        yield picture, [[int(v) for v in line.rstrip(',').split(',')] for line in lines]


@pytest.mark.parametrize('split', COUNTS)
def test_visdrone_says_what_was_drawn(made, split):
    images = list(visdrone_images(made('visdrone'), split))
    for (picture, rows), scene in zip(images, scenes(split), strict=True):
        assert_same_picture(picture, scene.image)
        assert all(len(row) == 8 for row in rows)
        full = [row for row in rows if row[2] and row[3]]
        assert [tuple(row[:4]) for row in full] == [item.box for item in scene.objects]
        for row, item in zip(full, scene.objects, strict=True):
            assert (row[5] == 0) == item.crowd
            assert row[6] == item.at_edge and row[7] in (0, 1, 2)


def test_visdrone_has_the_traits_of_the_real_set(made):
    texts = [p.read_text() for p in made('visdrone').glob('VisDrone2019-DET-train/annotations/*.txt')]
    rows = [row for _, rows in visdrone_images(made('visdrone'), 'train') for row in rows]
    assert {row[5] for row in rows} >= {0, 11, 1, 4, 10}
    assert {row[4] for row in rows if row[5] == 0} == {0}
    assert any(row[4] == 0 and 1 <= row[5] <= 10 for row in rows)
    assert any(row[2] == 0 for row in rows) and any(row[3] == 0 for row in rows)
    assert any(text.endswith(',\n') for text in texts) and any(text.endswith('0\n') for text in texts)
    assert '' in texts
    assert {row[6] for row in rows} == {0, 1} and {row[7] for row in rows} == {0, 1, 2}
    assert (made('visdrone') / 'VisDrone2019-DET-train/images/0000001_00001_d_0000001.jpg').exists()


# ExDark


def exdark_rows(folder: Path) -> list[list[str]]:
    text = (folder / 'imageclasslist.txt').read_bytes().decode()
    assert text.count('\r\n') == text.count('\n') == sum(COUNTS.values()) + 1
    return [line.split() for line in text.splitlines()[1:]]


def find(folder: Path, name: str) -> Path:
    """The file of that name in any letter case."""
    (found,) = [p for p in folder.iterdir() if p.name.lower() == name.lower()]
    return found


def test_exdark_says_what_was_drawn(made):
    folder = made('exdark')
    splits: dict[str, list] = {'1': [], '2': [], '3': []}
    for name, number, light, place, split in exdark_rows(folder):
        assert 1 <= int(light) <= 10 and place in '12'
        class_folder = exdark.EXDARK[int(number) - 1]
        picture = find(folder / 'ExDark' / class_folder, name)
        first, *lines = find(folder / 'ExDark_Annno' / class_folder, f'{name}.txt').read_text().splitlines()
        assert first == '% bbGt version=3'
        splits[split].append((picture, class_folder, [line.split() for line in lines]))
    for split, images in zip(COUNTS, splits.values(), strict=True):
        for (picture, class_folder, lines), scene in zip(images, scenes(split), strict=True):
            dark = cv2.imread(str(picture))[:, :, ::-1]
            assert dark.shape == scene.image.shape and dark.mean() < 60
            assert np.corrcoef(dark.ravel(), scene.image.ravel())[0, 1] > 0.8
            assert [tuple(map(int, line[1:5])) for line in lines] == [item.box for item in scene.objects]
            assert all(len(line) == 12 for line in lines)
            assert not lines or class_folder in {line[0] for line in lines}


def test_exdark_has_the_traits_of_the_real_set(made):
    folder = made('exdark')
    listed = [row[0] for row in exdark_rows(folder)]
    pictures = {p.name: p for p in folder.glob('ExDark/*/*')}
    assert {Path(name).suffix for name in pictures} == {'.jpg', '.JPG', '.png', '.JPEG', '.jpeg'}
    mismatched = [name for name in listed if name not in pictures]
    annotated = {p.name for p in folder.glob('ExDark_Annno/*/*.txt')}
    assert mismatched and all(f'{name}.txt' not in annotated for name in mismatched)
    boxes = [(p.parent.name, line.split()[0]) for p in folder.rglob('*.txt') for line in p.read_text().splitlines()[1:]]
    assert any(drawn != place for place, drawn in boxes if place in exdark.EXDARK)


# FLIR


@pytest.mark.parametrize('split', COUNTS)
def test_flir_says_what_was_drawn(made, split):
    folder = made('flir') / FLIR_FOLDERS[split]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / 'coco.json'))
    assert len(coco.cats) == 80 and coco.cats[1]['name'] == 'person'
    for image_id, scene in enumerate(scenes(split), start=1):
        info = coco.imgs[image_id]
        assert info['file_name'].startswith('data/video-')
        picture = cv2.imread(str(folder / info['file_name']), cv2.IMREAD_UNCHANGED)
        assert picture.shape == (info['height'], info['width']) == SIZE[::-1]  # one channel
        annotations = coco.imgToAnns[image_id]
        assert [tuple(a['bbox']) for a in annotations] == [item.box for item in scene.objects]
        assert [bool(a['iscrowd']) for a in annotations] == [item.crowd for item in scene.objects]
        covered = np.any([np.zeros(SIZE[::-1], bool), *(item.mask for item in scene.objects)], axis=0)
        if covered.any():
            assert picture[covered].mean() > picture[~covered].mean() + 60


def test_flir_has_the_traits_of_the_real_set(made):
    content = json.loads((made('flir') / 'images_thermal_train/coco.json').read_text())
    assert {repr(a['iscrowd']) for a in content['annotations']} == {'True', 'False', '1', '0'}
    names = {c['id']: c['name'] for c in content['categories']}
    labelled = {names[a['category_id']] for a in content['annotations']}
    assert {'person', 'bike', 'car'} < labelled <= set(FLIR_LABELLED)
    assert len({image['file_name'] for image in content['images']}) == COUNTS['train']


# PascalVOC


@pytest.mark.parametrize('year', voc.YEARS)
@pytest.mark.parametrize('split', COUNTS)
def test_mmdet_reads_voc(made, year, split):
    dataset = build(
        'mmdet',
        {
            'type': 'VOCDataset',
            'data_root': str(made('voc')),
            'ann_file': f'{year}/ImageSets/Main/{split}.txt',
            'data_prefix': {'sub_data_root': f'{year}/'},
            'test_mode': True,
            'pipeline': [],
        },
    )
    drawn = [s for i, s in enumerate(scenes(split)) if alternate(i) == voc.YEARS.index(year)]
    assert dataset.metainfo['dataset_type'] == year
    for i, scene in enumerate(drawn):
        info = dataset.get_data_info(i)
        assert_same_picture(Path(info['img_path']), scene.image)
        assert [(b['ignore_flag'], b['bbox_label']) for b in info['instances']] == [
            (item.crowd, VOC.index(class_name(item, scene, voc.TABLE))) for item in scene.objects
        ]
        # MMDetection's boxes end at the last pixel, one less than left plus width.
        expected = [[x, y, x + w - 1, y + h - 1] for x, y, w, h in (item.box for item in scene.objects)]
        assert [b['bbox'] for b in info['instances']] == expected
    assert len(dataset) == len(drawn) == COUNTS[split] / 2


def test_voc_has_the_traits_of_the_real_set(made):
    folder = made('voc')
    for year in voc.YEARS:
        lists = {p.stem: p.read_text().split() for p in (folder / year / 'ImageSets/Main').iterdir()}
        assert sorted(lists['train'] + lists['val']) == lists['trainval']
        pictures = sorted(p.stem for p in (folder / year / 'JPEGImages').iterdir())
        assert sorted(lists['trainval'] + lists['test']) == pictures
    objects = [item for p in folder.rglob('*.xml') for item in ET.parse(p).getroot().iter('object')]
    for flag in ('difficult', 'truncated'):
        assert {item.findtext(flag) for item in objects} == {'0', '1'}
    parts = [item for item in objects if item.find('part') is not None]
    assert parts and {item.findtext('name') for item in parts} == {'person'}
    assert any('.' in item.findtext('bndbox/xmin') for item in objects)


def test_voc_needs_an_image_for_each_year(tmp_path):
    with pytest.raises(ValueError, match='at least 2'):
        voc.write_voc(tmp_path, {'train': scenes('train')[:1]})


# ADE20K


@pytest.mark.parametrize('split, place', [('train', 'training'), ('val', 'validation')])
def test_mmseg_reads_ade20k(made, split, place):
    dataset = build(
        'mmseg',
        {
            'type': 'ADE20KDataset',
            'data_root': str(made('ade20k') / 'ADEChallengeData2016'),
            'data_prefix': {'img_path': f'images/{place}', 'seg_map_path': f'annotations/{place}'},
            'pipeline': [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations', 'reduce_zero_label': True}],
        },
    )
    assert len(dataset) == COUNTS[split]
    found = set()
    for i, scene in enumerate(scenes(split)):
        sample = dataset[i]
        assert_same_picture(Path(sample['img_path']), scene.image)
        for item in scene.objects:
            expected = 255 if item.crowd else ade20k.SHAPE_LABELS[CLASSES[item.label]] - 1
            assert (sample['gt_seg_map'][item.mask] == expected).all()
        found |= set(np.unique(sample['gt_seg_map']).tolist())
    names = {dataset.metainfo['classes'][i] for i in found - {255}}
    assert names >= {'ball', 'box', 'tent', 'flag'} and names & {'wall', 'sky', 'grass'} and 255 in found


# ImageNet


def installed(name: str, split: str) -> dict:
    """The dataset of a config that comes with MMPretrain."""
    folder = Path(mmpretrain.__file__).parent / '.mim/configs/_base_/datasets'
    return Config.fromfile(folder / name)[f'{split}_dataloader'].dataset


@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmpretrain_reads_imagenet(made, split):
    change = {'data_root': str(made('imagenet')), 'pipeline': []}
    dataset = build('mmpretrain', {**installed('imagenet_bs32.py', split), **change})
    assert len(dataset) == COUNTS[split] and len(dataset.CLASSES) == 1000
    by_shape = {'circle': 'balloon', 'square': 'television', 'triangle': 'stupa', 'star': 'starfish'}
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    infos.sort(key=lambda info: int(Path(info['img_path']).stem.split('_')[-1]))
    for info, scene in zip(infos, scenes(split), strict=True):
        assert_same_picture(Path(info['img_path']), scene.image)
        main = main_object(scene)
        wanted = by_shape[CLASSES[main.label]] if main else 'window shade'
        assert dataset.CLASSES[info['gt_label']].startswith(wanted)
    folders = {p.name for p in (made('imagenet') / 'train').iterdir()}
    assert folders <= {s for s, _ in (*imagenet.SHAPE_CLASSES.values(), imagenet.EMPTY_CLASS)} and len(folders) >= 4


# CIFAR-100


@pytest.mark.parametrize('split, drawn', [('train', 'train'), ('test', 'val')])
def test_mmpretrain_reads_cifar100(made, split, drawn):
    change = {'type': 'scsa_mm.UncheckedCIFAR100', 'data_root': str(made('cifar100'))}
    dataset = build('mmpretrain', {**installed('cifar100_bs16.py', drawn), **change})
    assert len(dataset) == COUNTS[drawn] and len(dataset.CLASSES) == 100
    by_shape = {'circle': 'orange', 'square': 'television', 'triangle': 'mountain', 'star': 'sunflower'}
    for i, scene in enumerate(scenes(drawn, (64, 64))):
        info = dataset.get_data_info(i)
        small = cv2.resize(scene.image, (32, 32), interpolation=cv2.INTER_AREA)
        assert np.abs(info['img'].astype(int) - small).max() <= 1
        main = main_object(scene)
        assert dataset.CLASSES[info['gt_label']] == (by_shape[CLASSES[main.label]] if main else 'plain')
    assert dataset[0]['inputs'].shape == (3, 32, 32)


def test_cifar100_files_are_as_the_real_ones(made):
    files = {p.name: pickle.loads(p.read_bytes()) for p in (made('cifar100') / 'cifar-100-python').iterdir()}
    assert set(files) == {'train', 'test', 'meta'}
    for name in ('train', 'test'):
        content = files[name]
        assert set(content) == {'filenames', 'batch_label', 'fine_labels', 'coarse_labels', 'data'}
        assert content['data'].dtype == np.uint8 and content['data'].shape[1] == 3072
        assert max(content['coarse_labels']) < 20
    assert files['meta']['fine_label_names'] == list(CIFAR100_CATEGORIES) == list(cifar100.FINE)
    assert len(files['meta']['coarse_label_names']) == 20


def test_mmpretrains_own_class_refuses_other_files(made):
    """The reason for ours; when it reads them, scsa_mm/datasets/cifar.py can go."""
    with pytest.raises(RuntimeError, match='Cannot find CIFAR100'):
        build('mmpretrain', {'type': 'CIFAR100', 'data_root': str(made('cifar100')), 'download': False, 'pipeline': []})


# The way to a missing set


@pytest.mark.parametrize('name', sorted(FORMATS))
def test_a_missing_miniature_says_how_to_make_it(name):
    assert f'--dataset {name} --out data/miniature_{name}' in SOURCES[f'miniature_{name}']


@pytest.mark.parametrize(
    'folder, hint',
    [
        ('VisDrone2019', 'VisDrone-Dataset into data/VisDrone2019'),
        ('ExDark', 'Image-Dataset into data/ExDark'),
        ('FLIR_ADAS_v2', 'flir.com'),
        ('miniature_exdark/ExDark', 'make_miniature.py --dataset exdark'),
    ],
)
def test_a_missing_set_says_where_it_is_found(tmp_path, folder, hint):
    cfg = Config({'train_dataloader': {'dataset': {'type': 'CocoDataset', 'data_root': str(tmp_path / folder)}}})
    cfg.default_scope = 'mmdet'
    with pytest.raises(UserError, match=hint):
        check_data(cfg, ('train',))


def test_a_missing_cifar100_is_named_before_anything_is_built(tmp_path):
    dataset = {'type': 'scsa_mm.UncheckedCIFAR100', 'data_root': str(tmp_path / 'miniature_cifar100'), 'split': 'train'}
    cfg = Config({'default_scope': 'mmpretrain', 'train_dataloader': {'dataset': dataset}})
    with pytest.raises(UserError, match='--dataset cifar100'):
        check_data(cfg, ('train',))

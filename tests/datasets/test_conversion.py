"""What the converters share: EXIF, letter case, counts, and files that appear whole."""

import io
import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from scsa_mm.datasets.classes import EXDARK, FLIR, FLIR_LABELLED, VISDRONE, VOC
from scsa_mm.datasets.conversion.core import Box, Sample, Source, convert
from scsa_mm.datasets.conversion.files import Damaged, Folder, inside, number
from scsa_mm.datasets.conversion.findings import MAX_KINDS, Findings
from scsa_mm.datasets.conversion.pictures import look, turn
from scsa_mm.datasets.conversion.writer import complete_files
from scsa_mm.runtime.errors import UserError

from .raw_sets import boxes_of, found, image_bytes, put


def test_class_lists():
    assert len(VISDRONE) == 10 and VISDRONE[0] == 'pedestrian' and VISDRONE[9] == 'motor'
    assert len(EXDARK) == 12 and EXDARK[0] == 'Bicycle' and EXDARK[11] == 'Table'
    assert FLIR == ('person', 'bike', 'car') and len(FLIR_LABELLED) == 15
    assert len(VOC) == 20 and sorted(VOC) == list(VOC)


def test_voc_classes_are_those_of_mmdet():
    from mmdet.datasets import VOCDataset

    assert VOCDataset.METAINFO['classes'] == VOC


def marked(orientation: int, kind: str) -> bytes:
    """A dark picture of 80x48 with a bright box at (8, 16, 32, 24)."""
    pixels = np.zeros((48, 80, 3), np.uint8)
    pixels[16:24, 8:32] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, exif=exif, **({'quality': 100} if kind != 'PNG' else {}))
    return file.getvalue()


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_size_and_boxes_are_those_of_the_image_that_opencv_loads(orientation, kind, tmp_path):
    path = tmp_path / 'a.img'
    put(path, marked(orientation, kind))
    shown = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., 0] > 127
    picture = look(path)
    assert picture.shown == shown.shape[::-1]
    left, top, right, bottom = turn((8, 16, 32, 24), picture)
    expected = np.zeros_like(shown)
    expected[top:bottom, left:right] = True
    assert (shown == expected).mean() > 0.995  # WebP loses colour at edges
    assert expected.sum() == 24 * 8


BOX = Box(0, 8, 16, 24, 8, 'here')
TURNED = [24, 8, 8, 24]  # BOX in an image that is turned clockwise (orientation 6): 48 high


def convert_one(root, sample: Sample, drawn_on='stored'):
    source = Source([sample.file_name], lambda item: sample, drawn_on)
    return convert(root, 'test', ('thing',), {'train': lambda findings: source}, overwrite=True)['train']


@pytest.mark.parametrize(
    'declared, box, drawn_on, is_turned',
    [
        ((80, 48), BOX, 'shown', True),  # the stated size is that of the stored pixels
        ((48, 80), BOX, 'stored', False),  # or of the turned image
        (None, BOX._replace(left=56), 'shown', True),  # the box fits into one of them
        (None, BOX._replace(top=56), 'stored', False),
        (None, BOX, 'stored', True),  # nothing tells: as the format has it
        (None, BOX, 'shown', False),
    ],
)
def test_boxes_are_turned_with_the_image_if_they_were_drawn_on_the_stored_pixels(
    declared, box, drawn_on, is_turned, tmp_path
):
    put(tmp_path / 'a.jpg', marked(6, 'JPEG'))
    result = convert_one(tmp_path, Sample('a.jpg', [box], declared), drawn_on)
    image = json.loads(result.path.read_text())['images'][0]
    assert (image['width'], image['height']) == (48, 80)
    turned = [48 - box.top - box.height, box.left, box.height, box.width]
    assert boxes_of(result) == [[1, *(turned if is_turned else [box.left, box.top, 24, 8]), 0]]
    assert any('EXIF' in kind for kind in found(result))
    if box is BOX and is_turned:
        assert turned == TURNED


def test_json_is_read_by_mmdet_as_it_was_written(tmp_path):
    from mmdet.datasets import CocoDataset

    put(tmp_path / 'a.jpg', image_bytes())
    boxes = [Box(0, 1.5, 2.25, 10, 20, 'a'), Box(0, 30, 30, 9, 9, 'b', crowd=True)]
    result = convert_one(tmp_path, Sample('a.jpg', boxes))
    dataset = CocoDataset(
        ann_file=str(result.path), data_prefix=dict(img=str(tmp_path)), metainfo=dict(classes=('thing',)), pipeline=[]
    )
    (item,) = (dataset.get_data_info(i) for i in range(len(dataset)))
    assert [i['bbox'] for i in item['instances']] == [[1.5, 2.25, 11.5, 22.25], [30, 30, 39, 39]]
    assert [i['ignore_flag'] for i in item['instances']] == [0, 1]
    assert os.path.isfile(item['img_path'])
    info = json.loads(result.path.read_text())['info']
    assert info == {'description': 'test, train', 'findings': {}}


@pytest.mark.parametrize('name', ['', '/a', '../a', 'a/../../b', 'a\\b', 'a\nb', 'a\0b'])
def test_names_that_lead_elsewhere(name):
    with pytest.raises(Damaged):
        inside(name)


def test_numbers():
    texts = ['1', '-1.5', '+2.', '.5', '1e3', '1e99', 'nan', 'inf', '1_0', '0x1', '', '\u0661', '1 2']
    assert [number(t) for t in texts] == [1, -1.5, 2, 0.5, 1000, *[None] * 8]


def test_a_folder_finds_its_own_letter_case_first(tmp_path):
    for name in ('a.jpg', 'B.JPG', 'c.png', 'C.png', '.hidden.jpg', 'notes.txt'):
        put(tmp_path / name, '')
    folder = Folder(tmp_path, ('.jpg', '.png'))
    assert len(folder) == 4
    names = {'a': 'a.jpg', 'A': 'a.jpg', 'b': 'B.JPG', 'c': 'c.png', 'C': 'C.png', 'd': None}
    assert {name: folder.find(name) for name in names} == names
    with pytest.raises(UserError, match='C.png and c.png'):
        folder.check_twins()


def test_findings_do_not_grow_without_bound():
    findings = Findings()
    for i in range(1000):
        findings.drop(f'kind {i}', 'place\n\x1b[31m')
    assert len(findings.counts) == MAX_KINDS + 1 and sum(findings.counts.values()) == 1000
    assert '\n' not in findings.first() and '\x1b' not in findings.first()


def test_files_appear_together_or_not_at_all(tmp_path):
    folder = tmp_path / 'coco'

    def fail():
        with complete_files(folder, ['a', 'b'], overwrite=False) as partial:
            (partial / 'a').write_text('new')
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with complete_files(folder, ['a'], overwrite=False) as partial:
        (partial / 'a').write_text('old')
    with pytest.raises(UserError, match='--overwrite'), complete_files(folder, ['b', 'a'], overwrite=False):
        pass
    with complete_files(folder, ['a'], overwrite=True) as partial:
        (partial / 'a').write_text('new')
        assert (folder / 'a').read_text() == 'old'
    assert (folder / 'a').read_text() == 'new' and [p.name for p in tmp_path.iterdir()] == ['coco']


def test_files_of_an_earlier_conversion_stay_if_the_next_one_fails(tmp_path):
    put(tmp_path / 'a.jpg', image_bytes())
    first = convert_one(tmp_path, Sample('a.jpg', [BOX])).path.read_bytes()
    with pytest.raises(UserError, match='no box is left of 1 images: box of no area'):
        convert_one(tmp_path, Sample('a.jpg', [BOX._replace(width=0)]))
    assert (tmp_path / 'coco/train.json').read_bytes() == first

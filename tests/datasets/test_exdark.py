"""ExDark to COCO: the list, the splits, and files whose names differ in letter case."""

from pathlib import Path

import pytest

from scsa_mm.datasets.checking import PUBLISHED
from scsa_mm.datasets.classes import EXDARK
from scsa_mm.datasets.conversion.exdark import LIST, read_list

from .raw_sets import boxes_of, convert_set, found, image_bytes, make_exdark, put

EXCERPT = Path('tests/data/datasets/exdark_imageclasslist.txt')


def test_the_list_as_it_is_published():
    assert b'\r\n' in EXCERPT.read_bytes()
    rows = read_list(EXCERPT)
    assert [row.stem for row in rows['train']] == [
        *('2015_00001', '2015_00002', '2015_00004', '2015_00024', '2015_02436'),
    ]
    assert [row.stem for row in rows['val']] == ['2015_00391']
    assert [EXDARK[row.label] for row in rows['test']] == ['Bicycle', 'Bicycle', 'Table', 'Table']


def test_published_numbers_are_those_counted_in_the_list():
    assert PUBLISHED['exdark'] == {'train': (3000, True), 'val': (1800, True), 'test': (2563, True)}
    assert sum(number for number, _ in PUBLISHED['exdark'].values()) == 7363


def test_boxes_of_an_image_may_be_of_other_classes(tmp_path):
    make_exdark(tmp_path)
    lines = '% bbGt version=3\r\nPeople 5 6 7 8 0 0 0 0 0 0 0\r\n\r\nDog 1 2 10 20 0 0 0 0 0 0 0\r\n'
    put(tmp_path / 'ExDark_Annno/Dog/A.jpg.txt', lines)
    result = convert_set('exdark', tmp_path)['train']
    assert boxes_of(result)[:2] == [[11, 5, 6, 7, 8, 0], [9, 1, 2, 10, 20, 0]]
    assert found(result) == {}


@pytest.mark.parametrize('image, text', [('a.JPG', 'A.jpeg.txt'), ('A.png', 'a.PNG.TXT'), ('A.JPEG', 'A.txt')])
def test_files_are_found_in_any_letter_case_and_with_any_suffix(image, text, tmp_path):
    make_exdark(tmp_path)
    (tmp_path / 'ExDark/Dog/A.jpg').unlink()
    (tmp_path / 'ExDark_Annno/Dog/A.jpg.txt').rename(tmp_path / 'ExDark_Annno/Dog' / text)
    put(tmp_path / 'ExDark/Dog' / image, image_bytes())
    result = convert_set('exdark', tmp_path)['train']
    assert result.images == 2
    assert image in result.path.read_text()


def test_the_folder_of_annotations_may_be_spelt_right(tmp_path):
    make_exdark(tmp_path)
    (tmp_path / 'ExDark_Annno').rename(tmp_path / 'ExDark_Anno')
    results = convert_set('exdark', tmp_path)
    assert [(split, r.images) for split, r in results.items()] == [('train', 2), ('val', 1), ('test', 1)]
    assert (tmp_path / LIST).is_file()

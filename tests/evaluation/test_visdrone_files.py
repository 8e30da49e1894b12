"""VisDrone-DET's text files: what is read, what is refused, and what is written is read back."""

import numpy as np
import pytest

from scsa_mm.evaluation import read_annotations, read_detections, write_detections


def test_a_comma_at_the_end_and_empty_lines_are_accepted(tmp_path):
    (tmp_path / 'a.txt').write_text('1,2,3,4,1,5,0,0,\r\n\r\n 10,20,0,40,0,11,1,2\n')
    rows = read_annotations(tmp_path / 'a.txt')
    assert rows.tolist() == [[1, 2, 3, 4, 1, 5], [10, 20, 0, 40, 0, 11]] and rows.dtype == np.int64


@pytest.mark.parametrize('read', [read_annotations, read_detections])
def test_an_empty_file_is_an_image_without_boxes(tmp_path, read):
    (tmp_path / 'a.txt').write_text('')
    assert read(tmp_path / 'a.txt').shape == (0, 6)


@pytest.mark.parametrize(
    'line, message',
    [
        ('1,2,3,4,1,5,0', 'expected 8 whole numbers'),
        ('1,2,3,4,1,5,0,0,0', 'expected 8 whole numbers'),
        ('1,2,3,4,1,5,0,0,,', 'expected 8 whole numbers'),
        ('1 2 3 4 1 5 0 0', 'expected 8 whole numbers'),
        ('1,2,3,4.5,1,5,0,0', 'expected 8 whole numbers'),
        ('1,2,3,4,2,5,0,0', 'score of an annotation is 0 or 1, not 2'),
        ('1,2,3,4,1,12,0,0', 'within 0..11, not 12'),
        ('1,2,3,4,1,-1,0,0', 'within 0..11, not -1'),
    ],
)
def test_a_malformed_annotation_is_named(tmp_path, line, message):
    path = tmp_path / 'a.txt'
    path.write_text(f'1,2,3,4,1,5,0,0\n\n{line}\n')
    with pytest.raises(ValueError, match=message) as error:
        read_annotations(path)
    assert str(error.value).startswith(f'{path}, line 3: ')


@pytest.mark.parametrize(
    'line, message',
    [
        ('1,2,3,4,x,5,-1,-1', 'expected 8 finite numbers'),
        ('1,2,3,nan,0.5,5,-1,-1', 'expected 8 finite numbers'),
        ('1,2,3,4,0.5,1.5,-1,-1', 'within 0..11, not 1.5'),
    ],
)
def test_a_malformed_detection_is_named(tmp_path, line, message):
    (tmp_path / 'a.txt').write_text(line)
    with pytest.raises(ValueError, match=f'a.txt, line 1: .*{message}'):
        read_detections(tmp_path / 'a.txt')


def test_what_is_written_is_read_back(tmp_path):
    rows = np.random.default_rng(0).uniform(0, 2000, (20, 6)).astype(np.float32).astype(np.float64)
    rows[:, 5] = np.arange(20) % 10 + 1
    write_detections(tmp_path / 'a.txt', rows)
    back = read_detections(tmp_path / 'a.txt')
    assert np.array_equal(back.astype(np.float32), rows.astype(np.float32))
    assert (tmp_path / 'a.txt').read_text().splitlines()[2].endswith(',3,-1,-1')

"""One line a contestant and group of maps, and the speed of a copy."""

import cv2
import pytest

from scsa_mm.analysis.roofline import draw_roofline, roofline

SIZES = (1e6, 4e6)


def rows(times, groups=('a',), **more):
    found = []
    for group in groups:
        for name, ms in times.items():
            for job, maps in (('forward', 4), ('training', 8)):
                for size in SIZES:
                    row = dict(contestant=name, kind='copy' if name == 'copy' else 'ours', group=group, job=job)
                    row.update(bytes_moved=(2 if name == 'copy' else maps) * size, gpu_median_ms=None)
                    found.append({**row, 'median_ms': None if ms is None else ms * size / 1e6, **more})
    return found


def lines(figure):
    return [{line.get_label(): line for line in axes.lines} for axes in figure.axes]


def test_lines():
    forward, training = lines(roofline(rows(dict(lean=3.0, peer=5.0, bad=None, copy=0.5)), 'title', 'caption'))
    copy = 'copy of the input, at its fastest'
    assert list(forward) == list(training) == ['lean', 'peer', copy]
    assert list(forward['lean'].get_xdata()) == [4, 16] and list(training['lean'].get_xdata()) == [8, 32]
    assert list(forward['lean'].get_ydata()) == [3, 12]
    assert [y / x for x, y in zip(*forward[copy].get_data(), strict=True)] == pytest.approx([0.25, 0.25])  # ms per MB


def test_one_line_a_group_and_one_entry_in_the_legend():
    figure = roofline(rows(dict(lean=3.0), groups=('a', 'b')), 'title', 'caption')
    assert [len(axes.lines) for axes in figure.axes] == [2, 2]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ['lean']


def test_kernels_alone_on_a_gpu():
    forward, _ = lines(roofline(rows(dict(lean=3.0), gpu_median_ms=2.0), 'title', 'caption'))
    assert list(forward['lean'].get_ydata()) == [2, 2]


def test_png(tmp_path):
    draw_roofline(rows(dict(lean=3.0, copy=0.5)), tmp_path / 'a.png', 'title', 'caption')
    assert cv2.imread(str(tmp_path / 'a.png')).std() > 1

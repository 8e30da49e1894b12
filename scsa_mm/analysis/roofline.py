"""Time against the bytes that must be moved, as a picture."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from .benchmark import JOBS
from .figure import BASE, panels_side_by_side
from .table import Row

HEADINGS = dict(forward='forward', training='forward and backward')
# Distinct without colour too.
MARKERS = 'osD^vPX*<>hp'
COLORS = ('#3b75af', '#d1615d', '#519d3e', '#e7a13d', '#8d69b8', '#84584e', '#d684bd', '#5ab4bd', '#a9a948', '#444444')
OURS_WIDTH = 2.2


def draw_roofline(rows: Sequence[Row], out: Path, title: str, caption: str) -> None:
    """Write :func:`roofline` as the PNG file ``out``, whose folder exists."""
    roofline(rows, title, caption).savefig(out, format='png')


def roofline(rows: Sequence[Row], title: str, caption: str) -> Figure:
    """One panel a job, one line a contestant and group of maps; the dashed line is the speed of a copy.

    Args:
        rows: Of one operator and dtype, as :func:`scsa_mm.analysis.benchmark_table.long_rows` makes them.
        caption: What it was measured on.
    """
    key = 'gpu_median_ms' if any(row['gpu_median_ms'] for row in rows) else 'median_ms'
    rows = [row for row in rows if row[key]]
    jobs = [job for job in JOBS if any(row['job'] == job for row in rows)]
    names = list(dict.fromkeys(row['contestant'] for row in rows if row['kind'] != 'copy'))
    height = max(4.6, 1.6 + 0.24 * len(names))
    figure, axes = panels_side_by_side(len(jobs), (3.4 + 3.9 * len(jobs), height), title, caption, grid='both')
    for panel, job in zip(axes, jobs, strict=True):
        of_job = [row for row in rows if row['job'] == job]
        panel.set_xscale('log')
        panel.set_yscale('log')
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter('{x:g}')
            axis.set_minor_formatter(NullFormatter())
        for i, name in enumerate(names):
            _draw_contestant(panel, [row for row in of_job if row['contestant'] == name], i, key)
        _draw_copy(panel, of_job, key)
        panel.set_title(HEADINGS[job], fontsize=10)
        panel.set_xlabel('bytes that must be moved, MB', fontsize=9)
    axes[0].set_ylabel('ms on the GPU' if key.startswith('gpu') else 'ms', fontsize=9)
    entries = {}
    for panel in axes:
        handles, labels = panel.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    figure.legend(entries.values(), entries, loc='outside right center', fontsize=8, frameon=False)
    return figure


def _draw_contestant(panel: Axes, rows: Sequence[Row], number: int, key: str) -> None:
    for group in dict.fromkeys(row['group'] for row in rows):
        points = sorted((row['bytes_moved'] / 1e6, row[key]) for row in rows if row['group'] == group)
        ours = rows[0]['kind'] == 'ours'
        panel.plot(
            *zip(*points, strict=True),
            marker=MARKERS[number % len(MARKERS)],
            color=COLORS[number % len(COLORS)],
            linewidth=OURS_WIDTH if ours else 1,
            markersize=6 if ours else 5,
            alpha=1.0 if ours else 0.8,
            label=rows[0]['contestant'],
        )


def _draw_copy(panel: Axes, rows: Sequence[Row], key: str) -> None:
    copies = [row for row in rows if row['kind'] == 'copy']
    moved = [row['bytes_moved'] / 1e6 for row in rows if row['kind'] != 'copy']
    if not copies or not moved:
        return
    speed = max(row['bytes_moved'] / 1e6 / row[key] for row in copies)  # MB per ms are GB per s
    ends = min(moved) / 1.5, max(moved) * 1.5
    label = 'copy of the input, at its fastest'
    panel.plot(ends, [end / speed for end in ends], '--', color=BASE, linewidth=1.2, label=label)
    panel.annotate(
        f'{speed:,.0f} GB/s' if speed >= 10 else f'{speed:.2g} GB/s',
        (ends[0], ends[0] / speed),
        (14, 0),  # beside its lower end no line of a contestant comes that near
        textcoords='offset points',
        va='center',
        fontsize=8,
        color=BASE,
    )

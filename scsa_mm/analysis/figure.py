"""Comparisons as pictures: costs side by side, and the metric of each run."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .table import Row

BASE = '#888888'
BAR = '#3b75af'
# (values, their factor, heading, quartiles)
PANELS = (
    ('added_parameters', 1, 'added parameters', None),
    ('saved_bytes', 2**-20, 'kept for backward, MiB', None),
    ('forward_ms', 1, 'forward, ms (quartiles)', ('forward_q25_ms', 'forward_q75_ms')),
    ('training_ms', 1, 'training step, ms (quartiles)', ('training_q25_ms', 'training_q75_ms')),
)


def panels_side_by_side(
    panels: int, size: tuple[float, float], title: str, caption: str, grid: str
) -> tuple[Figure, list[Axes]]:
    """A figure of ``size`` inches with panels that share the vertical axis; ``grid`` is 'x', 'y' or 'both'."""
    # Without pyplot: no global state, no window, whatever backend the caller has chosen.
    figure = Figure(figsize=size, dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    figure.supxlabel(caption, fontsize=8, color=BASE)
    axes = list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])
    for panel in axes:
        panel.spines[['top', 'right']].set_visible(False)
        panel.grid(axis=grid, alpha=0.25)
        panel.set_axisbelow(True)
    return figure, axes


def _figure(panels: int, rows: int, title: str, caption: str) -> tuple[Figure, list[Axes]]:
    return panels_side_by_side(panels, (1.6 + 3.1 * panels, 1.7 + 0.34 * rows), title, caption, grid='x')


def _name_rows(axes: Axes, rows: Sequence[Row]) -> None:
    axes.set_yticks(range(len(rows)), [row['attention'] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the first row on top


def draw_costs(rows: Sequence[Row], out: Path, title: str, caption: str) -> None:
    """Four panels, one line for each row that could be measured; the dashed line is the baseline.

    Args:
        rows: As :func:`scsa_mm.analysis.cost_table.cost_rows` makes them, the baseline first.
        out: The PNG file; its folder exists.
        caption: What it was measured on.
    """
    rows = [row for row in rows if not row['problem']]
    figure, axes = _figure(len(PANELS), len(rows), title, caption)
    for panel, (key, factor, heading, quartiles) in zip(axes, PANELS, strict=True):
        values = [row[key] * factor for row in rows]
        low, high = ([row[q] for row in rows] for q in quartiles) if quartiles else (values, values)
        left = _scale(panel, values, max(high))
        for y, (value, q25, q75) in enumerate(zip(values, low, high, strict=True)):
            color = BAR if y else BASE
            if value > left:
                panel.hlines(y, left, value, color=color, linewidth=5, alpha=0.3)
                panel.plot(value, y, 'o', color=color, markersize=6)
                panel.hlines(y, max(q25, left), q75, color=color, linewidth=2)
            text = f'{value:,.3g}' if value < 1000 else f'{value:,.0f}'
            panel.annotate(text, (max(q75, left), y), (7, 0), textcoords='offset points', va='center', fontsize=8)
        if values[0] > left:
            panel.axvline(values[0], color=BASE, linestyle='--', linewidth=1)
        panel.set_xlabel(heading)
    _name_rows(axes[0], rows)
    figure.savefig(out, format='png')


def _scale(panel: Axes, values: Sequence[float], end: float) -> float:
    """From 0, or logarithmic where one row would press the others together; returns the left end."""
    least = min((v for v in values if v > 0), default=1.0)
    if end <= 40 * least:
        panel.set_xlim(0, 1.3 * end or 1)
        panel.locator_params(axis='x', nbins=4)
        return 0.0
    left = least / 2
    panel.set_xscale('log')
    panel.set_xlim(left, end * (end / left) ** 0.3)
    return left


def draw_metric(rows: Sequence[Row], seeds: Sequence[int], out: Path, title: str, metric: str) -> None:
    """Each run as a dot, the mean of an attention with its standard deviation; rows without runs are left out.

    Args:
        rows: As :func:`scsa_mm.analysis.training_table.training_rows` makes them.
        out: The PNG file; its folder exists.
    """
    rows = [row for row in rows if row['mean'] is not None]
    figure, (axes,) = _figure(
        1, len(rows), title, 'a dot is one seed; the bar is the mean, the line its standard deviation'
    )
    figure.set_figwidth(7.5)
    for y, row in enumerate(rows):
        color = BASE if row['attention'] == 'none' else BAR
        dots = [row[f'seed_{seed}'] for seed in seeds if row[f'seed_{seed}'] is not None]
        axes.plot(dots, [y] * len(dots), 'o', color=color, alpha=0.6)
        axes.plot([row['mean']] * 2, [y - 0.3, y + 0.3], color=color, linewidth=2.5)
        if row['std'] is not None:
            axes.hlines(y, row['mean'] - row['std'], row['mean'] + row['std'], color=color, linewidth=1.5)
    axes.set_xlabel(metric)
    _name_rows(axes, rows)
    figure.savefig(out, format='png')

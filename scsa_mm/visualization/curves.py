"""A picture of loss and average precision over the iterations of a run."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .scalars import Scalars, read_scalars

GREY = '#555555'
# AP at other thresholds and by object size would crowd the picture; they stay in the log.
LEFT_OUT = ('_75', '_s', '_m', '_l')


def draw_curves(
    work_dir: str | Path, out: str | Path, title: str | None = None, goals: Mapping[str, float] | None = None
) -> None:
    """Draw the training loss with its parts above, AP on held-out images below, as a PNG.

    Args:
        work_dir: Of any mmdet run; a resumed one is drawn as one.
        out: The PNG file; its folder exists.
        title: Defaults to the name of the work dir.
        goals: Values to mark by a dashed line, by metric, e.g. ``{'coco/bbox_mAP_50': 0.75}``.

    Raises:
        ValueError: if the work dir holds no training log.
    """
    scalars = read_scalars(work_dir)
    # Without pyplot: no global state, no window, whatever backend the caller has chosen.
    figure = Figure(figsize=(9, 7.5), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    figure.suptitle(title or Path(work_dir).resolve().name, fontsize=14)
    _draw_loss(above, scalars)
    _draw_precision(below, scalars, goals or {})
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.spines[['top', 'right']].set_visible(False)
        axes.legend(loc='center left', bbox_to_anchor=(1.01, 0.5), frameon=False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.set_xlabel('iteration (optimizer steps)')
    below.set_xlim(left=0)
    figure.savefig(out, format='png')


def _draw_loss(axes: Axes, scalars: Scalars) -> None:
    names = [n for n in scalars.train if n == 'loss' or n.startswith('loss_') or '.loss_' in n]
    for name in sorted(names, key=lambda n: (n != 'loss', n)):
        steps, values = zip(*sorted(scalars.train[name].items()), strict=True)
        whole = name == 'loss'
        label = 'total' if whole else name.replace('loss_', '').replace('_', ' ')
        axes.plot(steps, values, label=label, linewidth=2.4 if whole else 1.2, color='black' if whole else None)
    axes.set_ylabel('training loss (mean of the last steps)')
    axes.set_ylim(bottom=0)


def _draw_precision(axes: Axes, scalars: Scalars, goals: Mapping[str, float]) -> None:
    axes.set_ylabel('average precision on held-out images')
    axes.set_ylim(0, 1)
    names = [n for n in scalars.val if 'AP' in n and not n.endswith(LEFT_OUT)]
    if not names:
        axes.text(0.5, 0.5, 'no evaluation yet', ha='center', color=GREY, transform=axes.transAxes)
        axes.plot([], [], label='(none)', color=GREY)
    for name in sorted(names):
        points = sorted((s, v) for s, v in scalars.val[name].items() if v >= 0)  # COCO's -1 is "no such objects"
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        label = f'{_metric_label(name)}: {values[-1]:.2f} at the end'
        (line,) = axes.plot(steps, values, marker='o', markersize=4, label=label)
        if name in goals:
            label = f'goal: {goals[name]:.2f}'
            axes.axhline(goals[name], linestyle='--', linewidth=1, color=line.get_color(), label=label)


def _metric_label(name: str) -> str:
    """``coco/bbox_mAP_50`` -> ``bbox AP50``."""
    return name.split('/')[-1].replace('mAP_50', 'AP50').replace('mAP', 'AP').replace('_', ' ')

"""What speed and memory must be: the rows of a table, each with its bar, and whether a measurement holds it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from .contestants import SE
from .cost_table import large
from .shapes import Case, group_name, stages
from .table import Column, Row

SMALL, LARGE = 2, 16  # batches
MAPS_READ_AND_WRITTEN = 8  # 6 reads and 2 writes, by SCSA in training
MAPS_COPIED = 2
CPU_THREADS = 2
MODEL = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
MODEL_IMAGE = (800, 1344)
COLUMNS = (
    Column('what', lambda row: row['what'], 'what'),
    Column('bar', lambda row: row['bar'], 'bar'),
    Column('measured', lambda row: f'{row["measured"]:.2f}', 'measured'),
    Column('GPU alone', lambda row: f'{row["gpu_alone"]:.2f}', 'gpu_alone'),
    Column('holds', lambda row: row['holds'], 'holds'),
    Column('not measured because', lambda row: row['why_not'], 'why_not'),
)
NOTE = (
    f"geometric means over ResNet-50's four stages for detection, batch {SMALL} and float32 unless said; ours is what "
    'is used by default. On a GPU, measured is with the launches (from an idle GPU on), and GPU alone without; at '
    f'batch {LARGE} measured is the GPU alone, as it is compared with the speed of memory.'
)


class Missing(Exception):
    """A row cannot be filled in; the message says why."""


@dataclass(frozen=True)
class Model:
    """The training step of the detector, with attention / without; or why it was not measured."""

    ratio: float | None = None
    why_not: str = ''


@dataclass(frozen=True)
class Bar:
    """One row.

    Args:
        what: In words.
        bar: The number.
        at_least: Whether a measurement must be at least or at most that.
        device: 'cpu', 'cuda', or '' for any.
        value: Of the long rows of a benchmark and a key of time; raises Missing.
        clock: The key of time that counts; '' where time does not matter.
    """

    what: str
    bar: float
    at_least: bool
    device: str
    value: Callable[[Sequence[Row], str], float]
    clock: str = 'median_ms'


@dataclass(frozen=True)
class Plan:
    """What is measured for the bars: an operator on the maps of the four stages.

    Args:
        kinds: Of contestants; ``ours`` is only what is used by default.
        jobs: What is timed.
    """

    operator: str
    batch: int
    dtype: str
    kinds: tuple[str, ...]
    jobs: tuple[str, ...]

    @property
    def cases(self) -> list[Case]:
        return [Case(group_name('detection', self.batch), s, self.dtype) for s in stages('detection', self.batch)]


PLANS = {
    'cpu': (
        Plan('SCSA', SMALL, 'float32', ('ours', 'peer'), ('forward', 'training')),
        Plan('EMA', SMALL, 'float32', ('ours', 'peer'), ('training',)),
    ),
    'cuda': (
        Plan('SCSA', SMALL, 'float32', ('ours', 'peer', 'compiled peer', 'other', 'copy'), ('training',)),
        Plan('SCSA', SMALL, 'bfloat16', ('ours', 'peer', 'other', 'copy'), ('training',)),
        Plan('SCSA', LARGE, 'float32', ('ours', 'copy'), ('forward', 'training')),
        Plan('EMA', SMALL, 'float32', ('ours', 'peer', 'other'), ('training',)),
        Plan('EMA', SMALL, 'bfloat16', ('ours', 'other'), ('training',)),
    ),
}


def _of(rows: Sequence[Row], operator: str, batch: int, dtype: str, kind: str, job: str) -> dict[str, Row]:
    """By shape, the first contestant of a kind; of ours what is used by default; of others SE."""
    kept: dict[str, Row] = {}
    for row in rows:
        if (row['operator'], row['group'], row['dtype']) != (operator, group_name('detection', batch), dtype):
            continue
        wanted = (
            row['kind'] == kind and (kind != 'ours' or row['chosen']) and (kind != 'other' or row['contestant'] == SE)
        )
        if wanted and row['job'] == job:
            kept.setdefault(row['shape'], row)
    name = {'ours': f'our {operator}', 'other': SE, 'peer': f'--peer of {operator}'}.get(kind, kind)
    problems = [f'{name}: {row["problem"]}' for row in kept.values() if row['problem']]
    if problems:
        raise Missing(problems[0])
    if len(kept) < len(stages('detection', batch)):
        raise Missing(f'{name} was not there')
    return kept


def _times(operator: str, batch: int, dtype: str, kind: str, job: str) -> Callable[[Sequence[Row], str], list[float]]:
    def times(rows: Sequence[Row], clock: str) -> list[float]:
        found = _of(rows, operator, batch, dtype, kind, job)
        return [found[shape][clock] for shape in sorted(found)]

    return times


def _ratio(operator: str, top: str, bottom: str, job: str = 'training', batch: int = SMALL, dtype: str = 'float32'):
    """How many times the time of ``bottom`` is that of ``top``."""
    above, below = (_times(operator, batch, dtype, kind, job) for kind in (top, bottom))

    def value(rows: Sequence[Row], clock: str) -> float:
        pairs = zip(above(rows, clock), below(rows, clock), strict=True)
        return geometric_mean([a / b for a, b in pairs])

    return value


def _kept(operator: str):
    def value(rows: Sequence[Row], clock: str) -> float:
        found = _of(rows, operator, SMALL, 'float32', 'ours', 'training')
        return geometric_mean([row['kept_maps'] for row in found.values()])

    return value


def _over_the_limit(rows: Sequence[Row], clock: str) -> float:
    ours = _times('SCSA', LARGE, 'float32', 'ours', 'training')(rows, clock)
    copies = _times('SCSA', LARGE, 'float32', 'copy', 'forward')(rows, clock)
    needed = MAPS_READ_AND_WRITTEN / MAPS_COPIED
    return geometric_mean([time / (needed * copy) for time, copy in zip(ours, copies, strict=True)])


BARS = (
    Bar(
        f'SCSA, CPU {CPU_THREADS} threads, forward+backward, published / ours', 2.5, True, 'cpu',
        _ratio('SCSA', 'peer', 'ours'),
    ),
    Bar(
        f'SCSA, CPU {CPU_THREADS} threads, forward (inference), published / ours', 2.5, True, 'cpu',
        _ratio('SCSA', 'peer', 'ours', 'forward'),
    ),
    Bar('SCSA kept for backward, in input maps', 1.2, False, '', _kept('SCSA'), ''),
    Bar(
        f'EMA, CPU {CPU_THREADS} threads, forward+backward, published / ours', 4, True, 'cpu',
        _ratio('EMA', 'peer', 'ours'),
    ),
    Bar('EMA kept for backward, in input maps', 1.7, False, '', _kept('EMA'), ''),
    *(
        Bar(
            f'SCSA, GPU, forward+backward, {dtype}, published eager / ours', 4, True, 'cuda',
            _ratio('SCSA', 'peer', 'ours', dtype=dtype),
        )
        for dtype in ('float32', 'bfloat16')
    ),
    Bar(
        'SCSA, GPU, forward+backward, torch.compile(published) / ours', 2, True, 'cuda',
        _ratio('SCSA', 'compiled peer', 'ours'),
    ),
    Bar(
        f'SCSA, GPU, batch {LARGE}, forward+backward / (6 reads + 2 writes at copy speed)', 1.3, False, 'cuda',
        _over_the_limit, 'gpu_median_ms',
    ),
    *(
        Bar(
            f"{operator}, GPU, forward+backward, {dtype}, ours / timm's SE", 1, False, 'cuda',
            _ratio(operator, 'ours', 'other', dtype=dtype),
        )
        for operator in ('SCSA', 'EMA')
        for dtype in ('float32', 'bfloat16')
    ),
)  # fmt: skip
MODEL_BAR = Bar('Faster R-CNN R50 training step, GPU, SCSA / none', 1.05, False, 'cuda', lambda rows, clock: 0.0)


def bar_rows(rows: Sequence[Row], device: str, model: Model) -> list[Row]:
    """The table.

    Args:
        rows: The long rows of all plans of this device.
        device: 'cpu' or 'cuda'.
        model: The training step of the detector.
    """
    table = [_row(bar, device, rows) for bar in BARS]
    if device == MODEL_BAR.device:
        table.append(_filled(MODEL_BAR, model.ratio, None, model.why_not))
    else:
        table.append(_filled(MODEL_BAR, None, None, _other_device(MODEL_BAR)))
    return table


def _row(bar: Bar, device: str, rows: Sequence[Row]) -> Row:
    if bar.device not in ('', device):
        return _filled(bar, None, None, _other_device(bar))
    try:
        measured = bar.value(rows, bar.clock)
        timed_on_gpu = device == 'cuda' and bar.clock
        return _filled(bar, measured, bar.value(rows, 'gpu_median_ms') if timed_on_gpu else None, '')
    except Missing as reason:
        return _filled(bar, None, None, str(reason))


def _other_device(bar: Bar) -> str:
    return 'needs a GPU' if bar.device == 'cuda' else 'needs the CPU: --device cpu'


def _filled(bar: Bar, measured: float | None, gpu_alone: float | None, why_not: str) -> Row:
    holds = None
    if measured is not None:
        holds = 'yes' if (measured >= bar.bar if bar.at_least else measured <= bar.bar) else 'no'
    return dict(
        what=bar.what,
        bar=f'{">=" if bar.at_least else "<="} {large(bar.bar)}',
        measured=measured,
        gpu_alone=gpu_alone,
        holds=holds,
        why_not=why_not,
    )

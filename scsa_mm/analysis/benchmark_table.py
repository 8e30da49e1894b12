"""The rows and columns of benchmarks: every number, a table for each map, and a summary."""

from collections.abc import Callable, Sequence
from statistics import geometric_mean

from .benchmark import JOBS, Measured
from .contestants import Operator
from .cost_table import large, ratio, time_and_quartiles
from .shapes import Case
from .table import Column, Row

NOTES = (
    'forward is inference without autograd; fwd+bwd is both in train mode with a fixed random gradient. Times are '
    'medians of the rounds [quartiles], all contestants in turns in each round; x is the ratio to what is used by '
    'default, which has a *.',
    'copy reads a map and writes it (fwd+bwd: and a gradient as well), into memory that is there already.',
    'kept: what autograd saves for backward, in maps of the size of the input, without parameters.',
    'differs: root mean square of the difference from the reference in float32, relative to its own: the largest of '
    'output, gradient of the input and of all parameters.',
)
GPU_NOTE = (
    'ms are measured from an idle GPU on, so that short kernels wait for their launches; GPU ms are the kernels alone, '
    'launched ahead as in a busy network.'
)


def long_rows(operator: Operator, case: Case, measured: Sequence[Measured], jobs: Sequence[str] = JOBS) -> list[Row]:
    """One for each contestant and job, as the CSV has them."""
    rows = []
    for m in measured:
        for job in jobs:
            row = _about(operator, case)
            row.update(contestant=m.contestant.name, kind=m.contestant.kind, chosen=m.contestant.chosen, job=job)
            for prefix, times in (('', m.times), ('gpu_', m.gpu_times)):
                row.update(_milliseconds(prefix, times.get(job)))
            row.update(bytes_moved=operator.maps_moved(job) * case.bytes)
            if m.contestant.kind == 'copy':
                row.update(bytes_moved=(4 if job == 'training' else 2) * case.bytes)
            row.update(kept_maps=m.kept_maps, peak_gpu_bytes=m.peak_bytes, difference=m.difference, problem=m.problem)
            rows.append(row)
    return rows


def _about(operator: Operator, case: Case) -> Row:
    return dict(
        operator=operator.label,
        group=case.group,
        shape=case.shape_text,
        dtype=case.dtype,
        memory_format=case.memory_format,
    )


def _milliseconds(prefix: str, time: object) -> Row:
    names = ('median', 'q25', 'q75')
    return {f'{prefix}{name}_ms': None if time is None else 1000 * getattr(time, name) for name in names}


def wide_rows(rows: Sequence[Row]) -> list[Row]:
    """One for each contestant, out of the long rows of one map."""
    chosen = {row['job']: row for row in rows if row['chosen']}
    wide: dict[str, Row] = {}
    for row in rows:
        line = wide.setdefault(
            row['contestant'],
            dict(
                contestant=row['contestant'] + ('*' if row['chosen'] else ''),
                **{name: row[name] for name in ('kept_maps', 'peak_gpu_bytes', 'difference', 'problem')},
            ),
        )
        job = row['job']
        line[f'{job}_ms'], line[f'{job}_q25_ms'], line[f'{job}_q75_ms'] = (
            row[f'{part}_ms'] for part in ('median', 'q25', 'q75')
        )
        line[f'{job}_gpu_ms'] = row['gpu_median_ms']
        for name, key in ((f'{job}_ratio', 'median_ms'), (f'{job}_gpu_ratio', 'gpu_median_ms')):
            line[name] = _quotient(row[key], chosen[job][key] if job in chosen else None)
    return list(wide.values())


def _quotient(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def summary_rows(rows: Sequence[Row]) -> list[Row]:
    """One for each contestant: geometric means over the maps of one group, of those who were timed on all of them."""
    by_shape: dict[str, list[Row]] = {}
    for row in rows:
        by_shape.setdefault(row['shape'], []).append(row)
    lines = [{line['contestant'].rstrip('*'): line for line in wide_rows(shape)} for shape in by_shape.values()]
    chosen = {row['contestant'] for row in rows if row['chosen']}
    summary = []
    for name in dict.fromkeys(row['contestant'] for row in rows):
        each = [line.get(name, {}) for line in lines]
        row: Row = dict(contestant=name + ('*' if name in chosen else ''))
        for key in [*(f'{job}{clock}_ratio' for job in JOBS for clock in ('', '_gpu')), 'kept_maps']:
            values = [line.get(key) for line in each]
            row[key] = geometric_mean(values) if all(values) else 0.0 if values == [0.0] * len(values) else None
        summary.append(row)
    return summary


def _cell(key: str, text: Callable[[float], str]) -> Callable[[Row], str]:
    return lambda row: text(row[key])


def _columns(with_times: bool) -> tuple[Column, ...]:
    columns = [Column('contestant', lambda row: row['contestant'], 'contestant')]
    for job, heading in zip(JOBS, ('forward', 'fwd+bwd'), strict=True):
        if with_times:
            columns.append(Column(f'{heading} ms', lambda row, job=job: time_and_quartiles(row, job), f'{job}_ms'))
        columns.append(Column('x' if with_times else f'{heading} x', _cell(f'{job}_ratio', ratio), f'{job}_ratio'))
        if with_times:
            columns.append(Column('GPU ms', _cell(f'{job}_gpu_ms', large), f'{job}_gpu_ms'))
        columns.append(Column('x' if with_times else 'GPU x', _cell(f'{job}_gpu_ratio', ratio), f'{job}_gpu_ratio'))
    columns.append(Column('kept maps', _cell('kept_maps', '{:.2f}'.format), 'kept_maps'))
    if with_times:
        columns += [
            Column('peak MiB', lambda row: large(row['peak_gpu_bytes'] / 2**20), 'peak_gpu_bytes'),
            Column('differs', _cell('difference', '{:.0e}'.format), 'difference'),
            Column('problem', lambda row: row['problem'], 'problem'),
        ]
    return tuple(columns)


COLUMNS = _columns(with_times=True)
SUMMARY_COLUMNS = _columns(with_times=False)

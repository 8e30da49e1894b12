"""The rows and columns of a table of costs."""

from collections.abc import Sequence

from .cost import Cost
from .table import Column, Row


def cost_rows(costs: Sequence[Cost]) -> list[Row]:
    """Numbers by name; what is relative is so to the first row, the baseline."""
    base = costs[0]
    rows = []
    for cost in costs:
        row: Row = dict(attention=cost.attention, parameters=cost.parameters)
        row['added_parameters'] = None if cost.parameters is None else cost.parameters - base.parameters
        row['flops_per_image'] = cost.flops
        row['saved_bytes'] = cost.saved_bytes
        row['peak_gpu_bytes'] = cost.peak_bytes
        for name, time, of in (('forward', cost.forward, base.forward), ('training', cost.training, base.training)):
            values = (time.median, time.q25, time.q75) if time else (None, None, None)
            for part, seconds in zip(('', '_q25', '_q75'), values, strict=True):
                row[f'{name}{part}_ms'] = None if seconds is None else 1000 * seconds
            row[f'{name}_ratio'] = time.median / of.median if time else None
        row['problem'] = cost.problem
        rows.append(row)
    return rows


def large(number: float) -> str:
    """Three figures, and all of those before the point."""
    return f'{number:,.0f}' if number >= 100 else f'{number:.3g}'


def time_and_quartiles(row: Row, name: str) -> str:
    """Of the values ``<name>_ms``, ``<name>_q25_ms`` and ``<name>_q75_ms``."""
    median, q25, q75 = (large(row[f'{name}{part}_ms']) for part in ('', '_q25', '_q75'))
    return f'{median} [{q25}-{q75}]'


def ratio(value: float) -> str:
    if value < 0.1:
        return f'{value:.1g}'
    return f'{value:.2f}' if value < 100 else f'{value:,.0f}'


NAME = Column('attention', lambda row: row['attention'], 'attention')
PROBLEM = Column('problem', lambda row: row['problem'], 'problem')
FIGURES = (
    Column('parameters', lambda row: f'{row["parameters"]:,}', 'parameters'),
    Column('added', lambda row: f'{row["added_parameters"]:,}', 'added_parameters'),
    Column('MFLOPs', lambda row: large(row['flops_per_image'] / 1e6), 'flops_per_image'),
    Column('kept MiB', lambda row: large(row['saved_bytes'] / 2**20), 'saved_bytes'),
    Column('GPU peak MiB', lambda row: large(row['peak_gpu_bytes'] / 2**20), 'peak_gpu_bytes'),
    Column('forward ms', lambda row: time_and_quartiles(row, 'forward'), 'forward_ms'),
    Column('x', lambda row: ratio(row['forward_ratio']), 'forward_ratio'),
    Column('training ms', lambda row: time_and_quartiles(row, 'training'), 'training_ms'),
    Column('x', lambda row: ratio(row['training_ratio']), 'training_ratio'),
)
COLUMNS = (NAME, *FIGURES, PROBLEM)

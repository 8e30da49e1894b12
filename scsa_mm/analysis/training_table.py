"""The rows and columns of a table of trainings, with costs beside them where they were measured."""

import difflib
import statistics
from collections.abc import Mapping, Sequence

from ..runtime.errors import UserError
from .candidates import BASELINE
from .cost_table import FIGURES, NAME, PROBLEM
from .table import Column, Row
from .trainings import Run


def value_of(run: Run, metric: str) -> float | None:
    """The metric of a finished run, None of one that is not.

    Raises:
        UserError: if it was evaluated without this metric; with what there is.
    """
    metrics = run.metrics()
    if metrics is None:
        return None
    if metric not in metrics:
        near = difflib.get_close_matches(metric, metrics, n=3) or sorted(metrics)
        raise UserError(
            f'--metric {metric}: the evaluation of {run.name} has none; it has {", ".join(near)} '
            '(what was trained is kept: name one of these)'
        )
    return metrics[metric]


def training_rows(
    runs: Sequence[Run], metric: str, problems: Mapping[str, str], costs: Mapping[str, Row] | None = None
) -> list[Row]:
    """A row for each attention.

    Args:
        runs: All, finished or not.
        metric: Its name in the evaluation.
        problems: Why a run failed, by the name of the run.
        costs: The row of costs of each attention.
    """
    values: dict[str, dict[int, float | None]] = {}
    for run in runs:
        values.setdefault(run.candidate.label, {})[run.seed] = value_of(run, metric)
    base = values.get(BASELINE, {})
    rows = []
    for label, by_seed in values.items():
        there = [v for v in by_seed.values() if v is not None]
        # Seed by seed: what a seed does to both is not counted as a difference between them.
        pairs = [v - base[s] for s, v in by_seed.items() if v is not None and base.get(s) is not None]
        row: Row = {'attention': label, **(costs or {}).get(label, {}), 'runs': len(there)}
        row['mean'], row['std'] = _mean_and_std(there)
        row['difference'], row['difference_std'] = _mean_and_std([] if label == BASELINE else pairs)
        row.update({f'seed_{seed}': value for seed, value in by_seed.items()})
        reasons = [
            f'seed {r.seed}: {problems[r.name]}' for r in runs if r.candidate.label == label and r.name in problems
        ]
        row['problem'] = '; '.join(reasons)
        rows.append(row)
    return rows


def _mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """With the standard deviation of a sample, None of fewer than two values."""
    if not values:
        return None, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _with_std(row: Row, key: str, std: str, sign: str = '') -> str:
    spread = '' if row[std] is None else f' ± {row[std]:.3g}'
    return f'{row[key]:{sign}.4g}{spread}'


def columns(metric: str, seeds: Sequence[int]) -> list[Column]:
    return [
        NAME,
        *FIGURES,
        Column(metric, lambda row: _with_std(row, 'mean', 'std'), 'mean'),
        Column('against none', lambda row: _with_std(row, 'difference', 'difference_std', '+'), 'difference'),
        *(_seed_column(seed) for seed in seeds),
        PROBLEM,
    ]


def _seed_column(seed: int) -> Column:
    key = f'seed_{seed}'
    return Column(f'seed {seed}', lambda row: f'{row[key]:.4g}', key)


def notes(metric: str, seeds: Sequence[int]) -> list[str]:
    few = '; fewer than three say little' if len(seeds) < 3 else ''
    return [
        f'{metric}: at the end of the training; mean and standard deviation over the seeds {_listed(seeds)}{few}.',
        'against none: mean and standard deviation of the differences of the same seeds.',
    ]


def _listed(seeds: Sequence[int]) -> str:
    return ', '.join(map(str, seeds))

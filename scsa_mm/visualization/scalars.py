"""What mmengine logged in a work dir: losses and metrics over iterations, over all the starts of a run."""

import json
from dataclasses import dataclass, field
from pathlib import Path

Series = dict[int, float]  # iteration -> value


@dataclass
class Scalars:
    """Logged values by name; ``train`` such as ``loss`` and ``lr``, ``val`` such as ``coco/bbox_mAP_50``."""

    train: dict[str, Series] = field(default_factory=dict)
    val: dict[str, Series] = field(default_factory=dict)


def read_scalars(work_dir: str | Path) -> Scalars:
    """Read ``WORK_DIR/*/vis_data/*.json``; where a run was resumed, the later start counts from its first step on.

    Raises:
        ValueError: if nothing was logged there.
    """
    scalars = Scalars()
    starts = [
        _records(folder) for folder in sorted(Path(work_dir).glob('*/vis_data'))
    ]  # named by the time of the start
    for records in starts:
        _merge(scalars.train, _by_name([r for r in records if _is_train(r)]))
    for records in starts:
        _merge(scalars.val, _by_name(_metrics(records, scalars.train.get('epoch'))))
    if not scalars.train:
        raise ValueError(f'{work_dir} holds no training log of mmengine (*/vis_data/*.json)')
    return scalars


def _records(folder: Path) -> list[dict]:
    """The lines of one start; mmengine writes the same ones into ``scalars.json`` and ``<timestamp>.json``."""
    paths = sorted(folder.glob('*.json'), key=lambda p: (p.name != 'scalars.json', p.name))
    return [r for p in paths[:1] for r in map(_parse, p.read_text(encoding='utf-8').splitlines()) if r]


def _parse(line: str) -> dict | None:
    try:
        record = json.loads(line)
    except ValueError:  # the last line of a run that was killed
        return None
    return record if isinstance(record, dict) and 'step' in record else None


def _is_train(record: dict) -> bool:
    return 'loss' in record or 'lr' in record


def _by_name(records: list[dict]) -> dict[str, Series]:
    series: dict[str, Series] = {}
    for record in records:
        for name, value in record.items():
            if name != 'step' and isinstance(value, (int, float)):
                series.setdefault(name, {})[int(record['step'])] = float(value)
    return series


def _metrics(records: list[dict], epochs: Series | None) -> list[dict]:
    """The records of evaluations, with ``step`` in iterations; an epoch-based run logs them by epoch."""
    found, last = [], 0
    length = _epoch_length(epochs) if epochs else None
    for record in records:
        if _is_train(record):
            last = int(record['step'])
        elif not epochs:
            found.append(record)
        else:
            found.append({**record, 'step': int(record['step']) * length if length else last})
    return found


def _epoch_length(epochs: Series) -> int | None:
    """Iterations of an epoch, from the first step that was logged in each (they are equally far into it)."""
    first: dict[float, int] = {}
    for step, epoch in sorted(epochs.items()):
        first.setdefault(epoch, step)
    inner = sorted(first.items())
    if len(inner) < 2:
        return None
    (e0, s0), (e1, s1) = inner[0], inner[-1]
    return round((s1 - s0) / (e1 - e0))


def _merge(into: dict[str, Series], later: dict[str, Series]) -> None:
    """Put a later start's values after those that came before its first step."""
    for name, series in later.items():
        start = min(series)
        kept = {step: value for step, value in into.get(name, {}).items() if step < start}
        into[name] = kept | series

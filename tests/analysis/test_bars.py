"""The rows of the table of bars, out of made-up measurements."""

import pytest

from scsa_mm.analysis.bars import BARS, PLANS, Model, bar_rows
from scsa_mm.analysis.contestants import SE

NAMES = dict(ours='triton', copy='copy', peer='scsa.py:SCSA', other=SE)
NAMES['compiled peer'] = 'torch.compile(scsa.py:SCSA)'


def rows_of(device, times, kept=1.1, gpu=None):
    """What the plans of a device would give, with the milliseconds of each kind of contestant on every map."""
    rows = []
    for plan in PLANS[device]:
        for case in plan.cases:
            for kind in plan.kinds:
                for job in plan.jobs:
                    row = dict(operator=plan.operator, group=case.group, shape=case.shape_text, dtype=case.dtype)
                    row.update(contestant=NAMES[kind], kind=kind, chosen=kind == 'ours', job=job, problem='')
                    row.update(median_ms=times[kind], gpu_median_ms=(gpu or times)[kind], kept_maps=kept)
                    rows.append(row)
    return rows


def by_what(rows):
    return {row['what']: row for row in rows}


def test_cpu():
    rows = bar_rows(rows_of('cpu', dict(ours=1.0, peer=3.0)), 'cpu', Model())
    assert len(rows) == len(BARS) + 1
    scsa, inference, kept, ema, kept_ema, *others = rows
    assert scsa['what'] == 'SCSA, CPU 2 threads, forward+backward, published / ours'
    assert (scsa['bar'], scsa['measured'], scsa['holds']) == ('>= 2.5', pytest.approx(3), 'yes')
    assert inference['holds'] == 'yes' and scsa['gpu_alone'] is None
    assert (kept['bar'], kept['measured'], kept['holds']) == ('<= 1.2', pytest.approx(1.1), 'yes')
    assert (ema['bar'], ema['holds']) == ('>= 4', 'no')
    assert kept_ema['holds'] == 'yes'
    for row in others:
        assert row['measured'] is None and row['holds'] is None and row['why_not'] == 'needs a GPU'


def test_gpu():
    times = dict(ours=1.0, copy=0.2, peer=5.0, other=0.9)
    times['compiled peer'] = 1.4
    rows = bar_rows(rows_of('cuda', times, gpu={k: v / 2 for k, v in times.items()}), 'cuda', Model(1.05))
    table = by_what(rows)
    assert [row['why_not'] for row in rows[:2]] == ['needs the CPU: --device cpu'] * 2
    assert rows[2]['holds'] == 'yes'  # what is kept can be counted anywhere
    eager = table['SCSA, GPU, forward+backward, bfloat16, published eager / ours']
    assert (eager['measured'], eager['gpu_alone'], eager['holds']) == (pytest.approx(5), pytest.approx(5), 'yes')
    compiled = table['SCSA, GPU, forward+backward, torch.compile(published) / ours']
    assert compiled['measured'] == pytest.approx(1.4) and compiled['holds'] == 'no'
    limit = table['SCSA, GPU, batch 16, forward+backward / (6 reads + 2 writes at copy speed)']
    assert limit['measured'] == pytest.approx(1 / (4 * 0.2)) and limit['holds'] == 'yes'
    for operator in ('SCSA', 'EMA'):
        for dtype in ('float32', 'bfloat16'):
            se = table[f"{operator}, GPU, forward+backward, {dtype}, ours / timm's SE"]
            assert se['measured'] == pytest.approx(1 / 0.9) and se['holds'] == 'no'
    assert rows[-1]['measured'] == 1.05 and rows[-1]['holds'] == 'yes'


def test_which_clock_counts():
    times, gpu = dict(ours=2.0, copy=1.0, peer=4.0, other=1.0), dict(ours=1.0, copy=0.2, peer=6.0, other=1.0)
    times['compiled peer'] = gpu['compiled peer'] = 1.0
    table = by_what(bar_rows(rows_of('cuda', times, gpu=gpu), 'cuda', Model(1.05)))
    eager = table['SCSA, GPU, forward+backward, float32, published eager / ours']
    assert (eager['measured'], eager['gpu_alone']) == (pytest.approx(2), pytest.approx(6)) and eager['holds'] == 'no'
    limit = table['SCSA, GPU, batch 16, forward+backward / (6 reads + 2 writes at copy speed)']
    assert limit['measured'] == limit['gpu_alone'] == pytest.approx(1.25)


def test_geometric_mean_over_four_maps():
    rows = rows_of('cpu', dict(ours=1.0, peer=4.0))
    shapes = sorted({row['shape'] for row in rows})
    for row in rows:
        if row['kind'] == 'peer':
            row['median_ms'] = (1, 2, 4, 8)[shapes.index(row['shape'])]
    assert bar_rows(rows, 'cpu', Model())[0]['measured'] == pytest.approx(64 ** (1 / 4))


def test_what_is_missing_is_said():
    rows = [row for row in rows_of('cpu', dict(ours=1.0, peer=4.0)) if row['kind'] != 'peer']
    for row in bar_rows(rows, 'cpu', Model())[:2]:
        assert row['measured'] is None and row['holds'] is None and row['why_not'] == '--peer of SCSA was not there'
    rows = rows_of('cpu', dict(ours=1.0, peer=4.0))
    for row in rows:
        if row['kind'] == 'ours' and row['operator'] == 'SCSA':
            row.update(problem='wrong', median_ms=None, kept_maps=None)
    scsa, _, kept, ema, *_ = bar_rows(rows, 'cpu', Model())
    assert scsa['why_not'] == kept['why_not'] == 'our SCSA: wrong' and ema['holds'] == 'yes'
    assert bar_rows([], 'cuda', Model(why_not="No module named 'mmdet'"))[-1]['why_not'] == "No module named 'mmdet'"

"""Kernels compiled for a GPU that is not here, and the table of what they take."""

import csv
import runpy
import sys

import pytest
import torch

from tests.ops.interpreter import interpreted

triton = pytest.importorskip('triton')
tl = pytest.importorskip('triton.language')
if interpreted():
    pytest.skip('kernels that are interpreted are not compiled', allow_module_level=True)

from scsa_mm.analysis import kernel_table, offline  # noqa: E402
from scsa_mm.ops.launch import Launch  # noqa: E402

TOOL = 'tools/analysis/kernel_table.py'


@triton.jit(do_not_specialize=['n'])
def double(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, 2 * tl.load(x + at, mask=at < n), mask=at < n)


def doubled(n, dtype, block=256):
    x = torch.empty(n, dtype=dtype)
    launch = Launch(double, (-(-n // block),), (dtype, dtype), (n,), BLOCK=block, num_warps=2)
    return lambda: launch(x, torch.empty_like(x))


@pytest.fixture
def fresh():
    with offline.fresh_cache():
        yield


def launches():
    runs = [doubled(1000, torch.float32), doubled(5000, torch.float32), doubled(1000, torch.float64)]
    return [('forward', launch) for run in runs for launch in offline.launches_of(run)]


def test_rows(fresh):
    variants = {}
    rows = kernel_table.rows_of(launches(), 90, dict(operator='double'), variants)
    assert [(r['operator'], r['kernel'], r['pass'], r['programs'], r['warps'], r['variant']) for r in rows] == [
        ('double', 'double', 'forward', 4, 2, 1),
        ('double', 'double', 'forward', 20, 2, 1),
        ('double', 'double', 'forward', 4, 2, 2),
    ]
    assert all(8 <= row['registers'] <= 64 and row['spilled_bytes'] == row['shared_bytes'] == 0 for row in rows)
    assert rows[0]['seconds'] > 0 and rows[1]['seconds'] is None and len(variants) == 2


def test_other_gpus(fresh):
    (_, launch), *_ = launches()
    assert 'sm_80' in offline.compile_launch(launch, 80).ptx
    assert 'sm_90' in offline.compile_launch(launch, 90).ptx


@pytest.mark.parametrize(
    'registers,warps,fit', [(32, 8, 8), (128, 8, 2), (129, 8, 1), (255, 8, 1), (16, 32, 2), (8, 1, 32)]
)
def test_side_by_side(registers, warps, fit):
    assert kernel_table.side_by_side(registers, warps) == fit


def run_tool(monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', [TOOL, *map(str, args)])
    runpy.run_path(TOOL, run_name='__main__')


def test_tool(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(kernel_table, 'launches_on', lambda operator, case: launches())
    run_tool(monkeypatch, '--attention', 'EMA', '--shape', 1, 32, 8, 8, '--out', tmp_path)
    with (tmp_path / 'kernels.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['programs'] for row in rows] == ['4', '20', '4'] and rows[0]['capability'] == '90'
    text = (tmp_path / 'kernels.md').read_text()
    assert '### EMA, 1 x 32 x 8 x 8, float32, contiguous' in text and '- EMA: 2 variants; compiled' in text
    assert 'written:' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize('name', ['SCSA', 'EMA'])
def test_our_kernels_are_listed(name, fresh):
    from scsa_mm.analysis.contestants import parse_operators
    from scsa_mm.analysis.shapes import Case

    found = list(kernel_table.launches_on(parse_operators([name])[0], Case('', (1, 32, 9, 10))))
    assert {'forward', 'backward'} == {of for of, _ in found}
    rows = kernel_table.rows_of(found, 90, {}, {})
    assert all(row['programs'] and row['registers'] for row in rows)

"""tools/analysis/benchmark_attention.py as a user runs it, on tiny maps."""

import csv
import runpy
import sys

import cv2
import pytest
import torch

from scsa_mm.analysis import bars, shapes

TOOL = 'tools/analysis/benchmark_attention.py'
PEERS = """
import torch
from scsa_mm import attention

class SCSA(attention.SCSA):
    def __init__(self, dim, head_num):
        super().__init__(dim, num_heads=head_num, backend='reference')

class Wrong(SCSA):
    def forward(self, x):
        return 1.5 * super().forward(x)

class EMA(attention.EMA):
    def __init__(self, channels, factor=32):
        super().__init__(channels, groups=factor, backend='reference')

class Alien(torch.nn.Conv2d):
    def __init__(self, channels):
        super().__init__(channels, channels, 1)
"""
SMALL = ['--device', 'cpu', '--repeats', 1, '--threads', 1, '--no-compile']


@pytest.fixture
def peers(tmp_path):
    path = tmp_path / 'peers.py'
    path.write_text(PEERS)
    return path


@pytest.fixture
def main(monkeypatch):
    """Run the tool in this process; returns its exit status."""

    def run(*args):
        monkeypatch.setattr(sys, 'argv', [TOOL, *map(str, args)])
        threads = torch.get_num_threads()
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(TOOL, run_name='__main__')
        torch.set_num_threads(threads)
        return caught.value.code

    return run


def read(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_all_contestants(main, peers, tmp_path, capsys):
    out = tmp_path / 'new' / 'out'
    args = ['--attention', 'SCSA', 'EMA:groups=4', '--shape', 1, 8, 6, 5, '--shape', 1, 16, 3, 4, *SMALL]
    args += ['--peer', f'{peers}:SCSA', '--peer-kwargs', 'head_num=1', '--peer', f'EMA={peers}:EMA']
    args += ['--peer-kwargs', 'factor=4', '--peer', f'SCSA={peers}:Wrong', '--peer-kwargs', 'head_num=1']
    args += ['--peer', f'SCSA={peers}:Alien']
    assert main(*args, '--out', out) == 0
    rows = read(out / 'benchmark.csv')
    timm = ['SE (timm)', 'CBAM (timm)', 'CoordAttn (timm)', 'copy']
    alien = 'peers.py:Alien'
    theirs = {
        'SCSA': ['peers.py:SCSA(head_num=1)', 'peers.py:Wrong(head_num=1)', alien],
        'EMA:groups=4': ['peers.py:EMA(factor=4)'],
    }
    for operator, names in theirs.items():
        for shape in ('1 x 8 x 6 x 5', '1 x 16 x 3 x 4'):
            own = [row for row in rows if (row['operator'], row['shape']) == (operator, shape)]
            found = [row['contestant'] for row in own if row['job'] == 'training']
            assert found == [row['contestant'] for row in own if row['job'] == 'forward']
            assert found[-len(names) - 4 :] == names + timm and {'lean', 'reference'} <= set(found[: -len(names) - 4])
            assert [row['kind'] for row in own if row['chosen'] == 'True'] == ['ours'] * 2
    for row in rows:
        assert row['threads'] == '1' and row['rounds'] == '1' and row['dtype'] == 'float32' and row['device']
        assert f'torch {torch.__version__}' in row['versions'] and len(row['date']) == 10
        assert row['peak_gpu_bytes'] == row['gpu_median_ms'] == ''
        if 'Wrong' in row['contestant']:
            assert row['problem'].startswith('wrong: it differs') and row['median_ms'] == row['kept_maps'] == ''
        else:
            assert row['problem'] == ''
            assert 0 < float(row['q25_ms']) <= float(row['median_ms']) <= float(row['q75_ms'])
        if row['contestant'] == 'copy':
            assert row['kept_maps'] == '0.0'
            assert int(row['bytes_moved']) == (4 if row['job'] == 'training' else 2) * 4 * (
                240 if '8 x 6' in row['shape'] else 192
            )
    names = ['benchmark.csv', 'benchmark.md', 'benchmark_EMA_groups=4_float32.png', 'benchmark_SCSA_float32.png']
    assert sorted(path.name for path in out.iterdir()) == names
    assert cv2.imread(str(out / names[-1])).std() > 1
    text = (out / 'benchmark.md').read_text()
    assert '### SCSA, given shapes, float32, contiguous: geometric means' in text
    assert '### EMA:groups=4, given shapes, 1 x 16 x 3 x 4, float32, contiguous' in text
    assert f'- {alien} was not checked: its parameters are not ours in name and shape.' in text
    assert '- SCSA, triton is left out: x is on cpu.' in text
    assert f'written: {out}/benchmark.csv' in capsys.readouterr().out

    assert main(*args, '--out', out) == 2
    assert 'benchmark.csv of an earlier comparison; choose another --out' in capsys.readouterr().err


def test_channels_last_and_dtypes(main, tmp_path):
    args = ['--attention', 'SCSA', '--shape', 1, 8, 4, 3, '--dtype', 'float32', 'bfloat16', '--channels-last', *SMALL]
    assert main(*args, '--out', tmp_path) == 0
    rows = read(tmp_path / 'benchmark.csv')
    assert {row['memory_format'] for row in rows} == {'channels_last'}
    assert {row['dtype'] for row in rows} == {'float32', 'bfloat16'}
    moved = {row['dtype']: int(row['bytes_moved']) for row in rows if row['contestant'] == 'lean'}
    assert moved['float32'] == 2 * moved['bfloat16']


@pytest.fixture
def small_stages(monkeypatch):
    monkeypatch.setattr(shapes, 'CHANNELS', (32, 32, 32, 32))
    monkeypatch.setitem(shapes.IMAGES, 'detection', (64, 96))


def test_bars_on_a_cpu(main, peers, tmp_path, small_stages, capsys):
    args = [
        '--bars',
        '--device',
        'cpu',
        '--repeats',
        1,
        '--threads',
        1,
        '--peer',
        f'{peers}:SCSA',
        '--peer-kwargs',
        'head_num=1',
    ]
    assert main(*args, '--peer', f'{peers}:EMA', '--out', tmp_path) == 0
    rows = read(tmp_path / 'bars.csv')
    assert [row['what'] for row in rows] == [*(bar.what for bar in bars.BARS), bars.MODEL_BAR.what]
    for row in rows[:5]:
        assert float(row['measured']) > 0 and row['holds'] in ('yes', 'no') and row['why_not'] == ''
    for row in rows[5:]:
        assert row['measured'] == row['holds'] == '' and row['why_not'] == 'needs a GPU'
    measured = read(tmp_path / 'benchmark.csv')
    assert {(row['operator'], row['job']) for row in measured} == {
        ('SCSA', 'forward'), ('SCSA', 'training'), ('EMA', 'training'),
    }  # fmt: skip
    assert {row['kind'] for row in measured} == {'ours', 'peer'}
    assert '| SCSA kept for backward, in input maps | <= 1.2 |' in (tmp_path / 'bars.md').read_text()
    assert 'bars.csv, .md' in capsys.readouterr().out


def test_bars_without_peers(main, tmp_path, small_stages):
    assert main('--bars', '--device', 'cpu', '--repeats', 1, '--out', tmp_path) == 0
    rows = read(tmp_path / 'bars.csv')
    assert rows[0]['measured'] == '' and rows[0]['why_not'] == '--peer of SCSA was not there'
    assert rows[2]['holds'] and rows[4]['holds'] and rows[0]['threads'] == '2'  # as the bars say


TINY = ['--attention', 'SCSA', '--shape', '1', '8', '2', '2', '--device', 'cpu', '--out', 'OUT']


@pytest.mark.parametrize(
    'args, message',
    [
        (['--attention', 'SE', *TINY[2:]], 'SE has one implementation only; SCSA and EMA have several'),
        (['--attention', 'SCSAA', *TINY[2:]], "no attention 'SCSAA'; did you mean SCSA"),
        (['--attention', 'EMA', *TINY[2:]], '--attention EMA with 8 channels: '),
        ([*TINY, '--bars'], '--bars settles what is measured; leave out --attention, --shape'),
        ([*TINY, '--repeats', '0'], '--repeats is at least 1, got 0'),
        ([*TINY, '--threads', '0'], '--threads is at least 1, got 0'),
        ([*TINY, '--shape', '1', '0', '2', '2'], '--shape is N C H W, all at least 1; got 1 0 2 2'),
        ([*TINY, '--batch', '0'], '--batch is at least 1, got 0'),
        ([*TINY, '--peer', 'nowhere.py:SCSA'], 'nowhere.py does not exist'),
        ([*TINY, '--peer', 'PEERS:Missing'], 'has no class Missing'),
        ([*TINY, '--peer', 'PEERS:EMA'], 'peers.py:EMA: it is compared with nothing named EMA; write --peer SCSA='),
        ([*TINY, '--peer', 'PEERS:SCSA'], "missing 1 required positional argument: 'head_num'"),
        ([*TINY, '--peer', 'PEERS:SCSA', '--peer-kwargs', 'head_num=1', 'more=2'], 'unexpected keyword argument'),
        ([*TINY, '--peer', 'PEERS:SCSA', '--peer-kwargs', 'head_num'], 'arguments are key=value key=value'),
    ],
)
def test_bad_input_is_one_line_and_nothing_written(main, peers, tmp_path, capsys, args, message):
    out = tmp_path / 'out'
    assert main(*(str(out) if arg == 'OUT' else arg.replace('PEERS', str(peers)) for arg in args)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and message in lines[0], lines
    assert not out.exists()

"""Who is timed, who is found wrong, and what the tables say of made-up times."""

import pytest
import torch
from torch import nn

from scsa_mm.analysis import contestants
from scsa_mm.analysis.benchmark import JOBS, Measured, difference, inputs, measure, steps
from scsa_mm.analysis.benchmark_table import COLUMNS, SUMMARY_COLUMNS, long_rows, summary_rows, wide_rows
from scsa_mm.analysis.contestants import Contestant, copy, of_compiler, of_timm, ours, parse_operators
from scsa_mm.analysis.shapes import Case, cases, stages
from scsa_mm.analysis.table import cells
from scsa_mm.analysis.timing import Spread
from scsa_mm.attention import SCSA
from scsa_mm.runtime.errors import UserError

CPU = torch.device('cpu')
CASE = Case('given shapes', (1, 8, 6, 5))


def operator(text='SCSA'):
    return parse_operators([text])[0]


class Late(SCSA):
    """As published by others: the same parameters, but a gate that is wrong where a norm has a bias."""

    def forward(self, x):
        norm = self.norm_h
        self.norm_h = nn.GroupNorm(norm.num_groups, norm.num_channels)
        y = super().forward(x)
        self.norm_h = norm
        return y + 0 * (norm.weight + norm.bias).sum()


class Sign(nn.Module):
    """Has parameters of its own, and no right backward."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x):
        return x * self.weight


def test_the_maps_of_resnet_50():
    assert stages('detection', 2) == [(2, 64, 200, 336), (2, 128, 100, 168), (2, 256, 50, 84), (2, 512, 25, 42)]
    assert [s[2:] for s in stages('segmentation', 1)] == [(128, 128), (64, 64), (32, 32), (16, 16)]
    assert [s[2:] for s in stages('classification', 1)] == [(56, 56), (28, 28), (14, 14), (7, 7)]
    many = cases(['detection', 'classification'], [2, 16], [], ['float32', 'bfloat16'], False)
    assert len(many) == 2 * 2 * 2 * 4
    assert many[0] == Case('detection, batch 2', (2, 64, 200, 336))
    assert many[0].bytes == 2 * 64 * 200 * 336 * 4 and many[-1].bytes == 16 * 512 * 7 * 7 * 2
    assert cases(['detection'], [2], [[1, 8, 6, 5]], ['float32'], False) == [CASE]


def test_inputs_are_always_the_same():
    case = Case('given shapes', (2, 8, 6, 5), 'bfloat16', channels_last=True)
    (x, gradient), (again, _) = inputs(case, CPU), inputs(case, CPU)
    assert torch.equal(x, again) and not torch.equal(x, gradient)
    assert x.dtype is torch.bfloat16 and x.is_contiguous(memory_format=torch.channels_last) and x.requires_grad


def test_operators_have_several_backends():
    assert [o.name for o in parse_operators(['SCSA:num_heads=2', 'EMA:groups=4'])] == ['SCSA', 'EMA']
    with pytest.raises(UserError, match='SE has one implementation only'):
        parse_operators(['SE'])
    with pytest.raises(UserError, match='none has one implementation only'):
        parse_operators(['none'])
    with pytest.raises(UserError, match='leave backend out'):
        parse_operators(['SCSA:backend=lean'])
    with pytest.raises(UserError, match='--attention EMA:groups=3 with 8 channels: .*multiple'):
        contestants.check(operator('EMA:groups=3'), [], [8])


def test_our_backends_are_those_that_can_run():
    notes = {}
    found = {c.name: c for c in ours(operator(), inputs(CASE, CPU)[0], notes)}
    assert {'lean', 'reference'} <= found.keys() and 'triton' not in found
    assert [c.chosen for c in found.values()].count(True) == 1 and not found['reference'].chosen
    assert notes['SCSA, triton'] == 'x is on cpu'


def test_without_timm(monkeypatch):
    monkeypatch.setitem(contestants.TIMM, 'SE (timm)', ('timm.layers', 'NoSuchModule'))
    notes = {}
    assert 'SE (timm)' not in [c.name for c in of_timm(notes)]
    assert 'NoSuchModule' in notes['SE (timm)']


def test_without_a_compiler(monkeypatch):
    monkeypatch.setattr('shutil.which', lambda name: None)
    assert contestants.cannot_compile(CPU) == 'no C++ compiler'
    assert contestants.cannot_compile(torch.device('cuda')) == ''


def test_who_computes_something_else_is_not_timed():
    told = []
    everyone = [
        *ours(operator(), inputs(CASE, CPU)[0], {}),
        Contestant('twin', 'peer', lambda c: SCSA(c, backend='reference')),
        Contestant('late', 'peer', Late),
        Contestant('own', 'peer', Sign),
        Contestant('broken', 'peer', lambda c: nn.Conv2d(c + 1, c, 1)),
        Contestant('SE', 'other', Sign),
        copy(),
    ]
    found = {m.contestant.name: m for m in measure(operator(), CASE, everyone, CPU, 1, told.append)}
    assert len(told) == steps(everyone, 1, CPU)
    for m in found.values():
        assert set(m.times) == (set() if m.problem else set(JOBS)) and not m.gpu_times and m.peak_bytes is None
        if m.contestant.kind == 'ours':
            assert m.problem == '' and m.difference < 1e-5
    assert found['late'].problem.startswith('wrong: it differs from the reference by')
    assert '9 channels' in found['broken'].problem and '\n' not in found['broken'].problem
    assert found['twin'].difference == 0 and found['twin'].problem == ''
    assert found['own'].difference is None and found['own'].problem == ''  # there is nothing to compare
    assert found['copy'].kept_maps == 0.0
    assert found['own'].kept_maps == 1.0  # x; the weight is a parameter
    assert found['lean'].kept_maps > 1.0


def test_a_backend_that_gives_up_is_not_timed_as_if_it_had_run(monkeypatch):
    from scsa_mm.ops import dispatch
    from scsa_mm.ops.scsa import lean

    monkeypatch.setattr(dispatch, '_failed', {})
    monkeypatch.setattr(lean, 'backward', lambda *args: 1 / 0)
    contestant = next(c for c in ours(operator(), inputs(CASE, CPU)[0], {}) if c.name == 'lean')
    (found,) = measure(operator(), CASE, [contestant], CPU, 1, lambda what: None)
    assert found.problem == 'failed, so that cpp ran in its place; the log says why' and not found.times


def test_half_precision_is_held_against_float32():
    case = Case('given shapes', (1, 8, 6, 5), 'bfloat16')
    twin = Contestant('twin', 'peer', lambda c: SCSA(c, backend='reference'))
    (found,) = measure(operator(), case, [twin], CPU, 1, lambda what: None, jobs=('training',))
    assert 1e-4 < found.difference < 0.1 and list(found.times) == ['training']


@pytest.mark.slow
def test_compiled():
    plain, _ = found = of_compiler(operator(), ours(operator(), torch.empty(CASE.shape), {}))
    assert [c.name for c in found] == ['torch.compile(reference)', 'torch.compile(cpp)']
    for measured in measure(operator(), CASE, found, CPU, 1, lambda what: None):
        assert measured.problem == '' and measured.difference < 1e-5 and set(measured.times) == set(JOBS)
    lean = Contestant('lean', 'ours', plain.build, 'lean', chosen=True)
    assert [c.name for c in of_compiler(operator(), [lean])] == [plain.name]


def test_difference():
    truth = dict(a=torch.tensor([3.0, 4.0]), b=torch.zeros(2))
    assert difference(dict(a=torch.tensor([3.0, 4.5])), truth) == pytest.approx(0.1)
    assert difference(dict(a=truth['a'], b=torch.ones(2)), truth) > 1e6
    assert difference(dict(a=torch.tensor([3.0, float('nan')])), truth) == float('inf')
    assert difference(dict(a=torch.zeros(3)), truth) == float('inf')


def made_up(case, times):
    """Rows of contestants with these milliseconds forward; training takes twice as long."""
    measured = []
    for name, kind, ms in times:
        m = Measured(Contestant(name, kind, nn.Identity, chosen=name == 'lean'), kept_maps=1.5, difference=1e-7)
        if ms is None:
            m.problem = 'wrong'
        else:
            m.times = {job: Spread(*(k * f * ms / 1000 for f in (1, 0.9, 1.1))) for k, job in enumerate(JOBS, 1)}
        measured.append(m)
    return long_rows(operator(), case, measured)


def test_rows():
    case = Case('g', (2, 8, 6, 5))
    rows = made_up(case, [('lean', 'ours', 2.0), ('peer', 'peer', 5.0), ('copy', 'copy', 0.5), ('bad', 'peer', None)])
    assert [(r['contestant'], r['job']) for r in rows[:2]] == [('lean', 'forward'), ('lean', 'training')]
    first = rows[0]
    assert first['shape'] == '2 x 8 x 6 x 5' and first['dtype'] == 'float32' and first['memory_format'] == 'contiguous'
    assert (first['median_ms'], first['q25_ms'], first['q75_ms']) == pytest.approx((2, 1.8, 2.2))
    assert first['gpu_median_ms'] is None and first['peak_gpu_bytes'] is None
    size = 2 * 8 * 6 * 5 * 4
    assert [r['bytes_moved'] for r in rows[:6]] == [4 * size, 8 * size, 4 * size, 8 * size, 2 * size, 4 * size]

    lean, peer, _, bad = wide_rows(rows)
    assert lean['contestant'] == 'lean*' and lean['forward_ratio'] == 1
    assert peer['forward_ratio'] == peer['training_ratio'] == 2.5 and peer['training_ms'] == pytest.approx(10)
    assert bad['problem'] == 'wrong' and bad['forward_ratio'] is None
    used, lines = cells([lean, peer, bad], COLUMNS)
    assert [c.heading for c in used] == [
        'contestant', 'forward ms', 'x', 'fwd+bwd ms', 'x', 'kept maps', 'differs', 'problem',
    ]  # fmt: skip
    assert lines[1] == ['peer', '5 [4.5-5.5]', '2.50', '10 [9-11]', '2.50', '1.50', '1e-07', '']


def test_summary_is_a_geometric_mean_of_who_was_timed_everywhere():
    rows = made_up(Case('g', (1, 8, 6, 5)), [('lean', 'ours', 1.0), ('peer', 'peer', 2.0), ('late', 'peer', 3.0)])
    rows += made_up(Case('g', (1, 8, 3, 5)), [('lean', 'ours', 1.0), ('peer', 'peer', 8.0), ('late', 'peer', None)])
    lean, peer, late = summary_rows(rows)
    assert lean['contestant'] == 'lean*' and lean['forward_ratio'] == pytest.approx(1)
    assert peer['forward_ratio'] == pytest.approx(4) and peer['kept_maps'] == pytest.approx(1.5)
    assert late['forward_ratio'] is None
    used, _ = cells([lean, peer, late], SUMMARY_COLUMNS)
    assert [c.heading for c in used] == ['contestant', 'forward x', 'fwd+bwd x', 'kept maps']

"""Parameters, FLOPs and saved bytes against figures worked out by hand."""

import pytest
import torch
from torch import nn

from scsa_mm.analysis.candidates import parse_candidates
from scsa_mm.analysis.cost import count_flops, measure, notes, saved_bytes, steps
from scsa_mm.analysis.cost_table import cost_rows
from scsa_mm.analysis.hosts import Host, one_module

CPU = torch.device('cpu')
FLOAT = 4


def conv():
    return nn.Conv2d(4, 8, 3, bias=False)


def test_flops_of_a_convolution():
    # Each of the 8 x 8 x 8 outputs takes 3 x 3 products from each of 4 channels.
    assert count_flops(conv(), torch.zeros(1, 4, 10, 10)) == 8 * 8 * 8 * 4 * 3 * 3


class Twice(nn.Module):
    """A product with a view of itself, which autograd saves twice, and with a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer('scale', torch.ones(100))

    def forward(self, x):
        return x * x.view_as(x) * self.scale


class Branch(nn.Module):
    """What is saved on a branch that leads nowhere does not stay."""

    def forward(self, x):
        (x + 1).sigmoid()
        return x + 1


@pytest.mark.parametrize(
    'module, shape, floats',
    [
        (conv(), (2, 4, 10, 10), 2 * 4 * 10 * 10),  # the input; the weight is a parameter
        (nn.Sequential(conv(), nn.Sigmoid()), (2, 4, 10, 10), 2 * 4 * 10 * 10 + 2 * 8 * 8 * 8),
        (Twice(), (3, 100), 3 * 100),
        (nn.Sequential(nn.Sigmoid(), Branch()), (5, 7), 5 * 7),
    ],
)
def test_saved_bytes(module, shape, floats):
    assert saved_bytes(module, torch.randn(shape, requires_grad=True)) == FLOAT * floats


def test_a_view_counts_with_its_storage():
    class Part(nn.Module):
        def forward(self, x):
            return (x + 0)[:1].square()

    assert saved_bytes(Part(), torch.randn(10, 10, requires_grad=True)) == FLOAT * 100


def test_one_module_and_one_that_fails():
    told = []
    candidates = parse_candidates(['none', 'SCSA', 'EMA:groups=7', 'SE'])
    costs = measure(one_module((2, 16, 6, 5)), candidates, CPU, 2, told.append)
    assert len(told) == steps(candidates, 2)
    none, scsa, ema, se = costs
    assert (none.parameters, none.flops, none.saved_bytes, none.problem) == (0, 0, 0, '')
    # 4 depthwise convolutions of 3, 5, 7 and 9 with bias, three norms, q, k and v.
    assert scsa.parameters == 4 * (3 + 5 + 7 + 9 + 4) + 3 * 2 * 16 + 3 * 16
    assert scsa.saved_bytes >= FLOAT * 2 * 16 * 6 * 5
    assert scsa.peak_bytes is None
    assert 0 < scsa.forward.q25 <= scsa.forward.median <= scsa.forward.q75
    assert scsa.training.median > 0
    assert (ema.parameters, ema.forward, ema.training) == (None, None, None)
    assert '16' in ema.problem and 'groups' in ema.problem and '\n' not in ema.problem
    assert se.problem == '' and se.parameters == 2 * 16


def test_a_backward_that_fails_is_a_row():
    class NoBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError('no way\nback')

    class Bad(nn.Module):
        def forward(self, x):
            return NoBackward.apply(x)

    host = one_module((1, 4, 2, 2))
    modules = dict(none=nn.Identity(), SE=Bad())
    host = Host(host.name, host.measured, host.x, lambda candidate: modules[candidate.label])
    costs = measure(host, parse_candidates(['none', 'SE']), CPU, 1, lambda what: None)
    assert [c.problem for c in costs] == ['', 'no way back']


def test_rows_are_relative_to_the_first():
    costs = measure(one_module((1, 8, 4, 4)), parse_candidates(['none', 'SE:reduction=2']), CPU, 3, lambda what: None)
    none, se = cost_rows(costs)
    assert none['added_parameters'] == 0 and none['forward_ratio'] == none['training_ratio'] == 1
    assert se['added_parameters'] == se['parameters'] == 2 * 8 * 4
    assert se['forward_ratio'] == pytest.approx(se['forward_ms'] / none['forward_ms'])
    assert se['training_ms'] == pytest.approx(1000 * costs[1].training.median)
    assert se['training_q25_ms'] <= se['training_ms'] <= se['training_q75_ms']


def test_steps_do_not_add_up_gradients():
    module = conv()
    host = Host('conv', '', torch.randn(1, 4, 10, 10), lambda candidate: module)
    measure(host, parse_candidates(['none']), CPU, 2, lambda what: None)
    expected = torch.autograd.grad(module(host.x).sum(), module.weight)[0]
    assert torch.allclose(module.weight.grad, expected, atol=1e-5)


def test_a_whole_step_moves_no_parameter():
    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = conv()

        def forward(self, x):
            return self.layer(x).sum() if self.training else x

    module = Loss()
    before = module.layer.weight.clone()
    host = Host('loss', '', torch.randn(1, 4, 10, 10), lambda candidate: module, whole_step=True)
    (cost,) = measure(host, parse_candidates(['none']), CPU, 1, lambda what: None)
    assert cost.flops is None and cost.training.median > 0 and cost.saved_bytes == FLOAT * 4 * 10 * 10
    assert torch.equal(module.layer.weight, before) and module.layer.weight.grad is not None
    assert 'plain SGD' in notes(host)[-1] and not any('MFLOPs' in note for note in notes(host))

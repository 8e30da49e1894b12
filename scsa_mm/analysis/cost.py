"""What attention costs: parameters, FLOPs, bytes kept for backward, time."""

import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from mmengine.analysis import FlopAnalyzer
from torch import Tensor, nn

from ..runtime.errors import UserError, one_line
from .candidates import Candidate
from .hosts import Host
from .timing import Spread, interleaved

WARM_UP = 3
FLOPS_NOTE = (
    'MFLOPs: millions of multiply-adds for one image or map, counted by mmengine.analysis: convolutions, linear '
    'layers, matrix products, norms and interpolation; not pooling, activations, softmax and elementwise arithmetic.'
)
KEPT_NOTE = 'kept: bytes that autograd saves in one training step, each storage once, without parameters and buffers.'
TIMES_NOTE = (
    'times: median of the rounds [quartiles], all in turns in each round; training is {training}. x is the ratio to '
    'none.'
)


def notes(host: Host) -> tuple[str, ...]:
    """What the columns mean."""
    if host.whole_step:
        step = 'losses on made-up annotations, backward and plain SGD; forward is prediction'
        return KEPT_NOTE, TIMES_NOTE.format(training=step)
    step = 'forward and backward in train mode, without loss and optimizer'
    return FLOPS_NOTE, KEPT_NOTE, TIMES_NOTE.format(training=step)


@dataclass
class Cost:
    """One row; None where it was not measured.

    Args:
        attention: Label of the candidate.
        parameters: Of the whole host.
        flops: Multiply-adds of one image; not counted for a whole step.
        saved_bytes: Kept for backward, for the whole batch.
        peak_bytes: Most memory on the GPU during a training step, beyond what was there before.
        forward: Inference.
        training: Forward and backward.
        problem: Why it could not be measured; empty if it could.
    """

    attention: str
    parameters: int | None = None
    flops: int | None = None
    saved_bytes: int | None = None
    peak_bytes: int | None = None
    forward: Spread | None = None
    training: Spread | None = None
    problem: str = ''


def measure(
    host: Host,
    candidates: Sequence[Candidate],
    device: torch.device,
    repeats: int,
    on_step: Callable[[str], None],
) -> list[Cost]:
    """The cost of each candidate; one that fails has its reason in ``problem``, and the others go on.

    Args:
        host: Where.
        candidates: The first is the baseline.
        device: Where it runs.
        repeats: Rounds of timing.
        on_step: Told what was done, ``steps(candidates, repeats)`` times.

    Raises:
        UserError: if the baseline fails.
    """
    x = host.x.detach().to(device).requires_grad_(host.x.requires_grad)
    costs, steps = [], {}
    for candidate in candidates:
        cost = Cost(candidate.label)
        costs.append(cost)
        try:
            steps[candidate.label] = _examine(host.build(candidate).to(device), x, cost, host.whole_step)
        except Exception as error:  # whatever an attention raises on this host is a result
            if candidate.cfg is None:
                raise UserError(f'{host.name}: {one_line(error)}') from error
            cost.problem = one_line(error)
        on_step(candidate.label)
    times = {}
    for job, training in (('infer', False), ('train', True)):
        for step in steps.values():
            step.module.train(training)
        jobs = {label: getattr(step, job) for label, step in steps.items()}
        times[job] = interleaved(jobs, repeats, WARM_UP, device, on_round=partial(on_step, job))
    for cost in costs:
        cost.forward, cost.training = (times[job].get(cost.attention) for job in ('infer', 'train'))
    return costs


def steps(candidates: Sequence[Candidate], repeats: int) -> int:
    """How often :func:`measure` tells that it got on."""
    return len(candidates) + 2 * (WARM_UP + repeats)


def _examine(module: nn.Module, x: Tensor, cost: Cost, whole_step: bool) -> 'Step':
    """Fill in all but the times; the module has then been run in both modes."""
    parameters = sum(p.numel() for p in module.parameters())
    if whole_step:
        module.eval()
        with torch.no_grad():
            module(x)
        flops = None  # the counter traces, which no head does that chooses boxes
    else:
        flops = count_flops(module, x[:1].detach())
    module.train()
    step = Step(module, x, optimizer=_resting_sgd(module) if whole_step else None)
    saved = saved_bytes(module, x)
    peak = peak_bytes(step)
    cost.parameters, cost.flops, cost.saved_bytes, cost.peak_bytes = parameters, flops, saved, peak
    return step


def _resting_sgd(module: nn.Module) -> torch.optim.SGD:
    """Computes its step, which changes nothing: every round does the same work."""
    return torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.0)


class Step:
    """The two jobs that are timed.

    Args:
        module: In the mode that is wanted.
        x: Its input.
        gradients: Of the outputs that need one; by default ones.
        optimizer: Its step is part of training.
    """

    def __init__(
        self,
        module: nn.Module,
        x: Tensor,
        gradients: Sequence[Tensor] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        self.module, self.x, self.optimizer = module, x, optimizer
        # A loss would add its own time; its gradient is made once.
        self.gradients = [torch.ones_like(t) for t in self._outputs()] if gradients is None else list(gradients)

    def _outputs(self) -> list[Tensor]:
        return [t for t in _tensors(self.module(self.x)) if t.requires_grad]

    def infer(self) -> None:
        with torch.no_grad():
            self.module(self.x)

    def train(self) -> None:
        self.module.zero_grad(set_to_none=True)
        self.x.grad = None
        torch.autograd.backward(self._outputs(), self.gradients)
        if self.optimizer:
            self.optimizer.step()


def _tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _tensors(value)
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)


def count_flops(module: nn.Module, x: Tensor) -> int:
    """Multiply-adds of one forward pass, by mmengine's counter; ``FLOPS_NOTE`` says what it leaves out."""
    module.eval()
    counter = FlopAnalyzer(module, (x,))
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings('none')
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return int(counter.total())


def saved_bytes(module: nn.Module, x: Tensor) -> int:
    """Bytes that autograd keeps between forward and backward, without the module's own parameters and buffers.

    A view counts with its whole storage, since that is what stays in memory; several views of one count once.
    """
    own = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    packed: list[weakref.ref[Tensor]] = []

    def pack(tensor: Tensor) -> Tensor:
        kept = tensor.detach()  # an output that is kept itself keeps the graph that keeps it
        packed.append(weakref.ref(kept))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, _unchanged):
        output = module(x)
    # What was saved on a branch that leads nowhere is gone by now.
    storages = [tensor.untyped_storage() for ref in packed if (tensor := ref()) is not None]
    total = sum({s.data_ptr(): s.nbytes() for s in storages if s.data_ptr() not in own}.values())
    del output  # it holds the graph, and so what was saved
    return total


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def peak_bytes(step: Step) -> int | None:
    """Most memory on the GPU in a training step, beyond what was there before.

    None on the CPU; the step is made there too, so that a failing backward shows before the timing.
    """
    if step.x.device.type != 'cuda':
        step.train()
        return None
    step.module.zero_grad(set_to_none=True)
    step.x.grad = None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step.train()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before

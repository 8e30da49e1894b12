"""Implementations of an operator against each other on one map: checked first, then timed in turns."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from ..runtime.errors import UserError, one_line
from .contestants import Contestant, Operator, backend_of
from .cost import WARM_UP, Step, peak_bytes, saved_bytes
from .shapes import DTYPES, Case
from .timing import BusyGpuClock, Spread, interleaved

JOBS = ('forward', 'training')
# What rounding may do to a right result, as root mean square relative to that of the reference in float32, whose
# convolutions on a GPU may be in TF32.
TOLERANCES = {'float32': 5e-3, 'float16': 2e-2, 'bfloat16': 1e-1}
LONGEST_PROBLEM = 200  # characters; compilers say more


@dataclass
class Measured:
    """One contestant on one map; None and absent where it was not measured.

    Args:
        contestant: Whom it is about.
        times: By job.
        gpu_times: By job: the kernels alone, without the wait for their launches.
        kept_maps: Kept for backward, in maps of the input's size.
        peak_bytes: Most memory on the GPU in forward and backward, beyond what was there before.
        difference: From the reference, see :func:`difference`; None if it is not comparable.
        problem: Why it was not timed; empty if it was.
    """

    contestant: Contestant
    times: dict[str, Spread] = field(default_factory=dict)
    gpu_times: dict[str, Spread] = field(default_factory=dict)
    kept_maps: float | None = None
    peak_bytes: int | None = None
    difference: float | None = None
    problem: str = ''


def steps(contestants: Sequence[Contestant], rounds: int, device: torch.device, jobs: Sequence[str] = JOBS) -> int:
    """How often :func:`measure` tells that it got on."""
    return len(contestants) + len(jobs) * (WARM_UP + rounds) * (2 if device.type == 'cuda' else 1)


def like_inputs(case: Case, device: torch.device) -> Tensor:
    """A map of that form without values."""
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    x = torch.empty(case.shape, dtype=DTYPES[case.dtype], device=device, memory_format=layout)
    return x.requires_grad_()


def inputs(case: Case, device: torch.device) -> tuple[Tensor, Tensor]:
    """The map, which needs a gradient, and the gradient that comes in; always the same."""
    generator = torch.Generator(device).manual_seed(0)
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    x, gradient = (
        torch.randn(case.shape, generator=generator, device=device)
        .to(DTYPES[case.dtype])
        .contiguous(memory_format=layout)
        for _ in range(2)
    )
    return x.requires_grad_(), gradient


def measure(
    operator: Operator,
    case: Case,
    contestants: Sequence[Contestant],
    device: torch.device,
    rounds: int,
    on_step: Callable[[str], None],
    jobs: Sequence[str] = JOBS,
) -> list[Measured]:
    """Each contestant on the same map; one that fails or computes something else has its reason in ``problem``.

    Args:
        operator: What they compute.
        case: On what.
        contestants: Who; ``copy`` is a copy of the map (and in training, of the gradient).
        device: Where.
        rounds: Of timing.
        on_step: Told what was done, ``steps(...)`` times.
        jobs: What is timed.

    Raises:
        UserError: if the reference itself fails.
    """
    x, gradient = inputs(case, device)
    if any(c.compiled for c in contestants):
        torch._dynamo.reset()  # it compiles one function for a few shapes only
    found, ready = [], {}
    state, truth = _truth(operator, x, gradient)
    for contestant in contestants:
        measured = Measured(contestant)
        found.append(measured)
        try:
            if contestant.kind == 'copy':
                ready[contestant.name] = Copies(x, gradient)
                measured.kept_maps = 0.0
            else:
                step = _examine(measured, case, state, truth, x, gradient, jobs)
                if not measured.problem:
                    ready[contestant.name] = step
        except Exception as error:  # whatever an implementation raises on this map is a result
            measured.problem = one_line(error)[:LONGEST_PROBLEM]
        x.grad = None
        on_step(contestant.name)
    del truth
    for job in jobs:
        for step in ready.values():
            step.module.train(job == 'training')
        todo = {name: step.train if job == 'training' else step.infer for name, step in ready.items()}
        for attribute, clock in (('times', None), ('gpu_times', BusyGpuClock()))[: 2 if x.is_cuda else 1]:
            times = interleaved(todo, rounds, WARM_UP, device, partial(on_step, job), clock)
            for measured in found:
                if measured.contestant.name in times:
                    getattr(measured, attribute)[job] = times[measured.contestant.name]
    return found


class Copies:
    """The two jobs of a plain copy."""

    def __init__(self, x: Tensor, gradient: Tensor) -> None:
        self.module = nn.Identity()
        self.x, self.gradient = x.detach(), gradient
        self.y, self.dx = torch.empty_like(self.x), torch.empty_like(gradient)

    def infer(self) -> None:
        self.y.copy_(self.x)

    def train(self) -> None:
        self.y.copy_(self.x)
        self.dx.copy_(self.gradient)


def _truth(operator: Operator, x: Tensor, gradient: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters for all, and what they and the map give in float32."""
    torch.manual_seed(0)
    module = operator.build(x.shape[1], 'reference')
    with torch.no_grad():
        for p in module.parameters():  # at its start a norm would hide that its weight or bias is not used
            p.add_(0.1 * torch.randn_like(p))
    module.to(x.device, x.dtype)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    try:
        return state, _results(module.float(), module, x.detach().float().requires_grad_(), gradient.float(), JOBS)
    except Exception as error:
        raise UserError(f'{operator.label} on {tuple(x.shape)}: {one_line(error)}') from error


def _examine(
    measured: Measured,
    case: Case,
    state: dict[str, Tensor],
    truth: dict[str, Tensor],
    x: Tensor,
    gradient: Tensor,
    jobs: Sequence[str],
) -> Step:
    """Fill in all but the times; the module has then been run in the modes of its jobs."""
    contestant = measured.contestant
    torch.manual_seed(0)
    plain = contestant.build(x.shape[1]).to(x.device, x.dtype)
    comparable = contestant.same_arithmetic and _takes(plain, state)
    module = torch.compile(plain, dynamic=False) if contestant.compiled else plain
    if comparable:
        measured.difference = difference(_results(module, plain, x, gradient, jobs), truth)
        if measured.difference > TOLERANCES[case.dtype]:
            measured.problem = f'wrong: it differs from the reference by {measured.difference:.2g} of its size'
            return Step(module, x, [gradient])
        if contestant.backend and (used := backend_of(plain, x)) != contestant.backend:
            measured.problem = f'failed, so that {used} ran in its place; the log says why'
    step = Step(module, x, [gradient])
    if 'forward' in jobs:  # else torch.compile is spared half of its work
        module.eval()
        step.infer()
        module.train()
    measured.kept_maps = saved_bytes(module, x) / case.bytes
    measured.peak_bytes = peak_bytes(step)
    return step


def _takes(module: nn.Module, state: dict[str, Tensor]) -> bool:
    """Load the parameters, if these are the names and shapes that the module has."""
    there = module.state_dict()
    if {name: value.shape for name, value in there.items()} != {name: value.shape for name, value in state.items()}:
        return False
    module.load_state_dict(state)
    return True


def _results(
    module: nn.Module, plain: nn.Module, x: Tensor, gradient: Tensor, jobs: Sequence[str]
) -> dict[str, Tensor]:
    """Output in training, gradient of x, those of all parameters as one, and the output in inference if it is a job."""
    results = {}
    if 'forward' in jobs:
        module.eval()
        with torch.no_grad():
            results['inferred'] = module(x)
    module.train()
    parameters = dict(sorted(plain.named_parameters()))
    y = module(x)
    dx, *rest = torch.autograd.grad(y, [x, *parameters.values()], gradient)
    return dict(results, y=y.detach(), dx=dx, parameters=torch.cat([t.flatten() for t in rest]))


def difference(found: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> float:
    """The largest root mean square of a difference, relative to that of the truth; infinite if not a number."""
    largest = 0.0
    for name, a in found.items():
        b = truth[name]
        if a.shape != b.shape:
            return math.inf
        relative = ((a.float() - b).norm() / b.norm().clamp_min(torch.finfo(torch.float32).tiny)).item()
        largest = max(largest, relative if math.isfinite(relative) else math.inf)
    return largest

"""Times of several jobs, taken in turns, so that what disturbs the machine disturbs all of them alike."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

Job = Callable[[], object]
Clock = Callable[[Job], float]  # runs the job and returns seconds


@dataclass(frozen=True)
class Spread:
    """Median and quartiles, in seconds."""

    median: float
    q25: float
    q75: float


def interleaved(
    jobs: Mapping[str, Job],
    rounds: int,
    warm_up: int,
    device: torch.device,
    on_round: Callable[[], None],
    clock: Clock | None = None,
) -> dict[str, Spread]:
    """Run every job once a round, in an order that is drawn anew for each round.

    Args:
        jobs: By name.
        rounds: Rounds that count, at least 1.
        warm_up: Rounds before these.
        device: Where they run: on a GPU its own clock is read, from an idle GPU on, so that a job of short kernels
            takes as long as the host needs to launch them.
        on_round: Called after each round.
        clock: Another one, such as :class:`BusyGpuClock`.
    """
    clock = clock or (_time_on_gpu if device.type == 'cuda' else _time_on_cpu)
    order = list(jobs)
    shuffle = random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for i in range(warm_up + rounds):
        shuffle(order)  # none always follows the same one, whose data are in the caches
        for name in order:
            taken = clock(jobs[name])
            if i >= warm_up:
                seconds[name].append(taken)
        on_round()
    return {name: spread(values) for name, values in seconds.items()}


def spread(seconds: list[float]) -> Spread:
    q25, median, q75 = np.percentile(seconds, (25, 50, 75))
    return Spread(float(median), float(q25), float(q75))


def _time_on_cpu(job: Job) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def _time_on_gpu(job: Job) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    job()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


class BusyGpuClock:
    """Time of the kernels alone, as in a network whose launches are ahead of the GPU.

    The GPU waits until the host has launched the whole job; how long that must be is found by trying.
    """

    def __init__(self, cycles: int = 2**21, most: int = 2**27) -> None:
        self.cycles, self.most = cycles, most  # about 1 ms and 70 ms

    def __call__(self, job: Job) -> float:
        while True:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            torch.cuda._sleep(self.cycles)
            start.record()
            job()
            end.record()
            waited = not start.query()
            torch.cuda.synchronize()
            if waited or self.cycles >= self.most:  # a job that waits for the GPU itself cannot be ahead of it
                return start.elapsed_time(end) / 1000
            self.cycles *= 2

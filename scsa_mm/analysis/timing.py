"""Times of several jobs, taken in turns, so that what disturbs the machine disturbs all of them alike."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

Job = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles, in seconds."""

    median: float
    q25: float
    q75: float


def interleaved(
    jobs: Mapping[str, Job], rounds: int, warm_up: int, device: torch.device, on_round: Callable[[], None]
) -> dict[str, Spread]:
    """Run every job once a round, in an order that is drawn anew for each round.

    Args:
        jobs: By name.
        rounds: Rounds that count, at least 1.
        warm_up: Rounds before these.
        device: Where they run: on a GPU its own clock is read, which does not count a wait of the host.
        on_round: Called after each round.
    """
    clock = _time_on_gpu if device.type == 'cuda' else _time_on_cpu
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

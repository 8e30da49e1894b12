"""Who runs when; the clock itself is not tested."""

import torch

from scsa_mm.analysis.timing import BusyGpuClock, interleaved, spread


def test_every_job_once_a_round_in_changing_order():
    ran = []
    rounds = []
    jobs = {name: (lambda name=name: ran.append(name)) for name in 'abcd'}
    times = interleaved(jobs, 5, 2, torch.device('cpu'), lambda: rounds.append(len(ran)))
    assert rounds == [4, 8, 12, 16, 20, 24, 28]
    turns = [ran[i : i + 4] for i in range(0, 28, 4)]
    assert all(sorted(turn) == list('abcd') for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 3
    assert list(times) == list('abcd')


def test_spread():
    found = spread([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (found.q25, found.median, found.q75) == (2.0, 3.0, 4.0)


def test_warm_up_does_not_count(monkeypatch):
    clock = iter([900.0, 900.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr('scsa_mm.analysis.timing._time_on_cpu', lambda job: next(clock))
    times = interleaved({'a': str}, 3, 2, torch.device('cpu'), lambda: None)
    assert (times['a'].median, times['a'].q75) == (2.0, 2.5)


def test_the_gpu_waits_for_its_launches(monkeypatch):
    """Without a GPU: the first two jobs take the host longer than the GPU was kept waiting."""
    slept, late = [], iter([True, True, False])

    class Event:
        def __init__(self, enable_timing):
            self.record = lambda: None
            self.query = lambda: next(late)

        def elapsed_time(self, end):
            return 7.0

    for name, fake in (('Event', Event), ('synchronize', lambda: None), ('_sleep', slept.append)):
        monkeypatch.setattr(torch.cuda, name, fake)
    clock = BusyGpuClock(cycles=8, most=1024)
    assert clock(lambda: None) == 0.007
    assert slept == [8, 16, 32]
    late = iter([False])
    clock(lambda: None)
    assert slept[3:] == [32]


def test_a_clock_of_ones_own():
    times = interleaved({'a': str}, 3, 0, torch.device('cpu'), lambda: None, clock=lambda job: 2.0)
    assert times['a'].median == 2.0

"""Who runs when; the clock itself is not tested."""

import torch

from scsa_mm.analysis.timing import interleaved, spread


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

"""GPUs that are asked for and not there, and the end of several processes."""

import os

import mmengine.runner  # noqa: F401  (as in the tools: torch.distributed.nn, if first imported later, keeps the group)
import pytest
import torch
import torch.distributed as dist

from scsa_mm.runtime import launch
from scsa_mm.runtime.devices import check_gpus, process_group_ended
from scsa_mm.runtime.errors import UserError
from scsa_mm.runtime.launch import torchrun_arguments


@pytest.fixture
def machine(monkeypatch):
    def pretend(gpus, visible=None):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
        monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
        if visible is not None:
            monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)

    return pretend


def test_more_gpus_than_there_are(machine):
    machine(2)
    check_gpus(2)
    with pytest.raises(UserError, match='^8 GPUs asked for, 2 there; ask for at most 2$'):
        check_gpus(8)


def test_without_a_gpu_processes_run_on_the_cpu(machine):
    machine(0)
    check_gpus(4)
    for value in ('', '-1'):
        machine(0, visible=value)
        check_gpus(1)


def test_a_gpu_named_where_there_is_none(machine):
    machine(0, visible='3')
    with pytest.raises(UserError, match='CUDA_VISIBLE_DEVICES=3 asks for a GPU .* finds none'):
        check_gpus(1)


def test_one_machine_looks_for_a_free_port():
    assert torchrun_arguments(2, ['t.py', 'c.py'], {}) == [
        '--nproc-per-node=2', '--nnodes=1', '--standalone', 't.py', 'c.py',
    ]  # fmt: skip


def test_the_variables_that_people_know():
    env = dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1', PORT='29501')
    assert torchrun_arguments(8, ['t.py'], env) == [
        '--nproc-per-node=8', '--nnodes=2', '--node-rank=1', '--master-addr=10.0.0.1', '--master-port=29501', 't.py',
    ]  # fmt: skip


@pytest.mark.parametrize('argv', [['two', 't.py'], ['0', 't.py'], []])
def test_a_wrong_count_is_one_line(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        launch.main(argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith('error: GPUS must be a positive number')


def test_a_process_that_fails_ends_the_launch_with_its_status(tmp_path, capfd):
    (tmp_path / 'fails.py').write_text("import sys; sys.exit('error: no')")
    with pytest.raises(SystemExit) as caught:
        launch.main(['1', str(tmp_path / 'fails.py')])
    assert caught.value.code == 1
    err = capfd.readouterr().err
    assert 'error: no' in err and 'Traceback' not in err


@pytest.fixture
def train(tmp_path):
    """A tool's main, whose runner takes part in a process group and in a reference cycle."""

    @process_group_ended()
    def main(error=None):
        dist.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
        runner = [torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))]
        runner.append(runner)
        if error:
            raise error

    yield main
    if dist.is_initialized():
        dist.destroy_process_group()


def threads():
    return set(os.listdir('/proc/self/task'))


@pytest.fixture
def waited(monkeypatch):
    """The calls of barrier."""
    calls = []
    monkeypatch.setattr(dist, 'barrier', lambda: calls.append('barrier'))
    return calls


def test_the_threads_of_a_process_group_end_with_it(train, waited):
    before = threads()
    train()
    assert not dist.is_initialized() and waited == ['barrier']
    assert threads() <= before


def test_a_process_that_fails_waits_for_no_other(train, waited):
    with pytest.raises(ValueError, match='^no$'):
        train(ValueError('no'))
    assert dist.is_initialized() and not waited

"""The SLURM scripts, with an srun that prints what it was asked to do."""

import os

import pytest


@pytest.fixture
def srun(tool, environment, tmp_path, monkeypatch):
    (tmp_path / 'srun').write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / 'srun').chmod(0o755)
    monkeypatch.setitem(environment, 'PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
    return lambda *args: tool(*args).stdout.splitlines()


def test_train(srun, monkeypatch, environment):
    monkeypatch.setitem(environment, 'GPUS', '16')
    asked = srun('slurm_train.sh', 'gpu', 'job', 'c.py', 'w', '--amp')
    assert asked[:5] == ['--partition=gpu', '--job-name=job', '--gres=gpu:8', '--ntasks=16', '--ntasks-per-node=8']
    assert asked[-7:] == ['tools/train.py', 'c.py', '--work-dir', 'w', '--amp', '--launcher', 'slurm']


def test_test_on_fewer_gpus_than_a_node_has(srun, monkeypatch, environment):
    monkeypatch.setitem(environment, 'GPUS', '2')
    monkeypatch.setitem(environment, 'SRUN_ARGS', '--qos=high --time=1:00')
    asked = srun('slurm_test.sh', 'gpu', 'job', 'c.py', 'e.pth', '--out', 'o.pkl')
    assert asked[2:5] == ['--gres=gpu:2', '--ntasks=2', '--ntasks-per-node=2']
    assert {'--qos=high', '--time=1:00'} <= set(asked)
    assert asked[-7:] == ['tools/test.py', 'c.py', 'e.pth', '--out', 'o.pkl', '--launcher', 'slurm']

"""Shared by the tests of the set-up: a machine with nothing on it, and a session that runs nothing."""

import os
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / 'tools'))  # tools/ is no package: its scripts import from beside themselves

import setup_env  # noqa: E402
from environment import machine  # noqa: E402
from environment.console import Session  # noqa: E402


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch, tmp_path):
    """No GPU, no CUDA, no compiler and no cache but those that a test makes."""
    for name in ('FORCE_CUDA', 'TORCH_CUDA_ARCH_LIST', 'CUDA_HOME', 'CUDA_PATH', 'CXX', 'MAX_JOBS', 'CPATH'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    monkeypatch.setattr(machine, 'USUAL_TOOLKIT', str(tmp_path / 'no-toolkit'))


@pytest.fixture
def session(tmp_path):
    return Session(tmp_path / 'setup.log')


class FakeSession(Session):
    """Runs nothing: ``act(command, env, cwd)`` stands for it and returns the exit status."""

    def __init__(self, log, act):
        super().__init__(log)
        self.act, self.commands = act, []

    def run(self, command, env=None, watch=None, cwd=None):
        self.commands.append([str(part) for part in command])
        return self.act(self.commands[-1], env, cwd) or 0, []


@pytest.fixture
def fake_session(tmp_path):
    return lambda act: FakeSession(tmp_path / 'fake.log', act)


@pytest.fixture
def env(tmp_path):
    """A virtual environment with nothing in it."""
    site = tmp_path / 'venv' / 'site'
    site.mkdir(parents=True)
    (tmp_path / 'venv' / '.setup').mkdir()
    return setup_env.Env(tmp_path / 'venv', (3, 11), site, tmp_path / 'include')


@pytest.fixture
def script():
    """Writes a program for the shell."""

    def write(path, *lines):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('\n'.join(['#!/bin/sh', *lines, '']))
        path.chmod(0o755)

    return write


@pytest.fixture
def write_wheel():
    """Writes an archive, by default one with ops."""

    def write(path, *names):
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            for name in names or ('mmcv/__init__.py', 'mmcv/_ext.cpython-311-x86_64-linux-gnu.so'):
                archive.writestr(name, os.urandom(5000))
        return path

    return write

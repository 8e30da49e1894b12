"""The set-up without network and without installing: what it decides, what it survives, what it says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import setup_env
from environment.console import SetupError
from environment.machine import Target

ROOT = Path(__file__).parents[3]


def dist_info(site, name, *files):
    folder = site / f'{name}.dist-info'
    folder.mkdir()
    for file in ('METADATA', *files):
        (folder / file).write_text('')


# --- pins


@pytest.mark.parametrize('version', [(3, 10), (3, 11), (3, 12)])
def test_everything_asked_for_is_pinned(version):
    pins = setup_env.read_pins(version)
    asked = [*setup_env.TOOLS, *setup_env.TORCH, *setup_env.PACKAGES, 'mmengine', 'mmcv']
    assert [name for name in asked if setup_env.canonical(name) not in pins] == []
    assert (pins['torch'], pins['mmcv'], pins['mmdet']) == ('2.11.0', '2.1.0', '3.3.0')


def test_pins_follow_the_python_version(tmp_path):
    path = tmp_path / 'constraints.txt'
    path.write_text('# why\nA_b==1  # note\nc==2; python_version >= "3.11"\nc==1.9; python_version < "3.11"\n')
    assert setup_env.read_pins((3, 11), path) == {'a-b': '1', 'c': '2'}
    assert setup_env.read_pins((3, 10), path) == {'a-b': '1', 'c': '1.9'}


@pytest.mark.parametrize('line', ['numpy>=2', 'mmcv @ file:///somewhere/mmcv.whl', '--extra-index-url there', 'x'])
def test_a_line_that_is_no_pin_is_named(tmp_path, line):
    path = tmp_path / 'constraints.txt'
    path.write_text(f'a==1\n{line}\n')
    with pytest.raises(SetupError, match='not a pin') as error:
        setup_env.read_pins((3, 11), path)
    assert line in str(error.value)


def test_pre_commit_and_make_lint_run_the_same_ruff():
    text = (ROOT / '.pre-commit-config.yaml').read_text()
    assert text.count('ruff==') == text.count(f'ruff=={setup_env.read_pins((3, 11))["ruff"]}') == 2


# --- what is there


def test_half_installed_distributions_are_not_there_and_go(env):
    dist_info(env.site, 'whole_one-1.0', 'RECORD', 'INSTALLER')
    dist_info(env.site, 'torch-2.11.0+cu130', 'RECORD', 'INSTALLER')
    dist_info(env.site, 'unpacked-1.0', 'RECORD')
    dist_info(env.site, 'started-1.0')
    (env.site / '~mpy').mkdir()
    assert setup_env.installed(env.site) == {'whole-one': '1.0', 'torch': '2.11.0'}
    setup_env.scrub(env.site)
    assert sorted(path.name for path in env.site.iterdir()) == [
        'torch-2.11.0+cu130.dist-info',
        'whole_one-1.0.dist-info',
    ]


def test_a_step_is_done_with_its_marker_and_its_distributions(env):
    step = setup_env.Step('torch', 'torch', 'what was asked', {'torch': '2.11.0'})
    assert not step.is_done(env, {'torch': '2.11.0'}), 'no marker: pip did not come to its end'
    env.marker('torch').write_text('what was asked')
    assert step.is_done(env, {'torch': '2.11.0', 'numpy': '2'})
    assert not step.is_done(env, {'numpy': '2'}), 'removed since'
    assert not step.is_done(env, {'torch': '2.10.0'}), 'replaced since'
    assert not step._replace(asked='something else').is_done(env, {'torch': '2.11.0'})


def test_only_a_change_that_matters_makes_a_step_run_again():
    def asked(pins, target):
        return {step.name: step.asked for step in setup_env.plan(pins, (3, 11), target)}

    pins = setup_env.read_pins((3, 11))
    before = asked(pins, Target())
    for_gpu = asked(pins, Target('cu130-sm90'))
    newer = asked({**pins, 'six': '9'}, Target())
    assert [name for name in before if for_gpu[name] != before[name]] == ['mmcv']
    assert [name for name in before if newer[name] != before[name]] == ['tools', 'torch', 'packages']


def test_cuda_version_is_read_without_importing_torch(env):
    assert setup_env.torch_cuda(env.site) is None
    (env.site / 'torch').mkdir()
    for line, cuda in (("cuda: Optional[str] = '13.0'", '13.0'), ('cuda: Optional[str] = None', None)):
        (env.site / 'torch' / 'version.py').write_text(f"__version__ = '2.11.0'\n{line}\nhip: Optional[str] = None\n")
        assert setup_env.torch_cuda(env.site) == cuda


# --- the virtual environment


def test_a_half_made_environment_is_made_anew(env, monkeypatch, fake_session):
    def create(command, variables, cwd):
        assert not (env.path / 'lib').exists()
        (env.path / 'bin').mkdir()

    (env.path / '.setup' / 'venv.started').touch()
    env.marker('torch').touch()
    (env.path / 'lib').mkdir()
    (env.path / 'setup.log').touch()
    monkeypatch.setattr(setup_env, 'probe', lambda venv: env)
    session = fake_session(create)
    assert setup_env.make_venv(env.path, session) == env
    assert session.commands[0][1:] == ['-m', 'venv', str(env.path)]
    assert sorted(path.name for path in env.path.iterdir()) == ['.setup', 'bin', 'setup.log']
    assert list((env.path / '.setup').iterdir()) == [], 'no marker of what is gone, and none of being unfinished'


def test_a_working_environment_is_left_alone(env, monkeypatch, fake_session):
    monkeypatch.setattr(setup_env, 'probe', lambda venv: env)
    session = fake_session(lambda *_: pytest.fail('nothing to run'))
    assert setup_env.make_venv(env.path, session) == env
    assert env.site.is_dir()


def run_tool(*arguments, **variables):
    command = [sys.executable, ROOT / 'tools' / 'setup_env.py', *arguments]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)


def test_without_a_compiler_one_line_says_so_before_anything_is_made(tmp_path):
    done = run_tool('--venv', tmp_path / 'new', PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.strip().startswith('set-up failed: no C++ compiler found')
    assert done.stderr.strip().count('\n') == 0
    assert not (tmp_path / 'new').exists()


def test_a_folder_that_is_something_else_is_not_touched(tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos' / 'one.jpg').touch()
    done = run_tool('--venv', tmp_path / 'photos')
    assert done.returncode == 1
    assert 'is no virtual environment that works' in done.stderr
    assert 'Traceback' not in done.stderr
    assert [path.name for path in (tmp_path / 'photos').iterdir()] == ['one.jpg']


def test_an_old_python_is_refused(env):
    with pytest.raises(SetupError, match=r'Python 3\.9 is too old: 3\.10'):
        setup_env.check_before(env.path, env._replace(version=(3, 9)), set())

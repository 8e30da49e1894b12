"""The wheel of mmcv: its key, its cache, and a build that survives being killed."""

import os
from pathlib import Path

import pytest
from environment import mmcv_wheel
from environment.console import SetupError
from environment.machine import Target

KEY = 'cp311-x86_64-torch2.11.0-cpu-mmcv2.1.0'


def test_every_part_of_the_key_tells_wheels_apart():
    base = ((3, 11), '2.11.0', 'cpu', '2.1.0')
    others = [((3, 12), *base[1:]), (*base[:1], '2.12.0', *base[2:]), (*base[:2], 'cu130-sm90', '2.1.0')]
    keys = {mmcv_wheel.wheel_key(*parts) for parts in [base, *others, (*base[:3], '2.2.0')]}
    assert len(keys) == 5
    assert mmcv_wheel.wheel_key(*base) == f'cp311-{os.uname().machine}-torch2.11.0-cpu-mmcv2.1.0'


def test_a_sound_wheel_is_taken_from_the_cache(write_wheel):
    wheel = write_wheel(mmcv_wheel.cache_root() / 'wheels' / KEY / 'mmcv-2.1.0.whl')
    assert mmcv_wheel.cached_wheel(KEY) == wheel
    assert mmcv_wheel.cached_wheel(KEY.replace('cp311', 'cp312')) is None


def cut(path, write):
    path.write_bytes(path.read_bytes()[:4000])


def flip(path, write):
    content = bytearray(path.read_bytes())
    content[2000] ^= 255
    path.write_bytes(content)


def leave_out_ops(path, write):
    write(path, 'mmcv/__init__.py', 'mmcv/_ext.py')


@pytest.mark.parametrize('harm', [cut, flip, leave_out_ops])
def test_a_broken_wheel_is_dropped_from_the_cache(harm, write_wheel):
    wheel = write_wheel(mmcv_wheel.cache_root() / 'wheels' / KEY / 'mmcv-2.1.0.whl')
    harm(wheel, write_wheel)
    assert mmcv_wheel.cached_wheel(KEY) is None
    assert not wheel.exists()


@pytest.fixture
def job(env, tmp_path, script):
    script(tmp_path / 'bin' / 'c++', 'echo "Free Software Foundation"')
    env.include.mkdir()
    (env.include / 'Python.h').touch()
    (env.site / 'torch').mkdir()
    (env.site / 'torch' / 'version.py').touch()
    (mmcv_wheel.cache_root() / 'build' / KEY / 'mmcv-2.1.0').mkdir(parents=True)
    return mmcv_wheel.Job('2.1.0', KEY, Target(), 'python', env.site, env.include, {'PATH': 'p'}, None)


def test_a_build_goes_on_from_its_objects_alone(job, fake_session, write_wheel):
    source = mmcv_wheel.cache_root() / 'build' / KEY / 'mmcv-2.1.0'
    for name in ('build/lib.linux/mmcv/_ext.so', 'build/temp.linux/nms.o', 'dist/mmcv-2.1.0-half.whl'):
        (source / name).parent.mkdir(parents=True)
        (source / name).touch()
    seen = {}

    def act(command, variables, cwd):
        if '-o' in command:
            Path(command[command.index('-o') + 1]).touch()
        elif 'setup.py' in command:
            seen.update(variables, files=sorted(path.name for path in source.rglob('*') if path.is_file()))
            write_wheel(cwd / 'dist' / 'mmcv-2.1.0.whl')

    wheel = mmcv_wheel.obtain(job, fake_session(act))
    assert seen['files'] == ['nms.o'], 'a file that was half linked or copied would be taken for a new one'
    assert seen['CFLAGS'].startswith('-O2 ')
    assert seen['CFLAGS'].endswith('pch/p.hpp')
    assert (seen['MMCV_WITH_OPS'], seen['FORCE_CUDA'], seen['CUDA_VISIBLE_DEVICES']) == ('1', '0', '')
    assert wheel == mmcv_wheel.cached_wheel(KEY)
    assert not source.parent.exists(), 'nothing is left to resume'


@pytest.mark.parametrize('code', [0, 1])
def test_a_failed_build_leaves_no_wheel_but_its_objects(job, fake_session, code):
    def act(command, variables, cwd):
        return code if 'setup.py' in command else 1

    with pytest.raises(SetupError, match='mmcv does not compile: no output; full log: '):
        mmcv_wheel.obtain(job, fake_session(act))
    assert mmcv_wheel.cached_wheel(KEY) is None
    assert (mmcv_wheel.cache_root() / 'build' / KEY / 'mmcv-2.1.0').is_dir()


def test_the_precompiled_header_is_made_again_for_another_torch(job, tmp_path, fake_session):
    folder = tmp_path / 'build'
    session = fake_session(lambda command, *_: Path(command[-1]).touch())

    def made():
        before = len(session.commands)
        assert mmcv_wheel._precompile(job, 'c++', folder, session) == folder / 'pch' / 'p.hpp'
        return len(session.commands) - before

    assert [made(), made()] == [1, 0]
    os.utime(job.site / 'torch' / 'version.py', (1, 1))
    assert [made(), made()] == [1, 0]
    (folder / 'pch' / 'p.hpp.gch').unlink()
    assert made() == 1


def test_without_gcc_nothing_is_precompiled(job, tmp_path, script, fake_session):
    script(tmp_path / 'bin' / 'c++', 'echo "clang version 19"')
    session = fake_session(lambda *_: pytest.fail('nothing to run'))
    assert mmcv_wheel._precompile(job, 'c++', tmp_path, session) is None


def test_library_headers_come_from_the_wheels_of_torch_if_the_toolkit_has_none(job, tmp_path):
    toolkit, header = tmp_path / 'cuda', job.site / 'nvidia' / 'cu13' / 'include' / 'cusparse.h'
    header.parent.mkdir(parents=True)
    header.touch()
    job = job._replace(target=Target('cu130-sm90', '9.0', toolkit), env={'CPATH': '/mine'})
    variables = mmcv_wheel._variables(job)
    assert variables['CPATH'] == f'{header.parent}:/mine'
    assert (variables['FORCE_CUDA'], variables['CUDA_HOME']) == ('1', str(toolkit))
    assert variables['TORCH_CUDA_ARCH_LIST'] == '9.0'
    (toolkit / 'include').mkdir(parents=True)
    (toolkit / 'include' / 'cusparse.h').touch()
    assert 'CPATH' not in mmcv_wheel._variables(job)

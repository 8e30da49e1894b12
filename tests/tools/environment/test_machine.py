"""What the set-up finds on a machine, and what it says is missing."""

import pytest
from environment import machine
from environment.console import SetupError
from environment.machine import GIB, Target


def test_python_headers_are_asked_for(tmp_path, script):
    script(tmp_path / 'bin' / 'g++')
    with pytest.raises(SetupError, match=r'headers of Python are missing .*python3-dev'):
        machine.check_compiler(tmp_path)
    (tmp_path / 'Python.h').touch()
    assert machine.check_compiler(tmp_path) == 'g++'


def test_a_compiler_named_by_cxx_is_the_only_candidate(tmp_path, monkeypatch, script):
    script(tmp_path / 'bin' / 'c++')
    monkeypatch.setenv('CXX', 'ccache my-c++')
    assert machine.find_compiler() is None
    script(tmp_path / 'bin' / 'ccache')
    assert machine.find_compiler() == 'ccache my-c++'


def test_what_goes_to_one_disk_is_added_up(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.shutil, 'disk_usage', lambda path: type('', (), {'free': 7 * GIB}))
    needs = [('the environment', tmp_path / 'a' / 'venv', 6 * GIB), ('building mmcv', tmp_path / 'b', 3 * GIB // 2)]
    with pytest.raises(SetupError, match=r'7\.5 GB needed at .*environment 6\.0 GB.*mmcv 1\.5 GB.*7\.0 GB free'):
        machine.check_disk(needs)
    machine.check_disk(needs[:1])


@pytest.mark.parametrize(
    'lines, capabilities',
    [
        (('printf "9.0\\n8.6\\n9.0\\n"',), ['8.6', '9.0']),
        (('echo "No devices were found"', 'exit 6'), []),
        (('echo \'Field "compute_cap" is not a valid field to query.\'', 'exit 2'), []),
    ],
)
def test_gpus_are_read_from_nvidia_smi(tmp_path, script, lines, capabilities):
    assert machine.gpu_capabilities() == []
    script(tmp_path / 'bin' / 'nvidia-smi', *lines)
    assert machine.gpu_capabilities() == capabilities


def no_wheel(tag):
    return False


@pytest.fixture
def make_toolkit(script):
    def make(folder, release):
        script(folder / 'bin' / 'nvcc', f'echo "Cuda compilation tools, release {release}, V{release}.1"')
        (folder / 'include').mkdir()
        (folder / 'include' / 'cuda_runtime.h').touch()

    return make


def test_a_gpu_and_a_toolkit_make_cuda_ops(tmp_path, monkeypatch, script, make_toolkit):
    assert machine.choose_target('13.0', no_wheel) == Target('cpu')
    script(tmp_path / 'bin' / 'nvidia-smi', 'echo 9.0')
    make_toolkit(tmp_path / 'cuda', '13.1')
    monkeypatch.setenv('CUDA_HOME', str(tmp_path / 'cuda'))
    assert machine.choose_target('13.0', no_wheel) == Target('cu130-sm90', '9.0', tmp_path / 'cuda')
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', '7.5 8.0 9.0+PTX')
    assert machine.choose_target('13.0', no_wheel).arch == '9.0', 'the GPU at hand, not all that an image names'
    monkeypatch.setenv('FORCE_CUDA', '0')
    assert machine.choose_target('13.0', no_wheel) == Target('cpu')


def test_forced_cuda_takes_the_named_architectures(tmp_path, monkeypatch, make_toolkit):
    monkeypatch.setenv('FORCE_CUDA', '1')
    with pytest.raises(SetupError, match='set TORCH_CUDA_ARCH_LIST'):
        machine.choose_target('13.0', no_wheel)
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', '8.0;9.0+PTX')
    with pytest.raises(SetupError, match=r'FORCE_CUDA=1, but the CUDA toolkit 13\.x is missing \(no nvcc'):
        machine.choose_target('13.0', no_wheel)
    make_toolkit(tmp_path / 'cuda', '13.0')
    monkeypatch.setenv('PATH', str(tmp_path / 'cuda' / 'bin'))
    assert machine.choose_target('13.0', no_wheel) == Target('cu130-sm80-sm90ptx', '8.0;9.0+PTX', tmp_path / 'cuda')


def test_a_gpu_without_the_means_gets_cpu_ops_and_one_line(tmp_path, monkeypatch, script, make_toolkit):
    script(tmp_path / 'bin' / 'nvidia-smi', 'echo 9.0')
    make_toolkit(tmp_path / 'cuda', '12.4')
    monkeypatch.setenv('CUDA_HOME', str(tmp_path / 'cuda'))
    target = machine.choose_target('13.0', no_wheel)
    assert (target.tag, target.cuda_home) == ('cpu', None)
    assert f'the CUDA toolkit 13.x is missing ({tmp_path / "cuda"} is release 12.4)' in target.note
    assert 'make setup' in target.note
    assert '\n' not in target.note
    assert 'build without CUDA' in machine.choose_target(None, no_wheel).note
    cached = machine.choose_target('13.0', lambda tag: tag == 'cu130-sm90')
    assert (cached.tag, cached.note) == ('cu130-sm90', ''), 'a wheel in the cache needs no toolkit'


def test_a_wrapper_of_nvcc_is_no_toolkit(tmp_path, script):
    script(tmp_path / 'bin' / 'nvcc', 'echo "release 13.0, V13.0.1"')
    assert machine.find_toolkit('13.0')[0] is None


def test_jobs_keep_to_the_memory(monkeypatch):
    monkeypatch.setattr(machine.os, 'sched_getaffinity', lambda _: range(64), raising=False)
    for kib, jobs in ((9 * 2**20, 4), (2**20, 1)):
        monkeypatch.setattr(machine.Path, 'read_text', lambda path, kib=kib: f'MemFree: 1 kB\nMemAvailable: {kib} kB\n')
        assert machine.max_jobs() == jobs
    monkeypatch.setenv('MAX_JOBS', '7')
    assert machine.max_jobs() == 7

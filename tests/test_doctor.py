"""The doctor on the real environment, and on faults that are faked one at a time."""

import contextlib
import importlib.metadata
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from scsa_mm import doctor

ROOT = Path(__file__).parents[1]
LABELS = {'torch', 'torchvision', 'numpy', 'opencv', 'timm', 'setuptools', *doctor.DISTRIBUTIONS}


def run_doctor(*flags):
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.run(
        [sys.executable, *flags, '-m', 'scsa_mm.doctor'], env=env, cwd=ROOT, capture_output=True, text=True
    )


def test_all_is_well_here():
    done = run_doctor()
    wrong = [line for line in done.stdout.splitlines() if line.startswith('wrong: ')]
    # On a machine with a GPU and without nvcc, mmcv has CPU ops only; the doctor is right to complain.
    assert [line for line in wrong if 'mmcv ops on cuda' not in line] == [], done.stdout + done.stderr
    assert done.returncode == bool(wrong)
    packages = done.stdout.split('Devices and kernels')[0]
    rows = {line.split()[0]: line for line in packages.splitlines() if line.startswith('  ')}
    assert rows.keys() >= LABELS
    for name in doctor.DISTRIBUTIONS:
        distribution = doctor.owners(name)[0]
        assert importlib.metadata.version(distribution) in rows[name]
        assert f'({distribution})' in rows[name]
    assert re.search(r'mmcv ops on cpu +\S+ +ok', done.stdout)
    for scope in doctor.FRAMEWORKS:
        for name in ('SCSA', 'scsa_mm.SCSA'):
            assert re.search(rf"type='{name}' +default_scope='{scope}' +ok", done.stdout)
        assert re.search(rf"_base_ = '{scope}::\.\.\.' +ok", done.stdout)
    assert re.search(r'checkpoints of mmengine +weights_only=True +ok', done.stdout)
    assert done.stdout.isascii()
    assert ('All is well.' in done.stdout) == (not wrong)


def test_without_any_package_it_still_runs():
    done = run_doctor('-S')  # no site-packages
    assert done.returncode == 1
    assert done.stderr == ''
    for name in ('torch', 'numpy', 'mmengine'):
        assert f'wrong: {name} is not installed\n  way out: ' in done.stdout
        assert re.search(rf'^  {name} +- +not installed$', done.stdout, re.MULTILINE)


def test_only_the_doctor_may_start_without_torch():
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-S', '-c', 'import scsa_mm'], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'torch'" in done.stderr


# --- faults


@pytest.fixture
def pretend(monkeypatch):
    """``pretend(name=module or exception)``: what importing a name gives. Everything else is real."""
    real, faked = doctor.load, {}

    def set_up(modules):
        faked.update(modules)
        monkeypatch.setattr(doctor, 'load', lambda name: faked[name] if name in faked else real(name))

    return set_up


def missing(name):
    return ModuleNotFoundError(f'No module named {name!r}', name=name)


def module(name, **attributes):
    made = types.ModuleType(name)
    vars(made).update(attributes)
    return made


def find(check):
    """The problems that one check finds, and its report."""
    report = doctor.Report()
    check(report)
    return report.problems, report


def test_mmcv_without_ops(pretend):
    pretend({'mmcv': module('mmcv', __version__='2.1.0'), 'mmcv._ext': missing('mmcv._ext')})
    (problem,), report = find(doctor.check_ops)
    assert 'mmcv 2.1.0 has no compiled ops' in problem.what
    assert 'make setup' in problem.way_out
    assert '--no-build-isolation' in problem.way_out
    assert report.devices == [doctor.Row('mmcv ops', '2.1.0', 'missing')]


def test_mmcv_ops_for_another_torch(pretend):
    pretend({'mmcv._ext': ImportError('_ext.so: undefined symbol: _ZN3c10')})
    (problem,), _ = find(doctor.check_ops)
    assert 'do not fit this torch: ImportError: _ext.so: undefined symbol' in problem.what


def test_a_torch_that_is_too_new_for_mmcv(pretend, monkeypatch):
    monkeypatch.setattr(doctor, 'owners', lambda name: [name])
    pretend(
        {
            'torch': module('torch', __version__='2.15.1'),
            'mmcv': module('mmcv', __version__='2.1.0'),
            'mmcv._ext': missing('mmcv._ext'),
        }
    )
    (problem,), _ = find(doctor.check_ops)
    assert 'C++20' in problem.way_out
    assert 'torch<2.15' in problem.way_out


@pytest.mark.parametrize('outcome', [[0, 1, 2], RuntimeError('no kernel image\nis available')])
def test_ops_that_fail_on_a_device(monkeypatch, outcome):
    def nms(device):
        if device == 'cpu':
            return [0, 2]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(doctor, 'cuda_works', lambda: True)
    monkeypatch.setattr(doctor, 'run_nms', nms)
    (problem,), report = find(doctor.check_ops)
    assert problem.what.startswith('mmcv ops on cuda ')
    assert problem.way_out.startswith('with nvcc of CUDA ')
    assert str(outcome).split('\n')[0] in problem.what
    assert [row.status for row in report.devices][0] == 'ok'


def test_nms_is_really_computed():
    assert doctor.run_nms('cpu') == [0, 2]


def test_pkg_resources_that_mmengine_needs(pretend, monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setattr(doctor.inspect, 'getsource', lambda module: 'import pkg_resources')
    (problem,), _ = find(doctor.check_setuptools)
    assert 'pkg_resources' in problem.what
    assert problem.way_out == 'pip install "setuptools<81"'
    monkeypatch.setattr(doctor.inspect, 'getsource', lambda module: 'import importlib.metadata')
    assert find(doctor.check_setuptools)[0] == []


def test_two_distributions_with_one_import_name(monkeypatch):
    real = doctor.owners
    monkeypatch.setattr(doctor, 'owners', lambda name: ['mmcv', 'onedl-mmcv'] if name == 'mmcv' else real(name))
    (problem,), report = find(doctor.check_mm)
    assert problem.what.startswith('mmcv onedl-mmcv are installed at once')
    assert problem.way_out.startswith('pip uninstall mmcv onedl-mmcv')
    assert len(report.notes) == 1, 'and the two families are mixed'


def test_the_version_of_mmcv_that_mmdet_refuses(pretend):
    text = 'MMCV==2.2.0 is used but incompatible. Please install mmcv>=2.0.0rc4, <2.2.0.'
    pretend({'mmdet': AssertionError(text)})
    (problem,), _ = find(lambda report: doctor.check_package(report, 'mmdet'))
    assert text in problem.what
    assert problem.way_out.startswith('install mmcv>=2.0.0rc4, <2.2.0;')


def test_undeclared_dependencies_of_mmseg(pretend):
    pretend({'mmseg.models': missing('ftfy')})
    (problem,), report = find(lambda report: doctor.check_package(report, 'mmseg'))
    assert 'No module named' in problem.what
    assert problem.way_out == 'pip install ftfy regex'
    assert 'does not import' in report.packages[0].status


def test_a_torchvision_of_another_torch_is_named_once(pretend):
    """mmpretrain imports torchvision, so it does not import either; that is no fault of its own."""
    broken = RuntimeError('operator torchvision::nms does not exist')
    with contextlib.suppress(RuntimeError):  # gives it a traceback that leads into torchvision
        exec('raise error', {'__name__': 'torchvision.ops', 'error': broken})
    pretend({'torchvision': broken, 'mmpretrain': broken, 'torch': module('torch', __version__='2.11.0+cpu')})

    def check(report):
        doctor.check_package(report, 'torchvision')
        doctor.check_package(report, 'mmpretrain')

    (problem,), report = find(check)
    assert problem.what.startswith('torchvision')
    assert problem.way_out.endswith('torchvision 0.26')
    assert report.packages[1].status == 'does not import without torchvision'


def test_opencv_without_the_libraries_of_a_desktop(pretend):
    pretend({'cv2': ImportError('libGL.so.1: cannot open shared object file')})
    (problem,), _ = find(lambda report: doctor.check_package(report, 'cv2'))
    assert 'opencv-python-headless' in problem.way_out


@pytest.mark.parametrize('cuda, is_wrong', [('13.0', True), (None, False)])
def test_a_gpu_that_torch_cannot_use(pretend, monkeypatch, cuda, is_wrong):
    def init():
        raise RuntimeError('The NVIDIA driver on your system is too old (found version 11040).')

    torch = module('torch', get_num_threads=lambda: 2, version=module('version', cuda=cuda))
    torch.cuda = module('cuda', init=init)
    monkeypatch.setattr(doctor, 'cuda_works', lambda: False)
    monkeypatch.setattr(doctor, 'gpu_seen_by_driver', lambda: 'NVIDIA H200')
    pretend({'torch': torch})
    problems, report = find(doctor.check_devices)
    assert report.devices[1].version == 'NVIDIA H200'
    if is_wrong:
        assert 'driver on your system is too old' in problems[0].what
        assert 'update the NVIDIA driver' in problems[0].way_out
    else:
        assert problems == []
        assert 'NVIDIA H200 is idle' in report.notes[0]


def test_cuda_devices_are_tried(pretend, monkeypatch):
    """One device that computes and one that this torch has no kernels for."""

    def ones(size, device):
        if device == 'cuda:1':
            raise RuntimeError('no kernel image is available')
        return module('tensor', sum=lambda: 8)

    torch = module('torch', get_num_threads=lambda: 2, ones=ones)
    torch.cuda = module(
        'cuda',
        device_count=lambda: 2,
        get_device_capability=lambda index: (9 - index, 0),
        get_device_name=lambda index: f'GPU {index}',
        get_arch_list=lambda: ['sm_90'],
    )
    monkeypatch.setattr(doctor, 'cuda_works', lambda: True)
    pretend({'torch': torch})
    (problem,), report = find(doctor.check_devices)
    assert report.devices[1] == doctor.Row('cuda:0', 'GPU 0, sm_90', 'ok')
    assert problem.what == 'cuda:1 is not usable: RuntimeError: no kernel image is available'
    assert 'sm_80; this one has sm_90' in problem.way_out


def test_a_name_that_does_not_resolve(monkeypatch):
    def resolve(scope, name):
        if name == 'SCSA':
            raise KeyError(f'Cannot find {name}')

    monkeypatch.setattr(doctor, 'resolve', resolve)
    problems, report = find(doctor.check_names)
    scopes = [scope for scope in doctor.FRAMEWORKS if doctor.is_there(scope)]
    assert len(problems) == len(scopes) > 0
    assert all('custom_imports' in problem.way_out for problem in problems)
    assert [row.status for row in report.names if 'scsa_mm.SCSA' in row.name] == ['ok'] * len(scopes)


def test_names_are_tried_under_the_scope_as_plugins(monkeypatch):
    import mmcv.cnn
    from mmengine.registry import DefaultScope

    seen = []
    monkeypatch.setattr(
        mmcv.cnn,
        'build_plugin_layer',
        lambda cfg, in_channels: seen.append((DefaultScope.get_current_instance().scope_name, cfg['type'])),
    )
    doctor.resolve('mmseg', 'SCSA')
    assert seen == [('mmseg', 'SCSA')]
    monkeypatch.undo()
    with pytest.raises(KeyError, match='Cannot find'):
        doctor.resolve('mmseg', 'NoSuchAttention')


def test_installed_configs_that_cannot_be_built_on(monkeypatch):
    def read_base(scope):
        if scope == 'mmseg':
            raise ModuleNotFoundError('mmsegmentation is not installed, please install mmsegmentation manually')
        raise missing('pkg_resources')  # reported by check_setuptools

    monkeypatch.setattr(doctor, 'read_base', read_base)
    (problem,), report = find(doctor.check_bases)
    assert "_base_ = 'mmseg::...' does not resolve: ModuleNotFoundError: mmsegmentation" in problem.what
    assert 'mmseg/.mim/configs' in problem.way_out
    assert all(row.status != 'ok' for row in report.names)


def test_of_half_a_page_by_torch_one_line_stays():
    error = RuntimeError('\x1b[1mdo\x1b[0m that.\nUnsupported global: GLOBAL mmengine.x.Y was not allowed\n')
    assert doctor.one_line(error) == 'RuntimeError: Unsupported global: GLOBAL mmengine.x.Y'
    assert doctor.one_line(OSError('\x1b[1ma\x1b[0m\n b')) == 'OSError: a b'


def test_checkpoints_that_do_not_load(monkeypatch):
    import torch

    def load(*args, **kwargs):
        raise RuntimeError('Unsupported global: HistoryBuffer')

    monkeypatch.setattr(torch, 'load', load)
    (problem,), _ = find(doctor.check_checkpoints)
    assert 'Unsupported global: HistoryBuffer' in problem.what


# --- the whole


def test_a_check_that_fails_itself_is_reported(monkeypatch, capsys):
    def check_odd(report):
        report.packages.append(doctor.Row('torch', '1', 'ok'))
        raise OSError('odd')

    monkeypatch.setattr(doctor, 'CHECKS', (check_odd,))
    monkeypatch.setattr(sys, 'argv', ['doctor'])
    assert doctor.main() == 1
    out = capsys.readouterr().out
    assert 'wrong: check_odd itself failed: OSError: odd\n  way out: please report' in out
    assert '1 thing(s) wrong.' in out
    assert 'All is well' not in out


@pytest.mark.parametrize('draw', [doctor.print_plain, doctor.print_rich])
def test_tables_show_every_cell(draw, capsys):
    draw('Packages', [doctor.Row('torch', '2.11', '[ok]'), doctor.Row('a-longer-name', '-', 'not installed')])
    out = capsys.readouterr().out
    for cell in ('Packages', 'torch', '2.11', '[ok]', 'a-longer-name', 'not installed'):
        assert cell in out

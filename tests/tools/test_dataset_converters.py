"""The converters and the check from the command line: reports, refusals, and what is left when they are stopped."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.datasets.raw_sets import MAKERS, put


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a tool in this process, as starting one takes seconds; returns its exit status, stdout and stderr."""
    monkeypatch.setattr(signal, 'signal', lambda *_: None)  # the tools' handlers would outlive the test

    def run(name, *args):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        try:
            runpy.run_path(f'tools/{name}', run_name='__main__')
        except SystemExit as stop:
            return stop.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run


def convert(call, dataset, *args):
    return call(f'dataset_converters/{dataset}.py', *args)


def test_convert_and_check_as_processes(tool, tmp_path):
    root = tmp_path / 'set'
    MAKERS['visdrone'](root)
    done = tool('dataset_converters/visdrone.py', root)
    assert f'{root}/coco/train.json: 2 images, 2 boxes' in done.stdout
    assert 'train images' in done.stderr  # the progress
    done = tool('check_dataset.py', root, '--out', tmp_path / 'out')
    assert f'{root}: visdrone' in done.stdout
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('dataset', MAKERS)
def test_convert_and_check(dataset, call, tmp_path):
    root = tmp_path / 'set'
    MAKERS[dataset](root)
    status, out, _ = convert(call, dataset, root)
    assert status == 0 and f'{root}/coco/train.json: 2 images, 2 boxes' in out
    status, _, errors = convert(call, dataset, root)
    assert status == 2
    assert errors.splitlines()[-1] == f'error: {root}/coco/train.json exists; --overwrite replaces it'
    assert convert(call, dataset, root, '--overwrite')[0] == 0
    status, out, _ = call('check_dataset.py', root, '--out', tmp_path / 'out')
    assert status == 0 and f'{root}: {dataset}' in out
    assert len(list((tmp_path / 'out').glob('*.png'))) == (3 if dataset == 'exdark' else 2)


def test_classes_and_splits_of_flir(call, tmp_path):
    MAKERS['flir'](tmp_path)
    assert convert(call, 'flir', tmp_path, '--classes', 'car, bike', '--splits', 'train')[0] == 0
    content = json.loads((tmp_path / 'coco/train.json').read_text())
    assert [c['name'] for c in content['categories']] == ['car', 'bike']
    status, _, errors = convert(call, 'flir', tmp_path, '--classes', 'labelled', '--overwrite')
    assert status == 2 and "has no class 'motor'" in errors


def test_ignored_objects_of_visdrone(call, tmp_path):
    MAKERS['visdrone'](tmp_path)
    put(tmp_path / 'VisDrone2019-DET-train/annotations/A.txt', '1,2,3,4,0,4,0,0\n')
    _, out, _ = convert(call, 'visdrone', tmp_path, '--ignored', 'crowd', '--splits', 'train')
    assert 'object of score 0, kept as a crowd' in out
    _, out, _ = convert(call, 'visdrone', tmp_path, '--splits', 'train', '--overwrite')
    assert 'left out' in out and 'object of score 0' in out


def test_classes_of_a_folder_are_printed_for_the_config(call, tmp_path):
    MAKERS['voc'](tmp_path)
    _, out, _ = convert(call, 'voc', tmp_path, '--lists', 'val')
    assert "classes = ('dog',)" in out


@pytest.mark.parametrize('dataset', [*MAKERS, 'check'])
@pytest.mark.parametrize('wrong', ['empty', 'file', 'absent'])
def test_a_wrong_place_ends_in_one_line(dataset, wrong, tmp_path, call):
    (tmp_path / 'empty').mkdir()
    put(tmp_path / 'file', 'x')
    name = 'check_dataset.py' if dataset == 'check' else f'dataset_converters/{dataset}.py'
    status, _, errors = call(name, tmp_path / wrong)
    assert status == 2
    assert errors.startswith('error: ') and errors.count('\n') == 1 and str(tmp_path / wrong) in errors
    assert sorted(os.listdir(tmp_path)) == ['empty', 'file'] and not os.listdir(tmp_path / 'empty')


def test_an_image_that_is_lost_after_the_conversion_is_reported(call, tmp_path):
    MAKERS['visdrone'](tmp_path)
    convert(call, 'visdrone', tmp_path)
    (tmp_path / 'VisDrone2019-DET-train/images/A.jpg').unlink()
    status, out, errors = call('check_dataset.py', tmp_path, '--out', tmp_path / 'out')
    assert status == 1 and 'image that is missing' in out
    assert errors.splitlines()[-1] == '1 images cannot be used: see above'


def test_a_place_that_cannot_be_written_to(call, tmp_path, monkeypatch):
    MAKERS['visdrone'](tmp_path)

    def refuse(*_, **kwargs):
        raise PermissionError(13, 'Permission denied', str(kwargs['dir']))

    monkeypatch.setattr('tempfile.mkdtemp', refuse)
    status, _, errors = convert(call, 'visdrone', tmp_path)
    assert status == 2 and errors == f'error: {tmp_path} cannot be read or written: Permission denied\n'


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_conversion_that_is_stopped_leaves_nothing(number, environment, tmp_path):
    MAKERS['visdrone'](tmp_path)
    folder = tmp_path / 'VisDrone2019-DET-train'
    for i in range(15000):
        os.link(folder / 'images/A.jpg', folder / f'images/{i:05d}.jpg')
        os.link(folder / 'annotations/A.txt', folder / f'annotations/{i:05d}.txt')
    command = [sys.executable, 'tools/dataset_converters/visdrone.py', tmp_path]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob('.coco.*/train.json')) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (143 if number == signal.SIGTERM else 2), errors
    assert 'Traceback' not in errors
    assert sorted(p.name for p in tmp_path.iterdir()) == ['VisDrone2019-DET-train', 'VisDrone2019-DET-val']


@pytest.mark.parametrize('dataset', MAKERS)
def test_miniature_sets_are_converted_whole(dataset, call, tmp_path):
    made = tmp_path / 'set'
    status, _, errors = call('make_miniature.py', '--dataset', dataset, '--out', made, '--train', '6', '--val', '4')
    assert status == 0, errors
    root = made / 'VOC2007' if dataset == 'voc' else made
    assert convert(call, dataset, root)[0] == 0
    contents = {path.stem: json.loads(path.read_text()) for path in (root / 'coco').glob('*.json')}
    assert len(contents) >= 3
    for content in contents.values():
        assert content['images'] and content['annotations']
        assert not any('image' in kind for kind in content['info']['findings'].get('left out', {}))

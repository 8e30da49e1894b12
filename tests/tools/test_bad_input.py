"""A user's mistake ends each tool with one line, a non-zero status, and nothing written."""

import re
import runpy
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT, TINY


@pytest.fixture
def refuse(monkeypatch, capsys, miniature, tmp_path):
    """Run a tool's main with these arguments; returns the one line it ends with."""
    monkeypatch.setenv('MINIATURE_COCO', str(miniature))

    def run(name, *args, work_dir=tmp_path / 'run'):
        before = sorted(work_dir.rglob('*')) if work_dir.exists() else None
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args), '--work-dir', str(work_dir)])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(f'tools/{name}', run_name='__main__')
        assert caught.value.code == 2
        assert (sorted(work_dir.rglob('*')) if work_dir.exists() else None) == before
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
        assert len(lines) == 1
        return lines[0]

    return run


@pytest.fixture
def other_model(tmp_path):
    torch.save(dict(state_dict=torch.nn.Linear(2, 2).state_dict()), tmp_path / 'other.pth')
    return tmp_path / 'other.pth'


def test_no_config(refuse):
    line = refuse('train.py', 'configs/mask_rcnn_r50_sca_coco.py')
    assert 'does not exist; did you mean configs/mask_rcnn_r50_scsa_coco.py' in line


def test_no_data(refuse):
    line = refuse('train.py', TINY, '--cfg-options', 'train_dataloader.dataset.data_root=data/coco/nowhere')
    assert 'train data: data/coco/nowhere/annotations/instances_train2017.json not found; get train2017' in line


def pretrained(checkpoint):
    values = dict(_delete_=True, type='Pretrained', checkpoint=checkpoint)
    return [f'model.backbone.init_cfg.{key}={value}' for key, value in values.items()]


def test_no_pretrained_weights(refuse):
    start = pretrained('resnet50.pth')
    assert 'init_cfg.checkpoint: resnet50.pth not found' in refuse('train.py', TINY, '--cfg-options', *start)


def test_pretrained_weights_that_cannot_be_downloaded(tool, tmp_path):
    start = pretrained('http://127.0.0.1:9/resnet50.pth')
    err = tool('train.py', TINY, '--work-dir', tmp_path, '--cfg-options', *start, status=2).stderr
    assert 'error: pretrained weights cannot be downloaded' in err
    assert 'Traceback' not in err


def test_start_from_another_model(tool, other_model, tmp_path):
    args = ['--work-dir', tmp_path / 'run', '--cfg-options', f'load_from={other_model}']
    assert 'error: load_from: no parameter of this model is in' in tool('train.py', TINY, *args, status=2).stderr


def test_misspelt_plugin(refuse):
    line = refuse('train.py', TINY, '--cfg-options', 'model.backbone.plugins.0.cfg.type=SCSSA')
    assert "no plugin type 'SCSSA'" in line and 'did you mean SCSA' in line


def test_backbone_without_plugins(refuse):
    line = refuse('train.py', TINY, '--cfg-options', 'model.backbone.type=SwinTransformer')
    assert "SwinTransformer takes no plugins of its own; dict(type='scsa_mm.WithPlugins'" in line and 'ResNeXt' in line


def test_channels_that_do_not_divide(refuse):
    line = refuse('train.py', TINY, '--cfg-options', 'model.backbone.plugins.0.cfg.num_heads=3')
    assert 'in_channels must be a multiple of num_heads, got 4 and 3; choose num_heads from [1, 2, 4]' in line


def test_amp_without_a_gpu(refuse, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert '--amp needs a GPU' in refuse('train.py', TINY, '--amp')


def test_gpus_that_are_not_there(refuse, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')
    assert 'CUDA_VISIBLE_DEVICES=0 asks for a GPU' in refuse('train.py', TINY)


def test_nothing_to_resume(refuse):
    assert 'holds no checkpoint to go on from' in refuse('train.py', TINY, '--resume')


def test_resume_from_weights_alone(refuse, other_model):
    assert 'it holds weights only' in refuse('train.py', TINY, '--resume', other_model)


def test_an_earlier_run_is_kept(refuse, trained):
    assert 'holds 2 checkpoint(s) of an earlier run' in refuse('train.py', TINY, work_dir=trained)


def test_resuming_from_elsewhere_keeps_an_earlier_run_too(refuse, trained, tmp_path):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'epoch_2.pth').touch()
    assert 'of an earlier run' in refuse('train.py', TINY, '--resume', trained / 'epoch_1.pth')


def test_checkpoint_that_is_not_there(refuse):
    assert 'nowhere.pth does not exist' in refuse('test.py', TINY, 'nowhere.pth')


def test_checkpoint_cut_off(refuse, trained, tmp_path):
    whole = (trained / 'epoch_2.pth').read_bytes()
    (tmp_path / 'cut.pth').write_bytes(whole[: len(whole) // 2])
    assert 'cut.pth is cut off or no checkpoint' in refuse('test.py', TINY, tmp_path / 'cut.pth')
    assert 'cut.pth is cut off or no checkpoint' in refuse('train.py', TINY, '--resume', tmp_path / 'cut.pth')


def test_out_of_an_unknown_form(refuse, trained):
    assert '--out takes FILE.pkl' in refuse('test.py', TINY, trained / 'epoch_2.pth', '--out', 'predictions.txt')


def test_checkpoint_of_another_model(tool, other_model, tmp_path):
    err = tool('test.py', TINY, other_model, '--work-dir', tmp_path / 'run', status=2).stderr
    assert 'other.pth is of another model: ' in err and 'is not in it; use the config' in err
    assert 'Traceback' not in err


def test_several_processes_say_it_once(environment, tmp_path):
    done = subprocess.run(
        ['bash', 'tools/dist_test.sh', TINY, str(tmp_path / 'nowhere.pth'), '2', '--work-dir', str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count('error: ') == 1 and 'Traceback' not in done.stderr


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_scripts_without_arguments_say_how(tool, script):
    assert 'usage: ' in tool(script, status=2).stderr


@pytest.mark.parametrize(
    'args, message',
    [
        (['--plugin', 'SCSAA'], "no plugin type 'SCSAA' .*did you mean SCSA"),
        (['--plugin', 'SCSA', '--plugin-stages', '5'], r'there are 4 \(1: layer1, .*got \(5,\)'),
        (['--plugin', 'SCSA'], "layer1.0 has a plugin 'scsa' already; .*postfix"),
        (['--plugin', 'SE', '--plugin-position', 'after_conv4'], r"block layer1.0 \(Bottleneck\) has 'after_conv1', "),
        (['--plugin', 'SCSA', '--plugin-after', 'layers.*'], "after='layers.*' names no module of ResNet"),
        (['--plugin', 'SCSA:7'], "'SCSA:7': options are NAME:key=value"),
        (['--plugin', 'SCSA', '--plugin-host', 'model.nec'], 'no module there; there are .*model.backbone, model.neck'),
        (['--plugin-stages', '2'], '--plugin-stages says where attention goes; --plugin NAME says which'),
    ],
)
def test_plugins_on_the_command_line(refuse, args, message):
    assert re.search(message, refuse('train.py', TINY, *args))

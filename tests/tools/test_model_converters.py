"""tools/model_converters/released_scsa.py: what it writes, and that it leaves nothing when it refuses."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch
from mmengine.logging import HistoryBuffer

from scsa_mm.backbones import ResNetSCSA
from scsa_mm.backbones.released import from_released
from tests.backbones.golden import case, released_state_dict

NAME = 'model_converters/released_scsa.py'
RESNET = case('ResNetSCSA', 18)
MOBILENET = case('MobileNetV2SCSA')


def same(one, two):
    return list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def released(tmp_path):
    """What mmengine saves while training: with the head, averaged weights, the message hub and the optimizer."""
    weights = released_state_dict(RESNET, 'backbone.') | {'head.fc.weight': torch.randn(3, 32)}
    history = HistoryBuffer()
    history.update(0.5)
    path = tmp_path / 'epoch_3.pth'
    torch.save(
        {
            'meta': {'epoch': 3, 'cfg': "backbone = dict(type='ResNetSCSA')"},
            'state_dict': weights,
            'message_hub': {'log_scalars': {'train/loss': history}},
            'optimizer': {'state': {}, 'param_groups': [{'lr': 0.1, 'params': [0, 1]}]},
            'ema_state_dict': {f'module.{name}': value + 1 for name, value in weights.items()},
        },
        path,
    )
    return path


@pytest.fixture
def convert(monkeypatch, capsys):
    """Run the tool in this process; returns its exit status, output and error output."""
    spec = importlib.util.spec_from_file_location('released_scsa', Path('tools') / NAME)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['released_scsa.py', *map(str, args)])
        try:
            module.main()
            status = 0
        except SystemExit as stop:
            status = stop.code
        return (status, *capsys.readouterr())

    run.module = module
    return run


def test_there_and_back_as_a_user(tool, released, tmp_path):
    ours, back = tmp_path / 'ours.pth', tmp_path / 'back.pth'
    done = tool(NAME, released, ours)
    assert done.stdout.splitlines() == [
        'state_dict: 136 tensors of 8 attention modules renamed, 0 of projections renumbered, 120 others of the '
        'backbone kept',
        'state_dict: 1 outside the backbone kept: head.fc.weight',
        'ema_state_dict: 136 tensors of 8 attention modules renamed, 0 of projections renumbered, 120 others of the '
        'backbone kept',
        'ema_state_dict: 1 outside the backbone kept: module.head.fc.weight',
        'kept as they are: meta, message_hub',
        'left out: optimizer, which numbers parameters in an order that changes; start from these weights with '
        'load_from, --resume cannot go on from them',
        f'written: {ours}',
    ]
    before, after = torch.load(released), torch.load(ours)
    assert list(after) == ['meta', 'state_dict', 'message_hub', 'ema_state_dict']
    assert after['meta'] == before['meta']
    assert after['message_hub']['log_scalars']['train/loss'].current() == 0.5
    weights = {n.removeprefix('backbone.'): v for n, v in after['state_dict'].items() if n.startswith('backbone.')}
    ResNetSCSA(**RESNET['kwargs']).load_state_dict(weights, strict=True)

    tool(NAME, ours, back, '--reverse')
    for name in ('state_dict', 'ema_state_dict'):
        assert same(torch.load(back)[name], before[name])
    assert sorted(os.listdir(tmp_path)) == ['back.pth', 'epoch_3.pth', 'ours.pth']


def test_wrong_direction_as_a_user(tool, released, tmp_path):
    done = tool(NAME, released, tmp_path / 'out.pth', '--reverse', status=2)
    assert done.stderr.strip().splitlines()[-1] == (
        f'error: {released} cannot be converted: its state_dict: backbone.layer1.0.attn has the name that the released '
        'code gives it already; leave --reverse out for the other direction'
    )
    assert os.listdir(tmp_path) == ['epoch_3.pth']


def test_bare_state_dict(convert, tmp_path):
    weights = released_state_dict(MOBILENET)
    torch.save(weights, tmp_path / 'released.pth')
    status, out, _ = convert(tmp_path / 'released.pth', tmp_path / 'ours.pth')
    assert status == 0
    assert out.splitlines() == [
        'state dict: 289 tensors of 17 attention modules renamed, 102 of projections renumbered, 210 others of the '
        'backbone kept',
        f'written: {tmp_path / "ours.pth"}',
    ]
    ours = torch.load(tmp_path / 'ours.pth')
    assert same(ours, from_released(weights).state_dict)
    assert convert(tmp_path / 'ours.pth', tmp_path / 'back.pth', '--reverse')[0] == 0
    assert same(torch.load(tmp_path / 'back.pth'), weights)


def test_data_parallel(convert, tmp_path):
    weights = released_state_dict(RESNET, 'module.backbone.')
    torch.save({'state_dict': weights}, tmp_path / 'released.pth')
    assert convert(tmp_path / 'released.pth', tmp_path / 'ours.pth')[0] == 0
    assert 'module.backbone.layer4.1.scsa.v.weight' in torch.load(tmp_path / 'ours.pth')['state_dict']


def test_nothing_is_overwritten_unless_asked(convert, released, tmp_path):
    out = tmp_path / 'out.pth'
    out.write_text('mine')
    status, _, error = convert(released, out)
    assert (status, error) == (2, f'error: {out} exists; --overwrite replaces it\n')
    assert out.read_text() == 'mine'
    assert convert(released, out, '--overwrite')[0] == 0
    assert 'state_dict' in torch.load(out)
    # Onto itself: it was read before.
    assert convert(released, released, '--overwrite')[0] == 0
    assert same(torch.load(released)['state_dict'], torch.load(out)['state_dict'])


def cut_off(path):
    path.write_bytes(path.read_bytes()[:5000])


def damaged(path):
    checkpoint = torch.load(path)
    del checkpoint['state_dict']['backbone.layer3.0.attn.norm.bias']
    torch.save(checkpoint, path)


def other_model(path):
    torch.save({'state_dict': {'backbone.conv1.weight': torch.ones(1)}}, path)


def other_kind(path):
    torch.save([1, 2], path)


def with_code(path):
    torch.save({'state_dict': os.path.exists}, path)


@pytest.mark.parametrize(
    'spoil, text',
    [
        (Path.unlink, 'does not exist'),
        (cut_off, 'is cut off or no checkpoint (5,000 bytes)'),
        (damaged, 'backbone.layer3.0.attn is no whole SCSA: it lacks norm.bias'),
        (other_model, 'its state_dict: it holds no SCSA attention; it holds e.g. backbone.conv1.weight'),
        (other_kind, 'holds a list, not a dict of weights'),
        (with_code, 'holds objects that could run code'),
    ],
)
def test_bad_sources_are_one_line(convert, released, tmp_path, spoil, text):
    spoil(released)
    left = os.listdir(tmp_path)
    status, out, error = convert(released, tmp_path / 'out.pth')
    assert (status, out) == (2, '')
    assert text in error and error.startswith('error: ') and error.count('\n') == 1
    assert os.listdir(tmp_path) == left


@pytest.mark.parametrize(
    'name, text', [('no/such/out.pth', 'folder {}/no/such does not exist'), ('', '{} is a folder')]
)
def test_bad_targets_are_one_line(convert, released, tmp_path, name, text):
    status, _, error = convert(released, tmp_path / name)
    assert status == 2
    assert text.format(tmp_path) in error and error.count('\n') == 1


def test_a_full_disk_leaves_the_old_file(convert, released, tmp_path, monkeypatch):
    out = tmp_path / 'out.pth'
    out.write_text('mine')

    def save(checkpoint, path):
        Path(path).write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(convert.module.torch, 'save', save)
    status, _, error = convert(released, out, '--overwrite')
    assert (status, error) == (2, f'error: {out} cannot be written: [Errno 28] No space left on device\n')
    assert out.read_text() == 'mine'
    assert sorted(os.listdir(tmp_path)) == ['epoch_3.pth', 'out.pth']

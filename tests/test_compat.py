"""The work-arounds, and for each a test that fails when it is no longer needed."""

import importlib.metadata
import os
import pickle
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

import scsa_mm  # noqa: F401
from scsa_mm.runtime.config import load_config


def is_upstream(distribution):
    return any(d.metadata['Name'] == distribution for d in importlib.metadata.distributions())


@pytest.fixture
def checkpoint(tmp_path):
    """What mmengine puts into a checkpoint beside the weights."""
    path = tmp_path / 'epoch_1.pth'
    history = HistoryBuffer()
    history.update(np.float64(0.5))
    history.update(2)
    scalars = dict(f4=np.float32(1), i8=np.int64(2), flag=np.bool_(True), array=np.arange(3))
    torch.save(dict(message_hub=dict(log_scalars=dict(loss=history), runtime_info=scalars)), path)
    return path


def test_mmengine_checkpoints_load_with_weights_only(checkpoint):
    hub = torch.load(checkpoint, weights_only=True)['message_hub']
    assert hub['log_scalars']['loss'].mean() == 1.25
    assert hub['runtime_info']['f4'] == 1 and hub['runtime_info']['array'].tolist() == [0, 1, 2]


def test_torch_alone_still_refuses_mmengine_checkpoints(checkpoint):
    """When this fails, allow_mmengine_checkpoints can go."""
    code = f'import mmengine.logging, torch; torch.load({str(checkpoint)!r}, weights_only=True)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode != 0 and 'weights_only' in done.stderr


class Attack:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'attack',
    [
        Attack(getattr, (OrderedDict, 'fromkeys')),
        Attack(getattr, (HistoryBuffer, '__init__')),
        Attack(os.system, ('true',)),
        Attack(eval, ('1',)),
    ],
    ids=['getattr-of-another-class', 'getattr-of-another-method', 'system', 'eval'],
)
def test_a_checkpoint_still_cannot_run_code(tmp_path, attack):
    path = tmp_path / 'bad.pth'
    torch.save(dict(state_dict={}, extra=attack), path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_types_stay_allowed_after_a_loader_withdraws_its_own(checkpoint):
    with torch.serialization.safe_globals([HistoryBuffer, np.ndarray, np.dtype]):
        pass
    assert torch.load(checkpoint, weights_only=True)['message_hub']['log_scalars']['loss'].mean() == 1.25


def test_mmengine_still_warns_of_pkg_resources():
    """When this fails, silence_pkg_resources can go. OneDL's mmengine does not warn."""
    code = 'from mmengine.utils.package_utils import is_installed; is_installed("torch")'
    done = subprocess.run([sys.executable, '-W', 'default', '-c', code], capture_output=True, text=True)
    assert ('pkg_resources is deprecated' in done.stderr) == is_upstream('mmengine')


def test_mmseg_bases_are_found_by_upstream_and_still_not_by_onedl(tmp_path):
    """When this fails for OneDL, find_mmseg_of_onedl can go."""
    (tmp_path / 'c.py').write_text("_base_ = 'mmseg::_base_/models/fcn_r50-d8.py'")
    code = f'from mmengine.config import Config; Config.fromfile({str(tmp_path / "c.py")!r})'
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert (done.returncode == 0) == is_upstream('mmsegmentation')
    assert load_config(str(tmp_path / 'c.py')).model.type == 'EncoderDecoder'


TWO_PLUGINS = """
import torch
{first}
from mmseg.models.backbones.resnet import Bottleneck
{second}
block = Bottleneck(16, 4, plugins=[])
block.one, block.two = torch.nn.Conv2d(4, 4, 1), torch.nn.Conv2d(4, 4, 1)
x = torch.randn(1, 4, 3, 3)
y = block.forward_plugin(x, ['one', 'two'])
print('chained', torch.equal(y, block.two(block.one(x))), 'last', torch.equal(y, block.two(x)))
"""


@pytest.mark.parametrize(
    'first, second, said',
    [
        ('import scsa_mm', '', 'chained True last False'),
        ('', 'import scsa_mm', 'chained True last False'),
        # When this fails, chain_mmseg_plugins can go.
        ('', '', 'chained False last True'),
    ],
    ids=['scsa_mm first', 'mmseg first', 'mmseg alone'],
)
def test_plugins_at_one_position_of_mmseg(first, second, said):
    code = TWO_PLUGINS.format(first=first, second=second)
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert said in done.stdout, done.stderr

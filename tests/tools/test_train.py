"""tools/train.py and tools/dist_train.sh as a user runs them."""

import signal
import subprocess
import sys
import time

import torch

from scsa_mm.hooks.random_state import KEY
from tests.conftest import ROOT, TINY


def weights(path):
    return torch.load(path, map_location='cpu', weights_only=True)['state_dict']


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_leaves_a_checkpoint_with_the_attention(trained):
    state = weights(trained / 'epoch_2.pth')
    assert 'backbone.layer1.0.scsa.norm_h.weight' in state
    assert (trained / 'last_checkpoint').read_text() == str(trained / 'epoch_2.pth')
    logs = ''.join(p.read_text() for p in trained.glob('*/*.log'))
    assert 'attention: 16 x SCSA, 3,776 parameters' in logs
    assert 'SCSA on cpu, float32: cpp\n' in logs  # the fast path, without being asked


def test_killed_and_resumed_equals_uninterrupted(trained, environment, tool, tmp_path):
    command = [sys.executable, 'tools/train.py', TINY, '--work-dir', str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not (tmp_path / 'last_checkpoint').exists() and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / 'epoch_2.pth').exists(), 'the run was over before it could be killed'

    tool('train.py', TINY, '--work-dir', tmp_path, '--resume')
    assert same(weights(tmp_path / 'epoch_2.pth'), weights(trained / 'epoch_2.pth'))


def test_resume_from_a_named_checkpoint(trained, tool, tmp_path):
    tool('train.py', TINY, '--work-dir', tmp_path, '--resume', trained / 'epoch_1.pth')
    assert same(weights(tmp_path / 'epoch_2.pth'), weights(trained / 'epoch_2.pth'))


def test_the_config_in_the_work_dir_repeats_the_run(trained, tool, tmp_path):
    tool('train.py', trained / 'tiny_mask_rcnn.py', '--work-dir', tmp_path)
    assert same(weights(tmp_path / 'epoch_2.pth'), weights(trained / 'epoch_2.pth'))


def test_two_processes_on_the_cpu(tool, no_group_at_exit, tmp_path):
    tool('dist_train.sh', TINY, 2, '--work-dir', tmp_path, '--cfg-options', 'train_cfg.max_epochs=1')
    states = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)[KEY]
    assert len(states) == 2
    tool('dist_train.sh', TINY, 2, '--work-dir', tmp_path, '--resume')
    assert (tmp_path / 'epoch_2.pth').exists()


def test_auto_scale_lr(tool, tmp_path):
    tool('train.py', TINY, '--work-dir', tmp_path, '--auto-scale-lr', '--cfg-options', 'train_cfg.max_epochs=1')
    log = next(tmp_path.glob('*/*.log')).read_text()
    # One process of batch 2 against mmdet's base of 16.
    assert 'Scaling the original LR by 0.125.' in log


def test_a_plain_mmdet_config_with_only_the_plugins_line(tmp_path):
    """From mmdet's own Mask R-CNN: it builds, takes a step, and has 60,416 parameters more."""
    from mmdet.structures import DetDataSample
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.registry import MODELS
    from mmengine.structures import InstanceData

    register_all_modules()
    base = "_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'\n"
    line = (
        "model = dict(backbone=dict(plugins=[dict(cfg=dict(type='scsa_mm.SCSA'), stages=(True, True, True, True), "
        "position='after_conv2')]))\n"
    )
    counts = []
    for name, text in (('without.py', base), ('with.py', base + line)):
        (tmp_path / name).write_text(text)
        cfg = Config.fromfile(tmp_path / name)
        cfg.model.train_cfg.rpn_proposal.update(nms_pre=20, max_per_img=20)
        model = MODELS.build(cfg.model)
        counts.append(sum(p.numel() for p in model.parameters()))
    assert counts[1] - counts[0] == 60_416

    from mmdet.structures.mask import BitmapMasks

    truth = InstanceData(
        bboxes=torch.tensor([[5.0, 5.0, 40.0, 40.0]]),
        labels=torch.tensor([1]),
        masks=BitmapMasks(torch.ones(1, 64, 64).numpy().astype('uint8'), 64, 64),
    )
    size = (64, 64)
    metainfo = dict(img_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1, 1))
    sample = DetDataSample(metainfo=metainfo)
    sample.gt_instances = truth
    model.train()
    losses = model.loss(torch.randn(1, 3, 64, 64), [sample])
    total = sum(sum(v) if isinstance(v, list) else v for k, v in losses.items() if 'loss' in k)
    total.backward()
    attention = {n: p for n, p in model.named_parameters() if '.scsa.' in n}
    # Stage 1 is frozen in mmdet's config, and its attention with it.
    assert all((p.grad is None) == n.startswith('backbone.layer1') for n, p in attention.items())

"""A model with inserted attention is copied, saved, converted, compiled, exported and split like any other."""

import copy
import os
import pickle
import re
import subprocess
import sys

import onnxruntime
import pytest
import torch
from mmengine.model import ExponentialMovingAverage, revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from scsa_mm.attention import SCSA
from scsa_mm.ops import use_backend
from scsa_mm.plugging import inserted

SMALL = dict(base_channels=8, stem_channels=8)
HOSTS = {
    'before-conv': (dict(type='ResNet', depth=18, **SMALL), dict()),
    'after-norm': (dict(type='ResNet', depth=18, **SMALL), dict(position='after_conv2')),
    'Swin-tokens': (
        dict(type='SwinTransformer', embed_dims=16, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), drop_path_rate=0.0),
        dict(after='stages.*.blocks.*'),
    ),
    'Swin-outputs': (
        dict(type='SwinTransformer', embed_dims=16, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), drop_path_rate=0.0),
        dict(outputs='all'),
    ),
}
every_host = pytest.mark.parametrize('name', HOSTS)


def build(name, **changes):
    host, where = HOSTS[name]
    cfg = dict(
        type='scsa_mm.WithPlugins',
        module=dict(host, **changes),
        plugins=[dict(cfg=dict(type='scsa_mm.SCSA'), **where)],
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.manual_seed(0)
        model = MODELS.build(cfg)
    model.eval()
    return model


def check_same(first, second, image, **tolerance):
    for ours, theirs in zip(first(image), second(image), strict=True):
        torch.testing.assert_close(ours, theirs, **(tolerance or dict(rtol=0, atol=0)))


def disturb(model):
    """Other weights in the attention, and in nothing else."""
    for module in model.modules():
        if isinstance(module, SCSA):
            for p in module.parameters():
                nn.init.normal_(p)


COPIES = {
    'deepcopy': copy.deepcopy,
    'pickle': lambda model: pickle.loads(pickle.dumps(model)),
    'EMAHook': lambda model: ExponentialMovingAverage(model).module,
}


@every_host
@pytest.mark.parametrize('how', COPIES)
def test_a_copy_uses_its_own_attention(name, how, image):
    model = build(name)
    twin = COPIES[how](model)
    check_same(twin, model, image)
    before = model(image)
    disturb(twin)
    for ours, theirs in zip(model(image), before, strict=True):
        assert torch.equal(ours, theirs)
    assert not all(torch.equal(a, b) for a, b in zip(twin(image), before, strict=True))


def test_a_hook_registered_after_unpickling_takes_no_place_of_ours(image):
    model = build('before-conv')
    expected = model(image)
    code = (
        'import pickle, sys, torch; torch.set_num_threads(1)\n'
        'model, image, expected = pickle.load(sys.stdin.buffer)\n'
        'for m in model.modules(): m.register_forward_pre_hook(lambda m, x: None)\n'
        'assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(model(image), expected))\n'
    )
    data = pickle.dumps((model, image, expected))
    done = subprocess.run([sys.executable, '-c', code], input=data, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize('name', ['before-conv', 'after-norm'])
def test_survives_the_conversion_of_the_norms(name, image):
    model = build(name)
    expected = model(image)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    assert any(isinstance(m, nn.SyncBatchNorm) for m in converted.modules())
    reverted = revert_sync_batchnorm(converted)
    reverted.eval()
    for ours, theirs in zip(reverted(image), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize('name', ['before-conv', 'after-norm'])
def test_survives_the_fusion_of_convolutions_and_norms(name, image):
    from mmcv.cnn.utils import fuse_conv_bn

    model = build(name)
    expected = model(image)
    fused = fuse_conv_bn(copy.deepcopy(model))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    for ours, theirs in zip(fused(image), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def gradients(model, image):
    model.zero_grad()
    torch.manual_seed(2)
    sum((y * torch.randn_like(y)).sum() for y in model(image)).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('name', ['before-conv', 'after-norm', 'Swin-tokens'])
def test_activation_checkpointing(name, image):
    plain, saving = build(name).double(), build(name, with_cp=True).double()
    image = image.double().requires_grad_()  # the reentrant form that the mm packages use wants a gradient
    for first, second in zip(gradients(plain, image).items(), gradients(saving, image).items(), strict=True):
        assert first[0] == second[0]
        torch.testing.assert_close(first[1], second[1], rtol=1e-9, atol=1e-10)


@every_host
def test_autocast_in_bfloat16_trains_every_attention(name, image):
    model = build(name)
    with torch.autocast('cpu', torch.bfloat16):
        found = gradients(model, image)
    attention = {f'{path}.q.weight' for path in inserted(model)}
    assert attention <= found.keys()
    assert all(torch.isfinite(g).all() for g in found.values())


@every_host
def test_compiles_without_a_graph_break(name, image):
    model = build(name)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend='eager')
    check_same(compiled, model, image, rtol=1e-5, atol=1e-6)


def test_compiles_after_the_norms_were_converted(image):
    model = build('after-norm')
    expected = model(image)
    reverted = revert_sync_batchnorm(nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model)))
    reverted.eval()
    torch._dynamo.reset()
    compiled = torch.compile(reverted, backend='eager')
    for ours, theirs in zip(compiled(image), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@every_host
def test_traces(name, image):
    model = build(name)
    traced = torch.jit.trace(model, image, check_trace=False)
    torch.manual_seed(3)
    with use_backend('reference'):  # which is what is traced
        check_same(traced, model, torch.randn_like(image), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', ['before-conv', pytest.param('after-norm', marks=pytest.mark.slow)])
def test_exports_to_onnx_with_open_sizes(name, image, tmp_path):
    model = build(name, out_indices=(3,))
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    path = tmp_path / 'model.onnx'
    torch.onnx.export(model, (image,), path, dynamo=True, opset_version=18, dynamic_shapes=(sizes,), verbose=False)
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    for size in ((3, 64, 160), (1, 70, 90), (4, 33, 47)):
        x = torch.randn(size[0], 3, *size[1:])
        found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(found), model(x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['Swin-tokens', 'Swin-outputs'])
def test_swin_exports_to_onnx(name, image, tmp_path):
    """At one size and batch, as Swin without attention does."""
    model = build(name, out_indices=(3,))
    path = tmp_path / 'model.onnx'
    torch.onnx.export(model, (image,), path, dynamo=False, opset_version=17, input_names=['x'])
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    x = torch.randn_like(image)
    (found,) = session.run(None, {'x': x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(x)[0], rtol=1e-3, atol=1e-4)


SHARDED = """
import os, sys, warnings; warnings.filterwarnings('ignore')
from functools import partial
import torch, torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy
torch.set_num_threads(1)
dist.init_process_group('gloo')
from mmdet.utils import register_all_modules; register_all_modules(False)
from mmengine.model import MMFullyShardedDataParallel
from mmengine.registry import MODELS, DefaultScope

def build():
    swin = dict(type='SwinTransformer', embed_dims=16, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), drop_path_rate=0.0)
    plugins = [
        dict(cfg=dict(type='scsa_mm.SCSA'), after='stages.*.blocks.*'),
        dict(cfg=dict(type='scsa_mm.SCSA'), outputs='all'),
    ]
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(dict(type='scsa_mm.WithPlugins', module=swin, plugins=plugins))

torch.manual_seed(1)
images, rank = torch.randn(4, 3, 64, 64), dist.get_rank()
whole, part = build(), build()
policy = partial(size_based_auto_wrap_policy, min_num_params=1000)
part = MMFullyShardedDataParallel(
    part, auto_wrap_policy=policy, device_id=torch.device('cpu'), use_orig_params=True)
units = sum(isinstance(m, FullyShardedDataParallel) for m in part.modules())
for model, x in ((whole, images), (part, images[2 * rank:2 * rank + 2])):
    loss = sum(y.pow(2).mean() for y in FullyShardedDataParallel.forward(model, x)) if model is part else sum(
        y.pow(2).mean() for y in model(x))
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
start = dict(build().named_parameters())
with FullyShardedDataParallel.summon_full_params(part):
    pairs = zip(part.named_parameters(), whole.named_parameters(), strict=True)
    worst = max((p - q).abs().max().item() for (_, p), (_, q) in pairs)
moved = [(p - start[n]).abs().max().item() for n, p in whole.named_parameters() if 'scsa' in n]
if rank == 0:
    print(f'units {units} worst {worst} moved {max(moved)}')
dist.destroy_process_group()
"""


def test_fully_sharded_equals_one_process(tmp_path):
    """Two processes with half the batch each, sharded by FSDP through mmengine's wrapper."""
    (tmp_path / 'sharded.py').write_text(SHARDED)
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', 'sharded.py']
    environment = dict(os.environ, PYTHONPATH=os.getcwd(), OMP_NUM_THREADS='1')
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    units, worst, moved = re.search(r'units (\S+) worst (\S+) moved (\S+)', done.stdout).groups()
    assert int(units) > 8
    assert float(worst) < 1e-6 < 1e-4 < float(moved)

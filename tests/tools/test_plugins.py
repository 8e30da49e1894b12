"""Attention from the command line, shown and trained, as a user runs it."""

import re

import torch
from mmengine.analysis import FlopAnalyzer

from scsa_mm.attention import SCSA
from scsa_mm.runtime.config import load_config

CLASSIFIER = 'tests/data/tiny_classifier.py'
SWIN = 'tests/data/tiny_swin.py'


def weights(path):
    return torch.load(path, map_location='cpu', weights_only=True)['state_dict']


def worst(first, second):
    assert first.keys() == second.keys()
    return max((first[k].double() - second[k].double()).abs().max().item() for k in first)


def test_train_adds_it_and_leaves_a_config_that_repeats_the_run(images, tool, tmp_path):
    plugin = ['--plugin', 'SCSA:window_size=3', '--plugin', 'EMA:groups=2', '--plugin-stages', '2,4']
    tool('train.py', CLASSIFIER, '--work-dir', tmp_path / 'first', *plugin)
    first = weights(tmp_path / 'first/epoch_1.pth')
    added = {k.partition('.scsa.')[0] for k in first if '.scsa.' in k}
    assert added == {f'backbone.layer{stage}.{block}' for stage in (2, 4) for block in (0, 1)}
    assert {k.partition('.ema.')[0] for k in first if '.ema.' in k} == added
    log = next(tmp_path.glob('first/*/*.log')).read_text()
    assert 'attention: 4 x SCSA, 4 x EMA' in log

    written = tmp_path / 'first/tiny_classifier.py'
    assert load_config(str(written)).model.backbone.type == 'scsa_mm.WithPlugins'
    tool('train.py', written, '--work-dir', tmp_path / 'second')
    assert worst(first, weights(tmp_path / 'second/epoch_1.pth')) == 0
    tool('test.py', written, tmp_path / 'first/epoch_1.pth', '--work-dir', tmp_path / 'test')


def test_two_processes_train_swin_as_one_does(images, tool, tmp_path):
    """The same four images an iteration: all losses and the final weights agree."""
    losses, final = [], []
    for name, processes, batch in (('train.py', [], 4), ('dist_train.sh', [2], 2)):
        work_dir = tmp_path / name
        options = [f'train_dataloader.batch_size={batch}', 'default_hooks.logger.interval=1']
        tool(name, SWIN, *processes, '--work-dir', work_dir, '--cfg-options', *options)
        final.append(weights(work_dir / 'epoch_3.pth'))
        tool('test.py', SWIN, work_dir / 'epoch_3.pth', '--work-dir', work_dir, '--out', work_dir / 'metrics.json')
        losses.append((work_dir / 'metrics.json').read_text())
    assert 'backbone.stages.0.scsa_after_blocks_0.q.weight' in final[0]
    assert 'backbone.scsa_output_0.q.weight' in final[0]
    start = weights_at_the_start(SWIN)
    moved = max((final[0][k] - start[k]).abs().max().item() for k in final[0] if 'scsa' in k)
    assert worst(*final) < 1e-6 < 1e-3 < moved
    assert losses[0] == losses[1]


def weights_at_the_start(config):
    from mmengine.registry import MODELS, DefaultScope
    from mmengine.runner import set_random_seed

    cfg = load_config(config)
    set_random_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
        model.init_weights()
    return model.state_dict()


def test_show_plugins_of_a_config(tool):
    out = tool('analysis/show_plugins.py', 'configs/mask_rcnn_r50_scsa_coco.py', '--shape', 64, 96).stdout
    rows = re.findall(r'^ *backbone\.layer\d\S+ .*$', out, re.M)
    assert len(rows) == 16
    counted = FlopAnalyzer(SCSA(64).eval(), torch.zeros(1, 64, 16, 24)).total() / 1e6
    assert rows[0].split() == ['backbone.layer1.0.scsa', 'SCSA', 'plugins=', '64x16x24', '1,024', f'{counted:.2f}']
    assert 'attention: 16 x SCSA, 60,416 parameters' in out


def test_show_what_would_be_inserted(images, tool):
    plugin = ['--plugin', 'SE', '--plugin-after', 'stages.*.blocks.0', '--plugin-host', 'model.backbone']
    out = tool('analysis/show_plugins.py', SWIN, *plugin, '--shape', 64, 64).stdout
    assert len(re.findall(r'\bSCSA +after blocks\.\d', out)) == 5
    assert len(re.findall(r'\bSE +after blocks\.0', out)) == 4
    assert '4 x SE' in out and '6 x SCSA' in out

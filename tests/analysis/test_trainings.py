"""Resumable runs, with stand-ins for tools/train.py and tools/test.py that need no training."""

import json
import sys
from functools import partial

import pytest
import torch
from mmengine.config import Config

from scsa_mm.analysis import trainings
from scsa_mm.analysis.candidates import parse_candidates
from scsa_mm.analysis.figure import draw_metric
from scsa_mm.analysis.training_table import columns, training_rows, value_of
from scsa_mm.runtime.errors import UserError
from scsa_mm.runtime.processes import only_one, run_tool

CONFIG = """
model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18))
train_cfg = dict(by_epoch=True, max_epochs=2)
val_dataloader = dict(batch_size=1)
val_evaluator = dict(type='Accuracy')
val_cfg = dict()
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, out_dir='somewhere'))
randomness = dict(seed=7, deterministic=True)
work_dir = 'mine'
"""
TRAIN = """
import json, sys
from pathlib import Path
print('called', *sys.argv[1:])
work = Path(sys.argv[3])
step = 2 if '--resume' in sys.argv else 1
folder = work / f'{step}' / 'vis_data'
folder.mkdir(parents=True)
(work / f'epoch_{step}.pth').write_text('')
(work / 'last_checkpoint').write_text(str(work / f'epoch_{step}.pth'))
with (folder / 'scalars.json').open('w') as file:
    for record in (dict(lr=0.1, loss=2.0, step=step), {'accuracy/top1': 10.0 * step, 'time': 1.0, 'step': step}):
        file.write(json.dumps(record) + chr(10))
    file.write('{"accuracy/top')
if step == 1:
    sys.exit('error: the disk is full')
"""
TEST = """
import json, sys
from pathlib import Path
from mmengine.config import Config
cfg = Config.fromfile(sys.argv[1])
assert cfg.test_dataloader == cfg.val_dataloader and cfg.test_evaluator == cfg.val_evaluator
assert sys.argv[2].endswith('epoch_2.pth')
Path(sys.argv[sys.argv.index('--out') + 1]).write_text(json.dumps({'accuracy/top1': 33.0}))
"""


@pytest.fixture
def cfg():
    return trainings.prepare(Config.fromstring(CONFIG, '.py'), 'x.py')


@pytest.fixture
def tools(tmp_path):
    folder = tmp_path / 'tools'
    folder.mkdir()
    (folder / 'train.py').write_text(TRAIN)
    (folder / 'test.py').write_text(TEST)
    return folder


def plan(tmp_path, seeds=(0,), names=('none', 'SE')):
    return trainings.plan(tmp_path / 'out', parse_candidates(names), seeds)


def complete(run, cfg, tools, tmp_path):
    with open(tmp_path / 'lock', 'w') as lock:
        return trainings.complete(run, cfg, {}, tools, lock.fileno(), dict(device='it'), lambda line: None)


def test_config_of_a_run(cfg, tmp_path):
    none, se = plan(tmp_path, seeds=(3,))
    plain, with_se = (trainings.config_of_run(cfg, run, dict(stages=[2])) for run in (none, se))
    assert plain.model == cfg.model
    assert with_se.model.backbone == dict(
        type='scsa_mm.WithPlugins', module=cfg.model.backbone, plugins=[dict(stages=[2], cfg=dict(type='scsa_mm.SE'))]
    )
    assert plain.randomness == with_se.randomness == dict(seed=3, deterministic=True)
    assert cfg.randomness.seed == 7
    # Runs whose folders have the same name must not meet in one folder.
    assert 'work_dir' not in plain and 'out_dir' not in plain.default_hooks.checkpoint


def test_failed_then_completed(cfg, tools, tmp_path):
    run = plan(tmp_path)[1]
    assert complete(run, cfg, tools, tmp_path) == 'the disk is full'
    assert run.metrics() is None
    assert complete(run, cfg, tools, tmp_path) == ''
    assert run.metrics() == {'accuracy/top1': 20.0}
    assert run.machine() == dict(device='it')
    calls = [line for line in (run.folder / 'output.txt').read_text().splitlines() if line.startswith('called')]
    arguments = f'called {run.folder}/config.py --work-dir {run.folder}'
    assert calls == [arguments, arguments + ' --resume']


def test_evaluated_afterwards_if_the_last_evaluation_is_missing(cfg, tools, tmp_path):
    run = plan(tmp_path)[0]
    complete(run, cfg, tools, tmp_path)
    (tools / 'train.py').write_text(TRAIN.replace("'accuracy/top1': 10.0 * step, ", "'loss': 1.0, "))
    assert complete(run, cfg, tools, tmp_path) == ''
    assert run.metrics() == {'accuracy/top1': 33.0}


def test_first_checkpoint_cut_off(cfg, tools, tmp_path):
    run = plan(tmp_path)[0]
    run.folder.mkdir(parents=True)
    (run.folder / 'epoch_1.pth').write_text('half')
    (tools / 'train.py').write_text(
        'import sys; from pathlib import Path; print(list(Path(sys.argv[3]).glob("*.pth")))'
    )
    assert 'no checkpoint to go on from' in complete(run, cfg, tools, tmp_path)
    assert (run.folder / 'output.txt').read_text() == '[]\n'


@pytest.mark.parametrize(
    'program, reason',
    [
        ('pass', ''),
        ('print("error: this and that"); print("more"); raise SystemExit(2)', 'this and that'),
        ('raise ValueError("wrong number")', 'ValueError: wrong number'),
        ('raise SystemExit(3)', 'exit status 3'),
        ('import os; os.kill(os.getpid(), 9)', 'ended by SIGKILL'),
    ],
)
def test_reason_of_a_failure(program, reason, tmp_path):
    (tmp_path / 'tool.py').write_text(program)
    with open(tmp_path / 'lock', 'w') as lock:
        assert run_tool([str(tmp_path / 'tool.py')], lock.fileno(), lambda line: None) == reason


def test_iterations_and_epochs():
    assert trainings.last_step(Config(dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=400)))) == 400
    assert trainings.last_step(Config(dict(train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=12)))) == 12


def test_what_a_folder_holds(cfg, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    few, more = parse_candidates(['none', 'SE']), parse_candidates(['none', 'SE', 'ECA'])
    trainings.claim(out, cfg, {}, few, [0, 1])
    trainings.check_claim(out, cfg, {}, few, [1, 0])
    trainings.claim(out, cfg, {}, more, [0, 1, 2])
    with pytest.raises(UserError, match='compares --attention none SE ECA --seeds 0 1 2; name these and more'):
        trainings.check_claim(out, cfg, {}, few, [0, 1, 2])
    with pytest.raises(UserError, match='name these and more'):
        trainings.check_claim(out, cfg, {}, more, [0])
    with pytest.raises(UserError, match=r'another config \(where the attention stands\)'):
        trainings.check_claim(out, cfg, dict(stages=[4]), more, [0, 1, 2])
    cfg.train_cfg.max_epochs = 3
    with pytest.raises(UserError, match=r'another config \(train_cfg\); choose another --out'):
        trainings.check_claim(out, cfg, {}, more, [0, 1, 2])
    assert json.loads((out / 'comparison.json').read_text())['seeds'] == [0, 1, 2]
    (tmp_path / 'strange' / 'runs').mkdir(parents=True)
    with pytest.raises(UserError, match='holds something else'):
        trainings.check_claim(tmp_path / 'strange', cfg, {}, few, [0])


def test_refused_configs(cfg):
    for change, message in (
        (dict(model=dict(backbone=dict(plugins=[1]))), 'has plugins already.*model.backbone.plugins=None'),
        (dict(val_dataloader=None), 'no val_dataloader'),
    ):
        changed = Config(cfg.to_dict())
        changed.merge_from_dict(change)
        with pytest.raises(UserError, match=message):
            trainings.prepare(changed, 'x.py')
    with pytest.raises(UserError, match='no model.backbone'):
        trainings.prepare(Config(), 'x.py')


def test_one_at_a_time(tmp_path):
    hold = partial(only_one, tmp_path, 'comparison')
    with hold(), pytest.raises(UserError, match='another comparison is running'), hold():
        pass


def finished(runs, values):
    for run, value in zip(runs, values, strict=True):
        if value is not None:
            run.folder.mkdir(parents=True)
            (run.folder / 'result.json').write_text(json.dumps(dict(metrics=dict(AP=value), machine={})))


def test_rows(tmp_path):
    runs = plan(tmp_path, seeds=(0, 1, 2))
    # none 0.1, 0.2, 0.6; SE 0.2, failed, 0.9
    finished(runs, [0.1, 0.2, 0.2, None, 0.6, 0.9])
    problems = {'SE, seed 1': 'out of memory'}
    none, se = training_rows(runs, 'AP', problems, dict(SE=dict(attention='SE', parameters=5)))
    assert (none['mean'], none['runs']) == (pytest.approx(0.3), 3)
    assert none['std'] == pytest.approx(((0.2**2 + 0.1**2 + 0.3**2) / 2) ** 0.5)
    assert none['difference'] is None
    assert (se['mean'], se['runs'], se['parameters']) == (pytest.approx(0.55), 2, 5)
    assert se['difference'] == pytest.approx(0.2)  # of 0.1 with seed 0 and 0.3 with seed 2
    assert se['difference_std'] == pytest.approx(0.02**0.5)
    assert se['problem'] == 'seed 1: out of memory' and se['seed_1'] is None
    texts = {c.heading: c.text(se) for c in columns('AP', (0, 2)) if c.heading in ('AP', 'against none', 'seed 2')}
    assert texts == {'AP': '0.55 ± 0.495', 'against none': '+0.2 ± 0.141', 'seed 2': '0.9'}
    for drawn in ([none, se], []):
        draw_metric(drawn, (0, 1, 2), tmp_path / 'metric.png', 'Title', 'AP')
        assert (tmp_path / 'metric.png').stat().st_size > 3000


def test_one_run_has_no_spread_and_none_no_value(tmp_path):
    runs = plan(tmp_path)
    finished(runs, [0.5, None])
    none, se = training_rows(runs, 'AP', {})
    assert (none['mean'], none['std']) == (0.5, None)
    assert (se['mean'], se['difference']) == (None, None)


def test_unknown_metric(tmp_path):
    runs = plan(tmp_path)
    finished(runs, [0.5, None])
    assert value_of(runs[1], 'A') is None
    with pytest.raises(UserError, match='the evaluation of none, seed 0 has none; it has AP'):
        value_of(runs[0], 'APP')


def test_machine_is_described():
    from scsa_mm.analysis.machine import choose_device, describe_machine

    said = describe_machine(torch.device('cpu'))
    assert said['threads'] == str(torch.get_num_threads())
    assert f'torch {torch.__version__}' in said['versions'] and f'Python {sys.version_info[0]}.' in said['versions']
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match='finds no GPU'):
            choose_device('cuda')

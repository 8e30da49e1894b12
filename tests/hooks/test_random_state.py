"""A run that was stopped and resumed ends with the same weights, bit for bit."""

import random

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

import scsa_mm  # noqa: F401
from scsa_mm.hooks.random_state import KEY, capture, restore


class Noisy(Dataset):
    """Augments with all three generators, as mmcv's and mmdet's transforms do."""

    metainfo = dict(classes=('a',))

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.full((4,), index + random.random() + np.random.rand() + torch.rand(1).item())


class Net(BaseModel):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(4, 4)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, *inputs, mode='tensor'):
        loss = self.drop(self.fc(torch.stack(inputs))).square().mean()
        return dict(loss=loss) if mode == 'loss' else [loss]


class UsesRandomNumbers(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(random.random() + np.random.rand() + torch.rand(1).item())

    def compute_metrics(self, results):
        return dict(value=1.0)


def run(work_dir, until, by_epoch, hook=True, resume=False, seed=0, workers=0):
    """Train up to ``until`` epochs or iterations; returns the runner."""
    loop = dict(by_epoch=True, max_epochs=until) if by_epoch else dict(by_epoch=False, max_iters=until)
    loader = dict(batch_size=2, num_workers=workers, collate_fn=dict(type='pseudo_collate'), dataset=Noisy())
    sampler = dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True)
    torch.manual_seed(7)
    runner = Runner(
        Net(),
        str(work_dir),
        train_dataloader=dict(sampler=sampler, **loader),
        train_cfg=dict(val_interval=1 if by_epoch else 2, **loop),
        val_dataloader=dict(sampler=dict(type='DefaultSampler', shuffle=False), **loader),
        val_cfg=dict(),
        val_evaluator=Evaluator([UsesRandomNumbers()]),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.01)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1 if by_epoch else 2, by_epoch=by_epoch)),
        custom_hooks=[dict(type='scsa_mm.RandomStateHook')] if hook else None,
        randomness=dict(seed=seed),
        resume=resume,
        experiment_name=f'{work_dir.name}_{until}_{resume}',
        log_level='ERROR',
    )
    runner.train()
    return runner


def weights(runner):
    return torch.cat([p.detach().flatten() for p in runner.model.parameters()])


@pytest.mark.parametrize('by_epoch', [True, False], ids=['epochs', 'iterations'])
def test_resumed_equals_uninterrupted(tmp_path, by_epoch):
    whole = weights(run(tmp_path / 'whole', 6, by_epoch))
    run(tmp_path / 'parts', 3, by_epoch)
    # As if the run had been killed after the second epoch or iteration was saved.
    saved = tmp_path / 'parts' / ('epoch_2.pth' if by_epoch else 'iter_2.pth')
    (tmp_path / 'parts' / 'last_checkpoint').write_text(str(saved))
    resumed = weights(run(tmp_path / 'parts', 6, by_epoch, resume=True))
    assert torch.equal(whole, resumed)


@pytest.mark.parametrize('by_epoch', [True, False], ids=['epochs', 'iterations'])
def test_mmengine_alone_does_not_resume_exactly(tmp_path, by_epoch):
    """When this fails, mmengine saves random states itself and RandomStateHook can go."""
    whole = weights(run(tmp_path / 'whole', 6, by_epoch, hook=False))
    run(tmp_path / 'parts', 2, by_epoch, hook=False)
    resumed = weights(run(tmp_path / 'parts', 6, by_epoch, hook=False, resume=True))
    assert not torch.equal(whole, resumed)


def test_with_workers_that_start_anew_each_epoch(tmp_path):
    whole = weights(run(tmp_path / 'whole', 4, True, workers=1))
    run(tmp_path / 'parts', 2, True, workers=1)
    assert torch.equal(whole, weights(run(tmp_path / 'parts', 4, True, workers=1, resume=True)))


def test_the_checkpoint_loads_with_weights_only(tmp_path):
    run(tmp_path, 1, True)
    states = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)[KEY]
    assert len(states) == 1 and set(states[0]) >= {'python', 'numpy', 'torch'}


def test_capture_and_restore():
    def draw():
        return random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item()

    np.random.randn()  # leaves a cached second value behind, which is part of the state
    state = capture()
    first = draw()
    assert draw() != first
    restore(state)
    assert draw() == first


def test_another_number_of_processes_is_said(tmp_path, monkeypatch):
    run(tmp_path, 1, True)
    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    checkpoint[KEY] *= 2
    torch.save(checkpoint, tmp_path / 'epoch_1.pth')
    said = []
    monkeypatch.setattr('logging.Logger.warning', lambda self, text, *a, **k: said.append(str(text)))
    run(tmp_path, 2, True, resume=True)
    assert any('random states of 2 processes, and this run has 1' in text for text in said)

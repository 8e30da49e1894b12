"""The same training for each attention and seed: one work dir a run, gone on with where it stopped.

A folder of a comparison holds ``comparison.json`` (what is compared), ``config.py`` (the training without attention)
and ``runs/ATTENTION/seed_N``, each the work dir of a run with ``result.json`` when it is finished.
"""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config, ConfigDict

from ..runtime.checkpoints import find_resume
from ..runtime.errors import UserError
from ..runtime.processes import run_tool
from .candidates import Candidate
from .hosts import check_no_plugins, model_of
from .table import write_text

# What tools/train.py sets in a run.
SET_BY_TRAIN = ('work_dir', 'launcher', 'resume', 'load_from')


@dataclass(frozen=True)
class Run:
    """One training."""

    candidate: Candidate
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return f'{self.candidate.label}, seed {self.seed}'

    def metrics(self) -> dict[str, float] | None:
        """The last evaluation of the finished run; None while it is not finished."""
        return self._result().get('metrics')

    def machine(self) -> dict[str, str] | None:
        """What the finished run was made on; None while it is not finished."""
        return self._result().get('machine')

    def _result(self) -> dict:
        path = self.folder / 'result.json'
        return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}


def prepare(cfg: Config, name: str) -> Config:
    """The config of the training without attention and without what belongs to one run.

    Raises:
        UserError: if it has no backbone, has plugins already, or is not evaluated.
    """
    check_no_plugins(model_of(cfg, name), name)
    if not cfg.get('val_dataloader') or not cfg.get('val_evaluator'):
        raise UserError(f'{name} has no val_dataloader with val_evaluator, so there is no metric to compare')
    cfg = copy.deepcopy(cfg)
    for key in SET_BY_TRAIN:
        if key != 'load_from':  # weights that the user starts every run from
            cfg.pop(key, None)
    # All runs would save into the same folder.
    cfg.get('default_hooks', {}).get('checkpoint', {}).pop('out_dir', None)
    return cfg


def plan(out: Path, candidates: Sequence[Candidate], seeds: Sequence[int]) -> list[Run]:
    """All runs, seed by seed, so that an unfinished comparison has whole seeds."""
    return [Run(c, seed, out / 'runs' / c.folder / f'seed_{seed}') for seed in seeds for c in candidates]


def check_claim(out: Path, cfg: Config, plugin: dict, candidates: Sequence[Candidate], seeds: Sequence[int]) -> None:
    """Raise UserError if the folder holds another comparison, or something else; more attention and seeds are fine."""
    noted = out / 'comparison.json'
    if not noted.is_file():
        # Without the note of a comparison a config may be of a start that was cut off, runs may not.
        if (out / 'runs').exists() or (out.exists() and not out.is_dir()):
            raise UserError(f'{out} holds something else; choose another --out')
        return
    old = json.loads(noted.read_text(encoding='utf-8'))
    changed = _changed((out / 'config.py').read_text(encoding='utf-8'), cfg.pretty_text)
    if changed or old['plugin'] != plugin:
        what = ', '.join(changed) or 'where the attention stands'
        raise UserError(f'{out} holds a comparison with another config ({what}); choose another --out')
    if set(old['attention']) - {c.label for c in candidates} or set(old['seeds']) - set(seeds):
        raise UserError(
            f'{out} compares --attention {" ".join(old["attention"])} --seeds {" ".join(map(str, old["seeds"]))}; '
            'name these and more, or choose another --out'
        )


def claim(out: Path, cfg: Config, plugin: dict, candidates: Sequence[Candidate], seeds: Sequence[int]) -> None:
    """Note in the folder, which exists, what is compared there.

    Raises:
        UserError: see :func:`check_claim`.
    """
    check_claim(out, cfg, plugin, candidates, seeds)
    write_text(out / 'config.py', cfg.pretty_text)
    note = dict(plugin=plugin, attention=[c.label for c in candidates], seeds=list(seeds))
    write_text(out / 'comparison.json', json.dumps(note, indent=2) + '\n')


def _changed(old: str, new: str) -> list[str]:
    """Keys in which two configs differ."""
    if old == new:
        return []
    first, second = (Config.fromstring(text, '.py').to_dict() for text in (old, new))
    return sorted(k for k in first.keys() | second.keys() if first.get(k) != second.get(k))


def complete(
    run: Run, cfg: Config, plugin: dict, tools: Path, lock: int, machine: dict, on_line: Callable[[str], None]
) -> str:
    """Train a run to its end, from its last checkpoint if it has one, and note its last evaluation.

    Args:
        run: Not finished.
        cfg: Of the training without attention.
        plugin: Where the attention stands, without ``cfg``.
        tools: The folder of train.py and test.py.
        lock: Held by the processes.
        machine: Noted with the result.
        on_line: Told the lines of the log.

    Returns:
        Why it failed, in one line; empty if it did not.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    cfg = config_of_run(cfg, run, plugin)
    config = run.folder / 'config.py'
    cfg.dump(config)
    arguments = [str(config), '--work-dir', str(run.folder)]
    if (run.folder / 'last_checkpoint').is_file():
        arguments.append('--resume')
    else:
        for path in run.folder.glob('*.pth'):
            path.unlink()  # the run was killed while it wrote its first one
    problem = _logged(run, [str(tools / 'train.py'), *arguments], lock, on_line)
    if problem:
        return problem
    metrics = logged_metrics(run.folder, last_step(cfg))
    if metrics is None:
        # It was killed after its last checkpoint, or ended early: then nothing is evaluated when it is resumed.
        problem, metrics = _evaluate(run, cfg, tools, lock, on_line)
    if problem:
        return problem
    write_text(run.folder / 'result.json', json.dumps(dict(metrics=metrics, machine=machine), indent=2) + '\n')
    return ''


def config_of_run(cfg: Config, run: Run, plugin: dict) -> Config:
    """The config of the training with the attention and the seed of a run."""
    cfg = copy.deepcopy(cfg)
    cfg.randomness = dict(cfg.get('randomness') or {}, seed=run.seed)
    if run.candidate.cfg is not None:
        cfg.model.backbone = ConfigDict(
            type='scsa_mm.WithPlugins',
            module=cfg.model.backbone,
            plugins=[dict(plugin, cfg=run.candidate.cfg)],
        )
    return cfg


def last_step(cfg: Config) -> int:
    """The epoch or iteration that a training ends with, as mmengine logs it."""
    loop = cfg.train_cfg
    return int(loop.get('max_epochs') or loop.get('max_iters'))


def logged_metrics(folder: Path, step: int) -> dict[str, float] | None:
    """The evaluation that a run logged at its last step, over all its starts; None without one."""
    found = None
    for path in sorted(folder.glob('*/vis_data/scalars.json')):  # named by the time of the start
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # cut off by a kill
                continue
            if record.get('step') == step and not {'loss', 'lr'} & record.keys():
                found = {k: v for k, v in record.items() if k not in ('step', 'time', 'data_time')}
    return found


def _logged(run: Run, command: Sequence[str], lock: int, on_line: Callable[[str], None]) -> str:
    """Run a tool and add its output to that of the run; returns why it failed."""
    with (run.folder / 'output.txt').open('a', encoding='utf-8') as file:

        def note(line: str) -> None:
            file.write(line)
            on_line(line.strip())

        return run_tool(command, lock, note)


def _evaluate(run: Run, cfg: Config, tools: Path, lock: int, on_line: Callable[[str], None]) -> tuple[str, dict]:
    """Evaluate the last checkpoint on the validation data."""
    folder = run.folder / 'evaluation'
    folder.mkdir(exist_ok=True)
    cfg = copy.deepcopy(cfg)
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    cfg.test_cfg = dict(type='TestLoop')
    cfg.dump(folder / 'config.py')
    out = folder / 'metrics.json'
    try:
        checkpoint = find_resume(str(run.folder), 'auto')
    except UserError as error:
        return str(error), {}
    arguments = [str(folder / 'config.py'), checkpoint, '--work-dir', str(folder), '--out', str(out)]
    problem = _logged(run, [str(tools / 'test.py'), *arguments], lock, on_line)
    return problem, {} if problem else json.loads(out.read_text(encoding='utf-8'))

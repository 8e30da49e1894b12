#!/usr/bin/env python
"""The demo: draw a dataset, train Mask R-CNN with SCSA on it from scratch, evaluate, and show what came out.

    python tools/demo.py

Stopped at any point and started again, it goes on from the last checkpoint. `make demo` is the same.
"""

import argparse
import contextlib
import io
import json
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config

from scsa_mm.runtime.checkpoints import find_resume
from scsa_mm.runtime.config import CfgOptions, load_config
from scsa_mm.runtime.errors import UserError, one_line_errors
from scsa_mm.runtime.processes import only_one, run_tool

ROOT = Path(__file__).resolve().parent.parent
CONFIG = 'configs/demo/mask_rcnn_r50_scsa_shapes.py'
DATA = 'data/miniature_coco'
GOALS = {'coco/bbox_mAP_50': 0.75, 'coco/segm_mAP_50': 0.70}
NAMES = {'coco/bbox_mAP_50': 'bbox AP50', 'coco/segm_mAP_50': 'segm AP50'}
# Of the dumped config: what tools/train.py sets itself.
SET_BY_TRAIN = {'work_dir', 'launcher', 'resume', 'load_from', 'custom_hooks'}


class _KeepRaw(CfgOptions):
    """``--cfg-options``, parsed for this process and kept as they are for the tools that it starts."""

    def __call__(self, parser, namespace, values, option_string=None):
        namespace.raw_options = ['--cfg-options', *values]
        super().__call__(parser, namespace, values, option_string)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train, evaluate and show a small Mask R-CNN', allow_abbrev=False)
    parser.add_argument('--work-dir', type=Path, metavar='DIR', help='where results go (default: work_dirs/demo)')
    parser.add_argument('--cfg-options', nargs='+', action=_KeepRaw, metavar='KEY=VALUE', help='change the config')
    parser.set_defaults(raw_options=[])
    return parser.parse_args()


def tool(name: str, *arguments: str) -> list[str]:
    return [f'tools/{name}', *arguments]


def run(command: list[str], lock: int, on_line: Callable[[str], None]) -> None:
    """Run a tool to its end and hand on its output line by line.

    Raises:
        UserError: if it fails; with its own message if it has one, or else with the end of its output above.
    """
    tail: deque[str] = deque(maxlen=25)

    def note(line: str) -> None:
        tail.append(line.rstrip())
        on_line(line)

    problem = run_tool(command, lock, note)
    if problem:
        if not any(line.startswith('error: ') for line in tail):
            print('\n'.join(tail), file=sys.stderr)
        raise UserError(problem)


def check_same_run(work_dir: Path, cfg: Config) -> None:
    """Raise UserError if the work dir holds a run of another config."""
    dumped = work_dir / Path(CONFIG).name
    if not dumped.is_file():
        if any(work_dir.glob('*.pth')):
            raise UserError(f'{shown(work_dir)} holds the run of another config; choose another one with --work-dir')
        return
    old, new = Config.fromfile(dumped).to_dict(), cfg.to_dict()
    changed = sorted(k for k in (old.keys() | new.keys()) - SET_BY_TRAIN if old.get(k) != new.get(k))
    if changed:
        raise UserError(
            f'{shown(work_dir)} holds a run with other settings ({", ".join(changed)}); choose another one with '
            '--work-dir, or move it away'
        )


def last_checkpoint(work_dir: Path) -> Path | None:
    """The newest complete checkpoint; mmengine notes it in ``last_checkpoint`` when it is written."""
    if (work_dir / 'last_checkpoint').is_file():
        return Path(find_resume(str(work_dir), 'auto'))
    for path in work_dir.glob('epoch_*.pth'):
        path.unlink()  # the run was killed while it wrote its first one
    return None


def train(work_dir: Path, cfg: Config, options: list[str], lock: int) -> Path:
    """Train to the end, or do nothing if that was done; returns the last checkpoint."""
    epochs = cfg.train_cfg.max_epochs
    checkpoint = last_checkpoint(work_dir)
    if checkpoint is not None and checkpoint.name == f'epoch_{epochs}.pth':
        print(f'training: finished earlier, {shown(checkpoint)}')
        return checkpoint
    arguments = [CONFIG, '--work-dir', str(work_dir), *options]
    if checkpoint is not None:
        print(f'training: goes on from {shown(checkpoint)}')
        arguments.append('--resume')
    else:
        print(f'training: {epochs} epochs; the first step comes after the model is built')
    run(tool('train.py', *arguments), lock, lambda line: show_progress(line, epochs))
    return last_checkpoint(work_dir)


def show_progress(line: str, epochs: int) -> None:
    """Print what a person waits for out of a line of mmengine's log."""
    at = re.search(r'Epoch\((train|val)\)\s*\[\s*(\d+)]\[\s*(\d+)/(\d+)]', line)
    if at is None:
        return
    mode, epoch, step, steps = at.groups()
    values = dict(re.findall(r'([\w/]+): (\S+)', line))
    if mode == 'train' and 'loss' in values:
        left = values.get('eta', '?')
        print(
            f'training: epoch {epoch}/{epochs}, step {step:>2}/{steps}, loss {values["loss"]}, {left} left', flush=True
        )
    elif NAMES.keys() <= values.keys():
        found = ', '.join(f'{name} {float(values[key]):.2f}' for key, name in NAMES.items())
        print(f'held-out images after epoch {epoch}: {found}', flush=True)


def evaluate(work_dir: Path, checkpoint: Path, options: list[str], lock: int) -> dict[str, float]:
    """COCO's metrics on the held-out images."""
    print('evaluating on the held-out images', flush=True)
    out = work_dir / 'metrics.json'
    arguments = [CONFIG, str(checkpoint), '--work-dir', str(work_dir / 'test'), '--out', str(out), *options]
    run(tool('test.py', *arguments), lock, lambda line: None)
    return json.loads(out.read_text(encoding='utf-8'))


def draw(work_dir: Path, cfg: Config, checkpoint: Path) -> None:
    # Imported here, so that a mistake in the arguments shows without waiting for mmdet.
    from scsa_mm.visualization.curves import draw_curves
    from scsa_mm.visualization.predictions import draw_predictions

    print('drawing', flush=True)
    draw_curves(work_dir, work_dir / 'curves.png', 'Mask R-CNN R50 + SCSA on drawn shapes, from scratch', GOALS)
    with contextlib.redirect_stdout(io.StringIO()):  # mmengine and pycocotools tell what they load
        draw_predictions(cfg, checkpoint, work_dir / 'predictions.png')


def shown(path: Path) -> str:
    """A path as short as it can be said from the repository."""
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def report(work_dir: Path, checkpoint: Path, metrics: dict[str, float], seconds: float) -> bool:
    """Print what was reached and what to do next; returns whether both goals were."""
    print('\nMask R-CNN R50 + SCSA, trained from scratch, on held-out images:')
    reached = {key: metrics[key] >= goal for key, goal in GOALS.items()}
    for key, goal in GOALS.items():
        print(f'  {NAMES[key]}    {metrics[key]:.3f}   {"reached" if reached[key] else "MISSED"} (goal {goal:.2f})')
    print(f'  time         {int(seconds) // 60} min {int(seconds) % 60} s for this command')
    print(f'  checkpoint   {shown(checkpoint)}')
    logs = sorted(work_dir.glob('*/*.log'))
    print(f'  log          {shown(logs[-1]) if logs else "-"}')
    print(f'  curves       {shown(work_dir / "curves.png")}')
    print(f'  predictions  {shown(work_dir / "predictions.png")}')
    print('Next:')
    print('  train on COCO:     python tools/train.py configs/mask_rcnn_r50_scsa_coco.py')
    print('  on your own data:  README.md, section "Your own data"', flush=True)
    return all(reached.values())


def demo(args: argparse.Namespace) -> bool:
    start = time.monotonic()
    work_dir = args.work_dir.resolve() if args.work_dir else ROOT / 'work_dirs' / 'demo'
    os.chdir(ROOT)  # the config's paths are relative to the repository
    cfg = load_config(CONFIG, args.cfg_options)
    with only_one(work_dir, 'demo') as lock:
        check_same_run(work_dir, cfg)
        run(tool('make_miniature.py', '--dataset', 'coco', '--out', DATA), lock, lambda line: None)
        checkpoint = train(work_dir, cfg, args.raw_options, lock)
        metrics = evaluate(work_dir, checkpoint, args.raw_options, lock)
        draw(work_dir, cfg, checkpoint)
        return report(work_dir, checkpoint, metrics, time.monotonic() - start)


def main() -> None:
    # Ended by a signal as by Ctrl-C: the training is ended too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    args = parse_args()
    with one_line_errors():
        try:
            reached = demo(args)
        except KeyboardInterrupt:
            raise UserError('stopped; the same command goes on from the last checkpoint') from None
    sys.exit(0 if reached else 1)


if __name__ == '__main__':
    main()

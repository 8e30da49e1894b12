"""Reading a config: a path, or a name such as ``mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py``."""

import argparse
import difflib
import importlib.util
import os
import os.path as osp
from pathlib import Path

from mmengine.config import Config, DictAction

from ..compat import silence_pkg_resources
from .errors import UserError, one_line


class CfgOptions(DictAction):
    """``--cfg-options key=value ...``, with a usage message where mmengine's own action ends in a traceback."""

    def __call__(self, parser, namespace, values, option_string=None):
        for value in values:
            if '=' not in value:
                parser.error(f'--cfg-options takes key=value, got {value!r}')
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, ValueError) as error:
            parser.error(f'--cfg-options: {one_line(error)}')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that train.py and test.py both have."""
    parser.add_argument('--work-dir', help='where logs and results go (default: work_dirs/NAME_OF_THE_CONFIG)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='change values of the config, e.g. model.backbone.init_cfg=None train_dataloader.batch_size=4',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def find_config(name: str) -> str:
    """The file that ``name`` means.

    Raises:
        UserError: if there is none, with near matches.
    """
    if '::' in name:
        package, _, relative = name.partition('::')
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or spec.origin is None:
            raise UserError(f'config {name}: package {package!r} is not installed')
        folder = Path(spec.origin).parent / '.mim' / 'configs'
        path = folder / relative
        if path.is_file():
            return str(path)
    else:
        path = Path(name)
        if path.is_file():
            return name
        folder = Path('configs')
    known = [str(p.relative_to(folder)) for p in sorted(folder.rglob('*.py'))] if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, [osp.basename(k) for k in known], n=3)
    closest = [k for n in near for k in known if osp.basename(k) == n]
    names = [k if '::' not in name else f'{package}::{k}' for k in closest]
    if '::' not in name:
        names = [str(folder / k) for k in names]
    hint = f'; did you mean {", ".join(names[:3])}?' if names else ''
    raise UserError(f'config {name} does not exist{hint}')


def load_config(name: str, options: dict | None = None) -> Config:
    """Read a config and merge ``--cfg-options`` into it.

    Raises:
        UserError: if it does not exist, cannot be read, or an option does not fit it.
    """
    silence_pkg_resources()
    path = find_config(name)
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program of the user's: anything can go wrong in it
        raise UserError(f'config {name} cannot be read: {one_line(error)}') from error
    if options:
        try:
            cfg.merge_from_dict(options)
        except (KeyError, IndexError, TypeError, ValueError, AssertionError) as error:
            raise UserError(f'--cfg-options does not fit {name}: {one_line(error)}') from error
    return cfg


def config_of(args: argparse.Namespace) -> Config:
    """The config that the command line asks for, with its launcher and work dir.

    Raises:
        UserError: see :func:`load_config`.
    """
    # torch.distributed.launch passes the rank as an argument, torchrun in the environment, which mmengine reads.
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    set_work_dir(cfg, args.config, args.work_dir)
    return cfg


def set_work_dir(cfg: Config, config_name: str, work_dir: str | None) -> None:
    """The command line comes first, then the config, then the name of the config."""
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        stem = osp.splitext(osp.basename(config_name.replace('::', '/')))[0]
        cfg.work_dir = osp.join('work_dirs', stem)

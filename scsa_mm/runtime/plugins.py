"""Whether the plugins of a config exist and fit its backbone, before anything is built."""

import copy
import difflib
import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, Registry
from torch import nn

from .errors import UserError, one_line, source_line


def _hosts(node: object, path: str) -> Iterator[tuple[str, dict]]:
    """Every (path, dict) below ``node`` that has plugins, or is a model of this package."""
    if isinstance(node, dict):
        if node.get('plugins') or str(node.get('type')).startswith('scsa_mm.'):
            yield path, node
        for key, value in node.items():
            if key not in ('plugins', 'attention'):
                yield from _hosts(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _hosts(value, f'{path}[{i}]')


def _parts(model: dict, path: str) -> Iterator[tuple[str, dict]]:
    """The model and its backbone, neck and heads, also inside a wrapper."""
    if isinstance(model.get('type'), str):
        yield path, model
    for key, value in model.items():
        if isinstance(value, dict) and (key in ('backbone', 'neck', 'module', 'detector') or key.endswith('head')):
            yield from _parts(value, f'{path}.{key}')


def _known_names(registry: Registry) -> list[str]:
    names = []
    current: Registry | None = registry
    while current is not None:
        names += current.module_dict
        current = current.parent
    scsa = MODELS.children.get('scsa_mm')
    return names + [f'scsa_mm.{name}' for name in (scsa.module_dict if scsa else ())]


def _takes_plugins(cls: object) -> bool:
    if not inspect.isclass(cls):
        return 'plugins' in inspect.signature(cls).parameters
    return any('plugins' in inspect.signature(c.__init__).parameters for c in cls.__mro__[:-1])


def check_plugins(cfg: Config) -> None:
    """Raise UserError unless all plugins in ``cfg.model`` are known and their hosts can be built with them.

    The hosts are built once for this, which takes about a second for a ResNet.
    """
    scope = cfg.get('default_scope') or 'mmengine'
    with DefaultScope.overwrite_default_scope(scope), MODELS.switch_scope_and_registry(scope) as registry:
        for path, part in _parts(cfg.get('model') or {}, 'model'):
            _check_known(registry, path, 'model', part['type'])
        for path, host in _hosts(cfg.get('model'), 'model'):
            for plugin in host.get('plugins') or ():
                _check_type(registry, plugin, path)
            with _quiet():
                _check_host(registry, host, path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without log lines: what is built here is built again for the run."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _check_known(registry: Registry, path: str, what: str, name: object) -> None:
    if isinstance(name, str) and registry.get(name) is None:
        near = _near(registry, name)
        raise UserError(f'{path}: no {what} type {name!r} in the scope {registry.scope!r} or above{near}')


def _near(registry: Registry, name: str) -> str:
    known = _known_names(registry)
    # People misspell the case too; the scope may be missing or wrong.
    by_lower = {k.split('.')[-1].lower(): k for k in known if '.' in k} | {k.lower(): k for k in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3) or difflib.get_close_matches(
        name.split('.')[-1].lower(), by_lower, n=3
    )
    return f'; did you mean {", ".join(dict.fromkeys(by_lower[n] for n in near))}?' if near else ''


def _check_type(registry: Registry, plugin: dict, path: str) -> None:
    cfg = plugin.get('cfg') if isinstance(plugin, dict) else None
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise UserError(
            f"{path}.plugins: each plugin is dict(cfg=dict(type='SCSA'), stages=(...), position='after_conv2'), "
            f'got {plugin!r}'
        )
    _check_known(registry, f'{path}.plugins', 'plugin', cfg['type'])


def _check_host(registry: Registry, host: dict, path: str) -> None:
    name = host.get('type')
    cls = registry.get(name) if isinstance(name, str) else name
    if cls is None:  # in a part that only its host knows
        return
    if host.get('plugins') and not _takes_plugins(cls):
        able = sorted(n for n, c in registry.module_dict.items() if inspect.isclass(c) and _takes_plugins(c))
        raise UserError(
            f'{path}: {name} takes no plugins of its own{_way_in(name)}; those of {registry.scope} that take them: '
            f'{", ".join(able) or "none"}'
        )
    try:
        module = registry.build(copy.deepcopy(host))  # models write into their configs
    except (AssertionError, ImportError, KeyError, TypeError, ValueError) as error:
        why = one_line(error)
        if inspect.isclass(cls) and host.get('plugins') and not _has_own_form(host['plugins']):
            why = f'its own plugins= takes stages as one boolean a stage, and a position (got {why}){_way_in(name)}'
        elif 'plugins is None' in source_line(error):
            why = f'depth {host.get("depth")} is made of BasicBlock, which takes no plugins of its own{_way_in(name)}'
        raise UserError(f'{path} ({name}): {why}') from error
    if path == 'model.backbone':
        _check_widths(module, host, path)


def _check_widths(backbone: nn.Module, cfg: dict, path: str) -> None:
    """mmdet's Res2Net and mmseg's ResNeXt build plugins for another width than they feed them at after_conv2."""
    backbone.eval()
    try:
        with torch.no_grad():
            backbone(torch.zeros(1, cfg.get('in_channels', 3), 64, 64))
    except RuntimeError as error:
        if 'channels' not in str(error):
            return  # it wants something else than an image; the run itself will tell
        raise UserError(
            f'{path}: {cfg["type"]} makes plugins for another number of channels than it gives them at this position '
            f"({one_line(error)}); position='after_conv3' fits{_way_in(cfg['type'])}"
        ) from error


def _has_own_form(plugins: list) -> bool:
    """Whether the plugins are as mmdet's and mmseg's ResNets want them."""
    return all(
        {'position'} <= p.keys() <= {'cfg', 'position', 'stages'}
        and all(isinstance(s, bool) for s in p.get('stages', ()))
        for p in plugins
    )


def _way_in(name: str) -> str:
    return f"; dict(type='scsa_mm.WithPlugins', module=dict(type='{name}', ...), plugins=[...]) puts them into it"

"""Attention in any built model: ``add_plugins`` and the config type ``scsa_mm.WithPlugins``."""

import difflib
import logging
import re
from collections.abc import Sequence
from dataclasses import replace

from mmengine.logging import print_log
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn

from ..registry import MODELS, attention_names
from .blocks import Stage, find_stages
from .insertion import Insertion, insert, inserted, keep_start
from .places import Place, match, owner_of
from .trial import Trial

FORM = (
    "a plugin is dict(cfg=dict(type='scsa_mm.SCSA'), ...) with one of: stages=(2, 3, 4) and position='after_conv2' "
    "(both may be left out); before='PATTERN' or after='PATTERN' of module names; outputs=(0, 1) or 'all'"
)
KEYS = {'cfg', 'stages', 'position', 'before', 'after', 'outputs'}


def add_plugins(model: nn.Module, plugins: Sequence[dict]) -> nn.Module:
    """Put attention into a built backbone, neck, head or whole model, in place.

    The names of the model's own parameters stay, so its checkpoints load as before. In residual blocks the attention
    has the names that ``plugins=`` of MMDetection gives it (``layer1.0.scsa``).

    Args:
        model: Any module. Its channels and layouts are found in a trial run on a copy without data; where that is
            impossible, a layer that states its channels is believed.
        plugins: Each is a dict with ``cfg``, the config of an attention module without its ``in_channels`` (and with
            ``postfix`` where two of a kind meet), and one way to say where:

            - ``stages`` and ``position``, for residual backbones (BasicBlock, Bottleneck and inverted residuals, under
              any of the mm packages, timm or torchvision). ``stages`` is a tuple of stage numbers from 1, or one
              boolean a stage; all by default. ``position`` is ``'after_conv1'``, ``'after_conv2'`` or
              ``'after_conv3'``; by default the one before the block's last convolution, as in the SCSA paper.
            - ``before`` or ``after``: names of modules, as in ``model.named_modules()``; ``*`` stands for any part of
              a name, ``**`` also for dots: ``after='stages.*.blocks.*'``.
            - ``outputs``: entries of the tuple that the model, or the module of ``after``, gives, from 0; or ``'all'``.

    Returns:
        ``model``.

    Raises:
        TypeError: if a plugin is not a dict as above.
        ValueError: if a place does not exist, holds the same plugin already, or gives what no attention can take, or
            the attention refuses its channels. Nothing is inserted then.
    """
    insertions = plan_plugins(model, plugins)
    passages = [insert(model, insertion) for insertion in insertions]
    try:
        _check_acting(model, insertions)
    except ValueError:
        for passage in passages:
            passage.remove()
        raise
    keep_start(model)
    _tell_frozen(model, insertions)
    _tell_unseen(insertions)
    return model


@MODELS.register_module(name='WithPlugins')
def build_with_plugins(module: dict | nn.Module, plugins: Sequence[dict] | None, **options: object) -> nn.Module:
    """``dict(type='scsa_mm.WithPlugins', module=dict(type='SwinTransformer', ...), plugins=[...])`` in a config.

    It builds ``module`` in the current scope and returns it with the attention in it (see :func:`add_plugins`); there
    is no wrapper, so the names of its parameters stay. ``plugins=None`` gives the module as it is, for a baseline.
    Other arguments are those of the module: models write some into the config of their parts (``pretrained``,
    ``train_cfg``) before these are built.
    """
    if isinstance(module, dict):
        module = MMENGINE_MODELS.build({**module, **options})
    elif options:
        raise TypeError(f'WithPlugins of a module that is built takes no {", ".join(options)}')
    return module if plugins is None else add_plugins(module, plugins)


def plan_plugins(model: nn.Module, plugins: Sequence[dict], size: tuple[int, int] | None = None) -> list[Insertion]:
    """What :func:`add_plugins` would insert, in order; the model is not changed.

    Args:
        size: Image height and width for which the shapes are given.

    Raises:
        TypeError: see :func:`add_plugins`.
        ValueError: see :func:`add_plugins`.
    """
    if isinstance(plugins, dict) or not isinstance(plugins, Sequence):
        raise TypeError(f'plugins is a list of dicts, got {plugins!r}; {FORM}')
    requests = [(plugin, _targets(model, plugin)) for plugin in plugins]
    trial = Trial(model, [place.target for _, places in requests for place in places], size)
    insertions: dict[str, Insertion] = {}
    for plugin, places in requests:
        for place in _with_outputs(places, plugin.get('outputs'), trial):
            insertion = _insertion(model, plugin, place, trial)
            _check_free(model, insertion, insertions)
            insertions[insertion.path] = insertion
    return list(insertions.values())


def _targets(model: nn.Module, plugin: dict) -> list[Place]:
    """The places of a plugin, still without the entries of a tuple."""
    if not isinstance(plugin, dict) or not isinstance(plugin.get('cfg'), dict) or 'type' not in plugin['cfg']:
        raise TypeError(f'{FORM}; got {plugin!r}')
    unknown = plugin.keys() - KEYS
    by_name = [key for key in ('before', 'after') if key in plugin]
    by_block = [key for key in ('stages', 'position') if key in plugin]
    if (
        unknown
        or len(by_name) > 1
        or (by_block and (by_name or 'outputs' in plugin))
        or {'before', 'outputs'} <= plugin.keys()
    ):
        raise ValueError(f'{FORM}; got {", ".join(sorted(plugin.keys() - {"cfg"}))}')
    if by_name:
        return _named_places(model, by_name[0], plugin[by_name[0]])
    if 'outputs' in plugin:
        return [Place('', 'after')]
    return _block_places(model, plugin.get('stages'), plugin.get('position'))


def _named_places(model: nn.Module, when: str, pattern: str) -> list[Place]:
    ours = tuple(f'{path}.' for path in inserted(model))
    paths = [path for path, _ in model.named_modules() if path and not f'{path}.'.startswith(ours)]
    if not isinstance(pattern, str):
        raise TypeError(f'{when} is a pattern of module names, got {pattern!r}')
    found = match(pattern, paths)
    if not found and pattern and pattern in dict(model.named_modules(remove_duplicate=False)):
        found = [pattern]  # a module that has another name too
    if not found:
        near = difflib.get_close_matches(pattern, paths, n=5)
        top = [path for path in paths if path.count('.') < 2]
        choice = near or top[:40] + ['...'] * (len(top) > 40)
        raise ValueError(
            f'{when}={pattern!r} names no module of {type(model).__name__} (* stands for any part of a name between '
            f'dots, ** also for dots); there are {", ".join(choice)}'
        )
    for path in found:
        if isinstance(model.get_submodule(path), (nn.ModuleList, nn.ModuleDict)):
            raise ValueError(
                f'{when}={pattern!r}: {path} is a list of modules, not a layer; name its entries: {path}.*'
            )
    return [Place(path, when) for path in found]


def _block_places(model: nn.Module, stages: Sequence | None, position: str | None) -> list[Place]:
    found = find_stages(model)
    if not found:
        raise ValueError(
            f'{type(model).__name__} has no residual blocks (conv1, conv2 ...), so stages and position mean nothing '
            "in it; say before='PATTERN', after='PATTERN' or outputs='all'"
        )
    places = []
    for stage in _chosen(found, stages):
        for block in stage.blocks:
            name = block.default if position is None else position
            if name not in block.positions:
                kind = type(model.get_submodule(block.path)).__name__
                raise ValueError(
                    f'position={name!r}: block {block.path} ({kind}) has {", ".join(map(repr, block.positions))}'
                )
            places.append(block.positions[name])
    return places


def _chosen(found: list[Stage], stages: Sequence | None) -> list[Stage]:
    if stages is None:
        return found
    there = ', '.join(f'{i}: {stage.path}' for i, stage in enumerate(found, 1))
    rule = f'stages is a tuple of stage numbers or of one boolean a stage; there are {len(found)} ({there})'
    if isinstance(stages, (str, int)) or not isinstance(stages, Sequence) or not stages:
        raise ValueError(f'{rule}; got {stages!r}')
    if all(isinstance(s, bool) for s in stages):
        if len(stages) != len(found) or not any(stages):
            raise ValueError(f'{rule}; got {tuple(stages)}')
        return [stage for stage, wanted in zip(found, stages, strict=True) if wanted]
    if not all(isinstance(s, int) and not isinstance(s, bool) and 1 <= s <= len(found) for s in stages):
        raise ValueError(f'{rule}; got {tuple(stages)}')
    return [stage for i, stage in enumerate(found, 1) if i in stages]


def _with_outputs(places: list[Place], outputs: Sequence[int] | str | None, trial: Trial) -> list[Place]:
    if outputs is None:
        return places
    expanded = []
    for place in places:
        count = trial.outputs(place.target)
        there = range(count or 1)
        wanted = there if outputs == 'all' else outputs
        if (
            not isinstance(wanted, Sequence)
            or not wanted
            or not all(isinstance(i, int) and not isinstance(i, bool) and i in there for i in wanted)
        ):
            raise ValueError(
                f'outputs={outputs!r}: {place.target or "the whole module"} gives {len(there)} output(s); say '
                f"'all' or a tuple of {', '.join(map(str, there))}"
            )
        expanded += [replace(place, output=None if count is None else i) for i in wanted]
    return expanded


def _insertion(model: nn.Module, plugin: dict, place: Place, trial: Trial) -> Insertion:
    owner = owner_of(model, place)
    _check_called(model, place)
    flow = trial.flow(place)
    cfg = dict(plugin['cfg'])
    if 'in_channels' in cfg:
        raise ValueError(f'{place}: in_channels are found by the host; leave them out of cfg={plugin["cfg"]}')
    postfix = str(cfg.pop('postfix', ''))
    try:
        attention = MMENGINE_MODELS.build(dict(cfg, in_channels=flow.in_channels))
    except KeyError as error:
        known = ', '.join(f'scsa_mm.{name}' for name in attention_names())
        raise ValueError(f'no plugin type {cfg["type"]!r}; there are {known}, and those of mmcv') from error
    except (TypeError, ValueError) as error:
        raise type(error)(f'{place} ({flow.in_channels} channels): {error}') from error
    name = _abbreviation(type(attention)) + postfix
    if 'before' in plugin or 'after' in plugin or 'outputs' in plugin:
        relative = place.target.removeprefix(owner).removeprefix('.')
        parts = [name, place.when, relative.replace('.', '_')] if relative else [name, 'output']
        name = '_'.join(parts if place.output is None else [*parts, str(place.output)])
    sample = next(model.parameters(), None)
    if sample is not None:
        attention.to(sample.device, sample.dtype)
    return Insertion(owner, name, place, flow, attention.train(model.training))


def _abbreviation(cls: type) -> str:
    """The name of a plugin in its host, as mmcv makes it."""
    return getattr(cls, '_abbr_', None) or re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', cls.__name__).lower()


def _check_called(model: nn.Module, place: Place) -> None:
    """mmseg calls its decode heads by ``forward``, past every hook."""
    head = model.get_submodule(place.target)
    if any(cls.__name__ == 'BaseDecodeHead' for cls in type(head).__mro__):
        raise ValueError(
            f'{place}: attention around a decode head of mmseg would never act; name a layer in it, such as '
            f'{place.target + "." if place.target else ""}conv_seg'
        )


def _check_free(model: nn.Module, insertion: Insertion, planned: dict[str, Insertion]) -> None:
    owner = model.get_submodule(insertion.owner)
    if insertion.path in planned or hasattr(owner, insertion.name):
        what = 'a plugin' if insertion.path in planned or insertion.name in owner._modules else 'something else called'
        raise ValueError(
            f'{insertion.place}: {insertion.owner or "the model"} has {what} {insertion.name!r} already; to have both, '
            "give one another name: cfg=dict(..., postfix='_2')"
        )


def _check_acting(model: nn.Module, insertions: list[Insertion]) -> None:
    """Each attention is called as often as what it stands at: not by a module that runs whatever children it has."""
    seen = [i for i in insertions if i.flow.shape is not None]
    trial = Trial(model, [path for i in seen for path in (i.path, i.place.target)])
    for i in seen:
        calls, wanted = trial.calls(i.path), trial.calls(i.place.target)
        if calls != wanted:
            owner = type(model.get_submodule(i.owner)).__name__
            raise ValueError(
                f'{i.place}: the attention is called {calls} times where it should be {wanted}: {owner}, which holds '
                'it, seems to run all its children; choose a place in another module'
            )


def _tell_frozen(model: nn.Module, insertions: list[Insertion]) -> None:
    """Warn about attention that its host will not train: many freeze their first stages when they are set to train."""
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(p, p.requires_grad) for p in model.parameters()]
    model.train(True)
    frozen = [i.path for i in insertions if any(not p.requires_grad for p in i.attention.parameters())]
    for module, training in modes:
        module.training = training
    for parameter, requires_grad in gradients:
        parameter.requires_grad_(requires_grad)
    if frozen:
        _warn(
            f'{len(frozen)} of {len(insertions)} inserted modules are frozen by {type(model).__name__} and stay '
            f'as they start, e.g. {frozen[0]}; leave their stages out or lower frozen_stages'
        )


def _tell_unseen(insertions: list[Insertion]) -> None:
    unseen = [str(i.place) for i in insertions if i.flow.shape is None]
    if unseen:
        _warn(
            f'the trial run did not reach {len(unseen)} of {len(insertions)} places, e.g. {unseen[0]}: their channels '
            'are as the layers say; see that they are called at all'
        )


def _warn(text: str) -> None:
    print_log(f'scsa_mm: {text}', logger='current', level=logging.WARNING)

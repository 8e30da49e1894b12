"""Names of parameters in checkpoints of the released SCSA code, to those of scsa_mm and back.

Source of the names: https://github.com/HZAI-ZJNU/SCSA (Apache-2.0), ``resnet_scsa.py`` and ``mobilenet_v2_scsa.py``.
Its residual blocks hold the attention as ``layer1.0.attn``; its inverted residuals as an element of the sequence
``layer1.0.conv``, which moves the linear projection to the next number. Here it is ``layer1.0.scsa`` in both.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

CONVS = ('local_dwc', 'global_dwc_s', 'global_dwc_m', 'global_dwc_l')
ALWAYS = {
    *(f'{name}.{kind}' for name in (*CONVS, 'norm_h', 'norm_w', 'norm') for kind in ('weight', 'bias')),
    *(f'{name}.weight' for name in 'qkv'),
}
WITH_QKV_BIAS = ALWAYS | {f'{name}.bias' for name in 'qkv'}

# A block, under any prefix (backbone., module.backbone.), and what is in it.
IN_BLOCK = re.compile(r'((?:.*\.)?layer\d+\.\d+)\.(.+)')
IN_SEQUENCE = re.compile(r'conv\.(\d+)\.')
RESIDUAL_CONV = re.compile(r'conv\d\.weight')
OF_US_OR_RELEASED = re.compile(r'scsa|attn|conv\.\d+')
# By parameters that no other module has (with underscores in weights that mmcv averaged), or by its name in a block.
BY_PARAMETER = re.compile(rf'(.+?)[._](?:{"|".join(CONVS)})[._]\w+')
BY_NAME = re.compile(r'((?:.*\.)?layer\d+\.\d+\.(?:scsa|attn))\..+')
BACKBONE = re.compile(r'(?:conv1|bn1|stem|conv2|layer\d+)\.')
STATE_DICTS = ('state_dict', 'ema_state_dict')


@dataclass(frozen=True)
class Conversion:
    """A state dict with new names, and what became of the old ones.

    Args:
        state_dict: The same tensors in the same order, in a dict of the same type.
        modules: Number of attention modules.
        renamed: Number of entries that are theirs.
        renumbered: Number of entries of the projections behind them that have another number now.
        kept: Number of entries of the backbone that keep their names.
        outside: Entries that are no part of the backbone, such as a head's; they keep their names too.
    """

    state_dict: dict
    modules: int
    renamed: int
    renumbered: int
    kept: int
    outside: tuple[str, ...]


def from_released(state_dict: dict) -> Conversion:
    """From the names of the released ResNetSCSA or MobileNetV2SCSA to those of scsa_mm; see :func:`to_released`."""
    return _convert(state_dict, to_released=False)


def to_released(state_dict: dict) -> Conversion:
    """From the names of scsa_mm to those of the released code: the exact inverse of :func:`from_released`.

    Args:
        state_dict: Of a ResNet or MobileNetV2 with SCSA in every block, alone or in a larger model, under any prefix.
            It must stand before the last convolution. Other positions are refused where the width shows them, and it
            does not for ``after_conv1`` of Bottleneck and ``after_conv2`` of BasicBlock.

    Raises:
        ValueError: if there is no attention, it has these names already, a module is incomplete, or one stands where
            the other side has none; the message is one line.
    """
    return _convert(state_dict, to_released=True)


def convert_checkpoint(checkpoint: dict, reverse: bool = False) -> tuple[dict, list[str]]:
    """Convert a checkpoint of mmengine, with its averaged weights if it has them, or a bare state dict.

    Args:
        checkpoint: As loaded; it is not changed.
        reverse: To the released names instead of from them.

    Returns:
        The converted checkpoint, and lines that say what was done. The optimizer's state is left out: it numbers the
        parameters in the order of the model, which is another one here. Other entries are kept as they are.

    Raises:
        ValueError: see :func:`to_released`; also where ``reverse`` would give up ``identity_init=True``.
    """
    convert = to_released if reverse else from_released
    if 'state_dict' not in checkpoint:
        found = convert(checkpoint)
        return found.state_dict, _lines('state dict', found)
    meta = checkpoint.get('meta')
    if reverse and isinstance(meta, dict) and re.search(r'identity_init\s*=\s*True', str(meta.get('cfg', ''))):
        raise ValueError(
            'it was trained with identity_init=True, which the released code does not have: it would compute '
            'something else from these weights'
        )
    converted, lines, kept = {}, [], []
    for name, entry in checkpoint.items():
        if name in STATE_DICTS:
            if not isinstance(entry, dict):
                raise ValueError(f'its {name} is a {type(entry).__name__}, not a dict of weights')
            try:
                found = convert(entry)
            except ValueError as error:
                raise ValueError(f'its {name}: {error}') from error
            converted[name] = found.state_dict
            lines += _lines(name, found)
        elif name != 'optimizer':
            converted[name] = entry
            kept.append(str(name))
    if kept:
        lines.append(f'kept as they are: {", ".join(kept)}')
    if 'optimizer' in checkpoint:
        lines.append(
            'left out: optimizer, which numbers parameters in an order that changes; start from these weights with '
            'load_from, --resume cannot go on from them'
        )
    return converted, lines


def _lines(name: str, found: Conversion) -> list[str]:
    lines = [
        f'{name}: {found.renamed} tensors of {found.modules} attention modules renamed, {found.renumbered} of '
        f'projections renumbered, {found.kept} others of the backbone kept'
    ]
    if found.outside:
        lines.append(f'{name}: {len(found.outside)} outside the backbone kept: {_some(found.outside)}')
    return lines


def _some(names: Iterable[str], most: int = 6) -> str:
    names = list(names)
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


def _convert(state_dict: dict, to_released: bool) -> Conversion:
    names = [name for name in state_dict if isinstance(name, str)]
    modules = _attention_modules(names)
    if not modules:
        raise ValueError(f'it holds no SCSA attention; it holds e.g. {_some(names, 3) or "no names at all"}')
    blocks = _blocks(names)
    attention: dict[str, str] = {}
    projections: dict[str, str] = {}
    for path, parameters in modules.items():
        block = _block_of(path, to_released)
        _check_complete(path, parameters)
        old, new, projection = _places(block, blocks[block], to_released)
        if path != old:
            raise ValueError(f'{path} looks like SCSA and cannot be placed: in this block it would be {old}')
        attention[old] = new
        projections |= projection
        _check_channels(path, state_dict, next(iter(projection)))
    prefixes = {_prefix(path) for path in attention}
    _check_every_block(blocks, attention, prefixes)

    moves = attention | {old: new for old, new in projections.items() if old != new}
    renamed = type(state_dict)((_moved(name, moves), value) for name, value in state_dict.items())
    assert len(renamed) == len(state_dict), 'two names became one'
    if hasattr(state_dict, '_metadata'):  # versions of modules, under their paths
        metadata = state_dict._metadata
        renamed._metadata = type(metadata)((_moved(path, moves), value) for path, value in metadata.items())

    touched = sum(_moved(name, moves) != name for name in names)
    count = sum(map(len, modules.values()))
    outside = tuple(n for n in names if not any(n.startswith(p) and BACKBONE.match(n, len(p)) for p in prefixes))
    return Conversion(renamed, len(modules), count, touched - count, len(names) - touched - len(outside), outside)


def _attention_modules(names: list[str]) -> dict[str, set[str]]:
    """Paths of what looks like SCSA, each with the names of its parameters."""
    modules: dict[str, set[str]] = {}
    for name in names:
        if found := BY_PARAMETER.fullmatch(name) or BY_NAME.fullmatch(name):
            modules.setdefault(found[1], set())
    for name in names:
        for path in _parents(name):
            if path in modules:
                modules[path].add(name.removeprefix(f'{path}.'))
    return modules


def _parents(name: str) -> list[str]:
    parts = name.split('.')
    return ['.'.join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def _blocks(names: Iterable[str]) -> dict[str, set[str]]:
    """Paths of the blocks, each with the names in it."""
    blocks: dict[str, set[str]] = {}
    for name in names:
        if found := IN_BLOCK.fullmatch(name):
            blocks.setdefault(found[1], set()).add(found[2])
    return blocks


def _prefix(path: str) -> str:
    return path[: path.rindex('layer')]


def _block_of(path: str, to_released: bool) -> str:
    found = IN_BLOCK.fullmatch(path)
    if not found or not OF_US_OR_RELEASED.fullmatch(found[2]):
        raise ValueError(f'{path} looks like SCSA and cannot be placed: expected layer1.0.scsa, .attn or .conv.1')
    if (found[2] == 'scsa') != to_released:
        side, way = ('the released code', 'leave --reverse out') if to_released else ('scsa_mm', 'use --reverse')
        raise ValueError(f'{path} has the name that {side} gives it already; {way} for the other direction')
    return found[1]


def _places(block: str, inside: set[str], to_released: bool) -> tuple[str, str, dict[str, str]]:
    """Old and new path of the attention, and of the convolution behind it."""
    numbers = sorted({int(m[1]) for name in inside if (m := IN_SEQUENCE.match(name))})
    if numbers:
        last = numbers[-1]
        ours, released = f'{block}.scsa', f'{block}.conv.{last if to_released else last - 1}'
        projection = {f'{block}.conv.{last}': f'{block}.conv.{last + 1 if to_released else last - 1}'}
    else:
        convs = sorted(name for name in inside if RESIDUAL_CONV.fullmatch(name))
        if not convs:
            raise ValueError(
                f'{block} has SCSA and is no block of ResNet (conv1, conv2) or MobileNetV2 (conv.0, conv.1)'
            )
        ours, released = f'{block}.scsa', f'{block}.attn'
        conv = f'{block}.{convs[-1].removesuffix(".weight")}'
        projection = {conv: conv}
    return (ours, released, projection) if to_released else (released, ours, projection)


def _check_complete(path: str, parameters: set[str]) -> None:
    wanted = WITH_QKV_BIAS if parameters & (WITH_QKV_BIAS - ALWAYS) else ALWAYS
    for what, names in (('lacks', wanted - parameters), ('has besides', parameters - wanted)):
        if names:
            raise ValueError(f'{path} is no whole SCSA: it {what} {_some(sorted(names))}')


def _check_channels(path: str, state_dict: dict, conv: str) -> None:
    """The attention must fit before the block's last convolution; a plugin may be behind that one instead."""
    channels = _size(state_dict.get(f'{path}.norm.weight'), 0, 1)
    taken = _size(state_dict.get(f'{conv}.weight', state_dict.get(f'{conv}.conv.weight')), 1, 4)
    if channels is None or channels != taken:
        raise ValueError(
            f'{path} looks like SCSA and cannot be placed: it has {channels or "no"} channels, and {conv} behind it '
            f'takes {taken or "none"}'
        )


def _size(weight: object, axis: int, axes: int) -> int | None:
    return weight.shape[axis] if isinstance(weight, Tensor) and weight.ndim == axes else None


def _check_every_block(blocks: Iterable[str], attention: dict[str, str], prefixes: set[str]) -> None:
    having = {IN_BLOCK.fullmatch(path)[1] for path in attention}
    bare = [block for block in blocks if block not in having and _prefix(block) in prefixes]
    if bare:
        raise ValueError(f'the released backbones have SCSA in every block, and there is none in {_some(bare)}')


def _moved(name: str, moves: dict[str, str]) -> str:
    for path in (name, *_parents(name)) if isinstance(name, str) else ():
        if path in moves:
            return moves[path] + name.removeprefix(path)
    return name

"""Residual blocks and stages of a built model: where ``position='after_conv2'`` and ``stages`` are in it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from .places import CONTAINERS, Place

NUMBERED = re.compile(r'conv(\d)$')
# Expansion, depthwise and projection of an inverted residual, in the words of MMPretrain and of timm; a first one may
# be without expansion.
INVERTED = (
    ('expand_conv', 'depthwise_conv', 'linear_conv'),
    ('conv_pw', 'conv_dw', 'conv_pwl'),
    (None, 'conv_dw', 'conv_pw'),
)
TIMM_NORMS = {'conv_pwl': 'bn3', 'conv_pw': 'bn2'}


@dataclass(frozen=True)
class Block:
    """A residual block: its path, and the place of each position in it."""

    path: str
    positions: dict[str, Place]

    @property
    def default(self) -> str:
        """Before the last convolution, as in the SCSA paper: after_conv1 of BasicBlock, after_conv2 of Bottleneck."""
        return [name for name, place in self.positions.items() if place.when == 'before'][-1]


@dataclass(frozen=True)
class Stage:
    path: str
    blocks: tuple[Block, ...]


def find_stages(model: nn.Module) -> list[Stage]:
    """The stages of a backbone, first to last: its children (entries, where a child is a ModuleList) with blocks.

    A wrapper around the backbone (a detector, TIMMBackbone) is looked through. Empty if there are no residual blocks.
    """
    prefix = ''
    if isinstance(getattr(model, 'backbone', None), nn.Module):
        prefix, model = 'backbone', model.backbone
    while True:
        stages = [
            Stage(path, blocks) for path, child in _children(model, prefix) if (blocks := tuple(_blocks(child, path)))
        ]
        if len(stages) != 1:
            return stages
        inside = model.get_submodule(stages[0].path.removeprefix(prefix).removeprefix('.'))
        # timm has all stages in one Sequential; elsewhere a Sequential is a stage, and its entries are blocks.
        holds_stages = all(isinstance(child, CONTAINERS) for child in inside.children())
        if (isinstance(inside, nn.Sequential) and not holds_stages) or len(stages[0].blocks) == 1:
            return stages
        prefix, model = stages[0].path, inside


def _join(*parts: str) -> str:
    return '.'.join(part for part in parts if part)


def _children(model: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in model.named_children():
        path = _join(prefix, name)
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield from _children(child, path)
        else:
            yield path, child


def _blocks(module: nn.Module, path: str) -> Iterator[Block]:
    positions = _positions(module, path)
    if positions:
        yield Block(path, positions)
        return
    for name, child in module.named_children():
        yield from _blocks(child, _join(path, name))


def _positions(block: nn.Module, path: str) -> dict[str, Place]:
    """after_conv1, after_conv2 ...: before the next convolution, or after the last one with its norm."""
    convs = _convolutions(block)
    if len(convs) < 2 or not _fit_together(block, convs):
        return {}
    numbers = sorted(convs)
    positions = {f'after_conv{n - 1}': Place(_join(path, convs[n]), 'before') for n in numbers[1:]}
    positions[f'after_conv{numbers[-1]}'] = Place(_join(path, _with_norm(block, convs[numbers[-1]])), 'after')
    return positions


def _convolutions(block: nn.Module) -> dict[int, str]:
    """The numbered convolutions of a block; those of an inverted residual are 1 (often missing), 2 and 3."""
    children = dict(block.named_children())
    numbered = {int(m[1]): name for name in children if (m := NUMBERED.match(name))}
    if 1 in numbered:
        return numbered
    for names in INVERTED:
        if set(names[1:]) <= children.keys():
            return {i: name for i, name in enumerate(names, 1) if name in children}
    inner = children.get('conv')
    if type(block).__name__ == 'InvertedResidual' and isinstance(inner, nn.Sequential):  # MobileNetV2
        layers = [f'conv.{i}' for i, m in enumerate(inner) if any(isinstance(c, nn.Conv2d) for c in m.modules())]
        return dict(enumerate(layers, 4 - len(layers)))
    return {}


def _fit_together(block: nn.Module, convs: dict[int, str]) -> bool:
    """Whether each convolution takes what the one before gives, as in a residual block (and not in pyramid pooling)."""
    layers = [block.get_submodule(convs[n]) for n in sorted(convs)]
    widths = [(getattr(layer, 'in_channels', None), getattr(layer, 'out_channels', None)) for layer in layers]
    pairs = [(out, into) for (_, out), (into, _) in zip(widths, widths[1:], strict=False)]
    return all(None in pair or pair[0] == pair[1] for pair in pairs)


def _with_norm(block: nn.Module, conv: str) -> str:
    """The norm that follows the last convolution of a block, or the convolution if none does.

    In blocks that start with a norm (pre-activation) the norm of the same number comes before, with other channels.
    """
    parent, _, last = conv.rpartition('.')
    if parent:  # in a Sequential: the norm, if any, is its end
        return f'{parent}.{len(block.get_submodule(parent)) - 1}'
    names = dict(block.named_children())
    number = NUMBERED.match(last)
    norm = getattr(block, f'norm{number[1]}', None) or names.get(f'bn{number[1]}') if number else None
    name = next((name for name, child in names.items() if child is norm), None) if number else TIMM_NORMS.get(last)
    order = list(names)
    return name if name in names and order.index(name) > order.index(conv) else conv

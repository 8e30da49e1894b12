"""What SCSA is computed from beside the feature map."""

import functools
from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from ..arithmetic import Affine


class Weights(NamedTuple):
    """Parameters of SCSA for C channels, flat, as autograd and the GPU's host want them.

    ``weight0`` to ``bias3`` are depthwise 1-D convolutions, one per quarter of the channels: weights (C/4, 1, k) with
    odd k, and biases (C/4,). ``norm_h`` is the GroupNorm of the row strips with four groups, (C,) each; ``norm_w`` that
    of the column strips; ``norm`` that of the pooled map with one group. ``q`` is the scale of the queries per channel,
    (C, 1, 1, 1), with or without bias (C,); ``k`` and ``v`` likewise.
    """

    weight0: Tensor
    bias0: Tensor
    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor
    weight3: Tensor
    bias3: Tensor
    norm_h: Tensor
    norm_h_bias: Tensor
    norm_w: Tensor
    norm_w_bias: Tensor
    norm: Tensor
    norm_bias: Tensor
    q: Tensor
    q_bias: Tensor | None
    k: Tensor
    k_bias: Tensor | None
    v: Tensor
    v_bias: Tensor | None


_weights = functools.partial(tuple.__new__, Weights)  # a NamedTuple's own function goes through Python


class Layers(NamedTuple):
    """:class:`Weights` by layer."""

    convs: tuple[Affine, Affine, Affine, Affine]
    norm_h: Affine
    norm_w: Affine
    norm: Affine
    q: Affine
    k: Affine
    v: Affine


class Options(NamedTuple):
    """Settings of SCSA.

    Args:
        num_heads: Heads of the self-attention between channels; divides C.
        window_size: Side of the pooling window, cut to the map where that is smaller; -1 pools the whole map.
        down_sample_mode: ``'avg_pool'`` or ``'max_pool'``.
        gate: ``'sigmoid'``, or ``'softmax'`` (over the strip, and over the channels).
        attn_drop: Probability with which an attention weight is dropped, here and now (0 when evaluating).
        unit: Scale the gates so that a logit of 0 means 1.
    """

    num_heads: int = 1
    window_size: int = 7
    down_sample_mode: str = 'avg_pool'
    gate: str = 'sigmoid'
    attn_drop: float = 0.0
    unit: bool = False


def layers(weights: Weights) -> Layers:
    """Weight and bias of each layer together."""
    pairs = [Affine(weights[i], weights[i + 1]) for i in range(0, len(weights), 2)]
    return Layers(tuple(pairs[:4]), *pairs[4:])


def flatten(weights: Weights) -> list[Tensor | None]:
    """All tensors in a fixed order; 20, None for a bias that is missing."""
    return list(weights)


def unflatten(flat: Iterable[Tensor | None]) -> Weights:
    return _weights(flat)


def unusual(options: Options) -> str:
    """The option that only PyTorch's operations can do; empty if there is none."""
    if options.gate != 'sigmoid':
        return f'gate={options.gate!r}'
    if options.down_sample_mode != 'avg_pool':
        return f'down_sample_mode={options.down_sample_mode!r}'
    if options.attn_drop:
        return 'attn_drop while training'
    return ''


def window(height: int, width: int, options: Options) -> tuple[int, int]:
    """Height and width of the pooling window on a map of this size."""
    if options.window_size == -1:
        return height, width
    return min(options.window_size, height), min(options.window_size, width)


def misfit(x: Tensor, weights: Weights, options: Options) -> str:
    """Why a fast backend cannot take these together; empty if it can. The reference decides about such by itself."""
    c, heads = x.shape[1], options.num_heads
    if c % 4 or heads < 1 or c % heads:
        return f'{c} channels in {heads} heads'
    convs = [s for weight in weights[:8:2] for s in ((c // 4, 1, weight.shape[-1] // 2 * 2 + 1), (c // 4,))]
    scales = [s for bias in weights[15::2] for s in ((c, 1, 1, 1), bias is not None and (c,))]
    found = [t is not None and tuple(t.shape) for t in weights]
    return '' if found == [*convs, *[(c,)] * 6, *scales] else f'x has {c} channels, the weights are of another shape'

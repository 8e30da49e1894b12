"""What the operators have in common: parameters of a layer, eps, and the dtype in which sums are made."""

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

EPS = 1e-5  # of every norm, as published


class Affine(NamedTuple):
    """Weight and bias of a layer; the bias may be missing."""

    weight: Tensor
    bias: Tensor | None


_affine = functools.partial(tuple.__new__, Affine)  # a NamedTuple's own function goes through Python


def sum_dtype(x: Tensor) -> torch.dtype:
    """Of sums over x."""
    return sum_type(x.dtype)


def sum_type(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for all narrower ones."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def memory_format(x: Tensor) -> torch.memory_format:
    """Channels-last if ``x`` has it and is not contiguous; contiguous for all else."""
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def dense(x: Tensor) -> Tensor:
    """``x`` in memory as its numbers are, in its memory format: kernels and loops read it from there."""
    return x.resolve_neg().contiguous(memory_format=memory_format(x))


def dense_as(grad: Tensor, x: Tensor) -> Tensor:
    """A gradient as :func:`dense`, in the memory format of ``x``."""
    return grad.resolve_neg().contiguous(memory_format=memory_format(x))


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """Autocast off for the device of ``x``."""
    try:
        return torch.autocast(x.device.type, enabled=False)
    except RuntimeError:  # a device without it, as mps in older torch
        return contextlib.nullcontext()


def flatten_layers(layers: Iterable[Affine]) -> list[Tensor | None]:
    return [tensor for layer in layers for tensor in layer]


def layers_of(flat: Iterable[Tensor | None]) -> Iterator[Affine]:
    """The layers that :func:`flatten_layers` took apart."""
    tensors = iter(flat)
    return map(_affine, zip(tensors, tensors, strict=True))

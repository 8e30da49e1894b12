"""Calling the compiled functions with tensors."""

import ctypes
from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

from .compilation import CompilationError, library

# By the numbers of common.h.
DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


def unsupported_dtype(x: Tensor) -> str:
    """Why there are no loops for the dtype of x, or none at all; empty if there are. The first call compiles."""
    if x.dtype not in DTYPES:
        return f'x is {x.dtype}'
    try:
        lacks = not library().has_float16() and x.dtype == torch.float16
    except CompilationError as error:
        return str(error)
    return 'the compiler has no float16' if lacks else ''


def check_kept(
    x: Tensor, grad: Tensor, kept: Sequence[Tensor], like: Sequence[tuple[tuple[int, ...], torch.dtype]]
) -> None:
    """What comes back from autograd has its sizes still: hooks may change it, and the loops do not look.

    Args:
        like: Shape and dtype that forward gave each tensor.

    Raises:
        ValueError: if not.
    """
    same = grad.shape == x.shape and grad.dtype == x.dtype
    if not same or [(tuple(t.shape), t.dtype) for t in kept] != list(like):
        raise ValueError('what forward kept has another shape or dtype in backward')


def call(name: str, *arguments: Tensor | array | int) -> None:
    """Call a compiled function; it gets the number of threads after all else.

    Args:
        name: Of the function: ``void name(void* or int64_t ...)``.
        arguments: Tensors and arrays go as pointers to their data, numbers as int64.

    Raises:
        CompilationError: if there is no compiled function.
    """
    function = getattr(library(), name)
    function.restype = None
    function(*map(_as_c, (*arguments, torch.get_num_threads())))


def _as_c(argument: Tensor | array | int) -> ctypes.c_void_p | ctypes.c_int64:
    if isinstance(argument, Tensor):
        pointer = argument.data_ptr()
        if not pointer and argument.numel():
            raise ValueError(f'a {type(argument).__name__} without memory')
        return ctypes.c_void_p(pointer)
    if isinstance(argument, array):
        return ctypes.c_void_p(argument.buffer_info()[0])
    return ctypes.c_int64(argument)

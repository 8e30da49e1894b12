"""Calling the compiled functions with tensors."""

import ctypes
from array import array

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
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, array):
        return ctypes.c_void_p(argument.buffer_info()[0])
    return ctypes.c_int64(argument)

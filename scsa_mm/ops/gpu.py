"""What the Triton backends ask of the device of a map. Imports no Triton."""

import contextlib
import functools
import os

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_AS_IT_IS = contextlib.nullcontext()


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, so that they take tensors in memory."""
    return os.environ.get('TRITON_INTERPRET') == '1'


def unsupported(x: Tensor) -> str:
    """Why no kernel can run on x; empty if one can."""
    if x.dtype not in DTYPES:
        return f'x is {x.dtype}'
    if not x.is_cuda:
        return '' if interpreted() else f'x is on {x.device}'
    capability = _capability(x.device.index)
    if capability < ((8, 0) if x.dtype == torch.bfloat16 else (7, 0)):
        return f'{x.dtype} on a GPU of compute capability {".".join(map(str, capability))}'
    return ''


def current(x: Tensor) -> contextlib.AbstractContextManager:
    """Makes the device of x the current one, on which Triton launches."""
    if not x.is_cuda or x.device.index == torch.cuda.current_device():
        return _AS_IT_IS
    return torch.cuda.device(x.device)


@functools.cache
def _capability(device: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)

"""Names that torch had elsewhere in its older versions."""

import torch

if hasattr(torch.compiler, 'is_compiling'):
    is_compiling = torch.compiler.is_compiling
else:  # torch < 2.3
    from torch._utils import is_compiling

OutOfMemoryError = getattr(torch, 'OutOfMemoryError', torch.cuda.OutOfMemoryError)  # the latter: torch < 2.5

__all__ = ['OutOfMemoryError', 'is_compiling']

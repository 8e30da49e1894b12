"""What torch has elsewhere in its older versions, or only behind an expensive import."""

from collections.abc import Callable

import torch

if hasattr(torch.compiler, 'is_compiling'):
    is_compiling = torch.compiler.is_compiling
else:  # torch < 2.3
    from torch._utils import is_compiling

# None: torch < 2.7, which has no such question.
is_exporting = getattr(torch.compiler, 'is_exporting', None)

OutOfMemoryError = getattr(torch, 'OutOfMemoryError', torch.cuda.OutOfMemoryError)  # the latter: torch < 2.5


def constant_when_compiled(function: Callable) -> Callable:
    """As torch.compiler.assume_constant_result, which imports the whole compiler for it."""
    function._dynamo_marked_constant = True
    return function


__all__ = ['OutOfMemoryError', 'constant_when_compiled', 'is_compiling', 'is_exporting']

"""Run tests of Triton kernels where no GPU is: in Triton's interpreter, in a process of its own.

Whether a kernel is interpreted is settled for good when Triton and the kernel's module are imported, by
TRITON_INTERPRET. So one more process is started with that variable, and asked to call functions of test files; the
tests' own process never sees it. Where a GPU is, functions are called here, and kernels run natively.
"""

import atexit
import functools
import importlib
import os
import pickle
import subprocess
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def evaluate(function: Callable, *args: Any) -> Any:
    """``function(*args)`` with Triton's kernels usable on tensors of :func:`device`.

    ``function`` stands at the top level of a test file; it, its arguments and what it returns are pickled.
    """
    if device() == 'cuda' or interpreted():
        return function(*args)
    process = _process()
    pickle.dump((function.__module__, function.__name__, args), process.stdin)
    process.stdin.flush()
    good, value = pickle.load(process.stdout)
    if not good:
        raise AssertionError(f'in the interpreter:\n{value}')
    return value


def device() -> str:
    """Where tensors go inside a function that :func:`evaluate` calls."""
    import torch

    return 'cuda' if torch.cuda.is_available() and not interpreted() else 'cpu'


def interpreted() -> bool:
    return os.environ.get('TRITON_INTERPRET') == '1'


@functools.cache
def _process() -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, 'TRITON_INTERPRET': '1', 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
    )
    atexit.register(process.kill)
    return process


def _mend_the_interpreter() -> None:
    import triton.runtime.interpreter as interpreter
    from triton.language.semantic import TritonSemantic

    patch = interpreter._patch_lang_tensor

    def patch_tensor(tensor, scope):
        patch(tensor, scope)
        # Triton 3.6 holds a scalar as an array of one number, which numpy 2.4 no longer takes for an index.
        scope.set_attr(tensor, '__index__', lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_tensor

    # Half of the interpreter's time goes into checks of overflow, and into patching the language once more at each
    # call between functions; what a launch has patched stays so until its end.
    TritonSemantic.binary_op_sanitize_overflow_impl = lambda *args: None
    patch_language, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    patched = {}

    def patch_once(function):
        if function not in patched:
            patched[function] = patch_language(function)
        return patched[function]

    def launch_afresh(*args, **kwargs):
        patched.clear()
        return launch(*args, **kwargs)

    interpreter._patch_lang = patch_once
    interpreter.GridExecutor.__call__ = launch_afresh


def _serve() -> None:
    answers = os.fdopen(os.dup(1), 'wb')
    os.dup2(2, 1)  # what is printed must not come between
    # `tests` is no package, and a package of this name may be installed.
    tests = types.ModuleType('tests')
    tests.__path__ = [str(ROOT / 'tests')]
    sys.modules['tests'] = tests
    _mend_the_interpreter()
    while True:
        try:
            module, name, args = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = True, getattr(importlib.import_module(module), name)(*args)
        except Exception:
            answer = False, traceback.format_exc()
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == '__main__':
    _serve()

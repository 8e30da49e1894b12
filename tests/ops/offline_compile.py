"""Compile Triton kernels for GPUs that are not here; the tool that makes the table of kernels does so as well."""

from scsa_mm.analysis.offline import Compiled, Launch, caught_launches, compile_launch, launches_of

__all__ = ['Compiled', 'Launch', 'caught_launches', 'compile_launch', 'launches_of']

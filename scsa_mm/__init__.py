"""scsa_mm: attention for MMDetection, MMSegmentation and MMPretrain through ``plugins=``.

Importing it needs torch and mmengine only, and registers the modules of :mod:`scsa_mm.attention`.
"""

from . import attention, compat
from .version import __version__

compat.allow_mmengine_checkpoints()

__all__ = ['__version__', 'attention']

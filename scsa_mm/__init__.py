"""scsa_mm: attention for MMDetection, MMSegmentation and MMPretrain through ``plugins=``.

Importing it needs torch and mmengine only, and registers the modules of :mod:`scsa_mm.attention`.
"""

import sys

from .version import __version__

try:
    from . import attention, compat
    from .plugging import add_plugins

    compat.allow_mmengine_checkpoints()
    compat.find_mmseg_of_onedl()
    compat.chain_mmseg_plugins()
except Exception:
    # Only the doctor may start without torch and mmengine: it tells what is missing.
    if 'scsa_mm.doctor' not in sys.orig_argv:
        raise

__all__ = ['__version__', 'add_plugins', 'attention']

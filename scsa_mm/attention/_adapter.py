"""Attention that another package implements, under our names.

The layer of the other package is the child ``layer``: a checkpoint has ``<plugin>.layer.<the package's name>``. Its
names and its arithmetic are those of the package's version in constraints.txt, which the tests pin.
"""

import importlib

from torch import Tensor, nn

INSTALL = {'timm': 'pip install timm==1.0.31', 'mmcv': 'pip install mmcv==2.1.0'}


def load_class(owner: str, module: str, name: str) -> type[nn.Module]:
    """The class of the other package, imported when a module that needs it is built.

    Raises:
        ImportError: if the package does not import; the message says what to install.
    """
    package = module.split('.')[0]
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f'{owner} is built from {package}, which gives no {name} ({error}); install it: {INSTALL[package]}'
        ) from error


class Adapter(nn.Module):
    """Holds the layer of another package as the child ``layer``."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

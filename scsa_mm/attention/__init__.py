"""The attention modules that a config names."""

from .ca import CA
from .cbam import CBAM
from .cpca import CPCA
from .eca import ECA
from .ela import ELA
from .ema import EMA
from .ese import ESE
from .fca import FCA
from .gc import GC
from .non_local import NonLocal
from .sa import SA
from .scsa import PCSA, SCSA, SMSA
from .se import SE
from .sk import SK

__all__ = [
    'CA',
    'CBAM',
    'CPCA',
    'ECA',
    'ELA',
    'EMA',
    'ESE',
    'FCA',
    'GC',
    'NonLocal',
    'PCSA',
    'SA',
    'SCSA',
    'SE',
    'SK',
    'SMSA',
]

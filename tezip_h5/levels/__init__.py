"""Sample values <-> integer levels: `scales` say how, `choice` picks one for a chunk."""

from tezip_h5.levels.choice import choose, tolerances
from tezip_h5.levels.scales import (
    DTYPES,
    Companded,
    Grid,
    Integers,
    Listed,
    LogBits,
    OrderedBits,
    Scale,
    Truncated,
    unpack,
)

__all__ = [
    "DTYPES",
    "Companded",
    "Grid",
    "Integers",
    "Listed",
    "LogBits",
    "OrderedBits",
    "Scale",
    "Truncated",
    "choose",
    "tolerances",
    "unpack",
]

"""Sample values <-> integer levels: what the predictive codec works on.

Every chunk is brought to int32 levels before prediction and back after it, by one of nine
scales. A scale says how a value becomes a code; the chunk's smallest code is then
subtracted, so levels count from 0 to `top`. Float values leave and enter by one float64
operation and one rounding each; everything after that is integers. A value that its scale
cannot bring back within the bound is an *exception*, stored exactly beside the levels.
"""

from tezip_h5.levels.choice import centred, choose, tolerances
from tezip_h5.levels.each_frame import EachFrame, of_each_frame
from tezip_h5.levels.lattice import NEAREST
from tezip_h5.levels.scale import DTYPES, Scale, carrier, full_scale, ordered, unordered
from tezip_h5.levels.scales import Affine, Grid, Integers, LogBits, OrderedBits, Truncated
from tezip_h5.levels.section import parts, unpack
from tezip_h5.levels.tables import Companded, Listed

__all__ = [
    "DTYPES",
    "NEAREST",
    "Affine",
    "Companded",
    "EachFrame",
    "Grid",
    "Integers",
    "Listed",
    "LogBits",
    "OrderedBits",
    "Scale",
    "Truncated",
    "carrier",
    "centred",
    "choose",
    "full_scale",
    "of_each_frame",
    "ordered",
    "parts",
    "tolerances",
    "unordered",
    "unpack",
]

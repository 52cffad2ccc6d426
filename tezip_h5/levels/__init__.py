"""Convert sample values to integer levels, which the predictive codec works on, and back.

Every chunk is converted to int32 levels before prediction, and back afterwards, by one of nine
*scales*. A scale assigns an integer *code* to a value. The smallest code of the chunk is then
subtracted, so levels go from 0 to `top`. Floats are converted by a few float64 operations, each
rounded once; everything after that is integer arithmetic. A value that its scale cannot restore
within the bound is an *exception*: it is stored exactly, apart from the levels.
"""

from tezip_h5.levels.choice import centred, choose, exact_instead, tolerances
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
    "exact_instead",
    "full_scale",
    "of_each_frame",
    "ordered",
    "parts",
    "tolerances",
    "unordered",
    "unpack",
]

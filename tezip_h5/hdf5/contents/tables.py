"""Reading the tables and attributes of a stack, which other programs may have changed."""

from __future__ import annotations

import contextlib

import h5py
import numpy as np

from tezip_h5.errors import FormatError

__all__ = ["FRAME_DTYPE", "KIND", "attribute_of", "model_of", "reading", "rows_of"]

KIND = h5py.enum_dtype({"keyframe": 0, "warm-up": 1, "predicted": 2}, basetype="u1")
FRAME_DTYPE = np.dtype(
    [
        ("kind", KIND),
        ("window", "<u4"),
        ("keyframe_bytes", "<u4"),
        ("residual_bytes", "<u4"),
        ("mse", "<f4"),
        ("max_error", "<f8"),
    ]
)

_FEW_BYTES = 1 << 24  # of a table: so many may be missing in the file, as not written yet
_KINDS = {str: str, bool: np.bool_ | np.integer, int: np.integer, float: np.integer | np.floating}


@contextlib.contextmanager
def reading(item, what: str):
    """Raise FormatError if `what` of an object cannot be read, or has another type."""
    try:
        yield
    except (RuntimeError, OSError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise FormatError(
            f"{what} of {item.name} in {item.file.filename} cannot be read: {error}; the file is "
            "damaged, or another program changed it"
        ) from None


def attribute_of(item, name: str, kind: type, default=None):
    """An attribute as int, float, bool or str; `default` if it is missing."""
    with reading(item, f"attribute {name!r}"):
        if name not in item.attrs:
            return default
        value = item.attrs[name]
        if not isinstance(value, _KINDS[kind]):
            raise TypeError(f"{value!r:.60} is no {kind.__name__}")
        return kind(value)


def model_of(tables: h5py.Group) -> bytes | None:
    """Digest of the network that predicted chunks of a stack, or None."""
    text = attribute_of(tables, "model", str)
    if text is None:
        return None
    with reading(tables, "attribute 'model'"):
        digest = bytes.fromhex(text)
        if digest.hex() != text or len(digest) != 32:
            raise ValueError(f"{text!r:.80} is no digest, 64 hexadecimal digits")
    return digest


def rows_of(tables: h5py.Group) -> np.ndarray:
    """The table of a stack's frames, FRAME_DTYPE (T,)."""
    with reading(tables, "the table 'frames'"):
        table = tables["frames"]
        if not isinstance(table, h5py.Dataset) or table.dtype != FRAME_DTYPE or table.ndim != 1:
            raise TypeError("it is another kind of object")
        # gzip cannot compress better than by a factor of about 1000, so a table with fewer stored
        # bytes is damaged. Small tables may not be written yet.
        if table.nbytes > 2000 * table.id.get_storage_size() + _FEW_BYTES:
            raise ValueError(f"it has {len(table)} rows, most of which are not stored")
        return table[()]

"""What was meant by an option that there is not."""

from __future__ import annotations

import difflib

from tezip_h5.settings import Settings

__all__ = ["advice_on"]

_BOUND = (
    "an error bound is absolute=, relative= (to max - min of a frame), pointwise_relative= (to "
    "each sample) or noise= (to that of counts)"
)
_CHUNK = "a chunk is chunk_frames= frames of a tile=(rows, columns)"
_MEANT = {
    ("bound", "bounds", "error", "error_bound", "max_error", "tolerance", "mode"): _BOUND,
    ("chunk", "chunks", "chunk_shape", "chunk_size", "chunksize"): _CHUNK,
    ("abs",): "did you mean absolute=?",
    ("rel",): "did you mean relative=?",
    ("absrel",): "give absolute= and relative=",
    ("pwrel",): "did you mean pointwise_relative=?",
    ("compression", "effort"): "how hard the encoder tries is level=, see Settings",
    ("lossless",): "without a bound every sample comes back exactly: leave it out",
}
_OF_CALLS = (
    *("absolute", "relative", "pointwise_relative", "noise", "axes", "mask", "chunk_frames"),
    *("tile", "threads", "verify", "overwrite", "append", "swmr", "preview", "metadata"),
    *("queue_frames", "when_full", "panel_axes", "progress", "scheduler", "device", "embed_model"),
)
"""Options of `write` and `Writer` that are not among `Settings`."""


def advice_on(name: str) -> str:
    """What to give instead of an option of this name.

    Examples
    --------
    >>> advice_on("treads")
    'did you mean threads=?'
    """
    for names, advice in _MEANT.items():
        if name.lower() in names:
            return advice
    if name in _OF_CALLS:
        return "it is for other calls (write, Writer); leave it out here"
    known = tuple(Settings.__dataclass_fields__)
    alike = difflib.get_close_matches(name.lower(), known + _OF_CALLS, n=2, cutoff=0.7)
    if alike:
        return f"did you mean {' or '.join(f'{one}=' for one in alike)}?"
    return (
        f"those of encoding are {', '.join(known)}, all others stand in the documentation of the "
        "call"
    )

"""Counting what has been written of a stack: rows of its table, totals, keyframes, thumbnails."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np

from tezip_h5.codec import Encoded, FrameRecord
from tezip_h5.hdf5.contents.preview import Preview
from tezip_h5.hdf5.contents.tables import FRAME_DTYPE
from tezip_h5.hdf5.writing.crew import Finished
from tezip_h5.hdf5.writing.past import Past, Totals
from tezip_h5.windows import Kind

__all__ = ["Tally"]


class Tally:
    """Count what was written, step by step, in order.

    Parameters
    ----------
    past : Past
        The frames that the stack had already; they are counted.
    preview : Preview, optional
        Collects thumbnails of the keyframes.

    Attributes
    ----------
    totals : Totals
    windows : int
        Number of keyframes so far.
    """

    def __init__(self, past: Past, preview: Preview | None = None):
        self._past, self._preview = past, preview
        self.totals: Totals = replace(past.totals)
        self._keyframes: list[np.ndarray] = [past.keyframes]
        self.windows = len(past.keyframes)

    def rows(self, count: int, tiles: list[Encoded], known: np.ndarray) -> np.ndarray:
        """Rows of the ``frames`` table for the next step, each the sum over the tiles of a frame.

        Parameters
        ----------
        count : int
            Number of frames of the step.
        tiles
            The encoded tiles.
        known : FRAME_DTYPE array
            Old rows of the first frames, whose errors are kept.
        """
        rows = np.zeros(count, FRAME_DTYPE)
        window = self.windows - 1
        for t, row in enumerate(rows):
            parts: list[FrameRecord] = [tile.frames[t] for tile in tiles]
            kind = max(part.kind for part in parts)  # a keyframe when all its tiles are
            window += kind == Kind.KEYFRAME
            row["kind"], row["window"] = kind, max(window, 0)
            row["keyframe_bytes"] = sum(part.keyframe_bytes for part in parts)
            row["residual_bytes"] = sum(part.residual_bytes for part in parts)
            row["mse"] = np.mean([part.mse for part in parts])
            row["max_error"] = max(part.max_error for part in parts)
        rows["max_error"][: len(known)] = known["max_error"]
        return rows

    def add(self, start: int, step: Finished, tiles: list[Encoded], rows: np.ndarray) -> None:
        """Count a written step: its first frame has the number `start`."""
        totals = self.totals
        totals.frames += len(rows)
        totals.raw_bytes += step.raw_bytes
        totals.payload_bytes += sum(len(tile.payload) for tile in tiles)
        totals.max_error = max(totals.max_error, float(rows["max_error"].max()))
        totals.chunks += len(tiles)
        totals.fallback_chunks += sum(tile.coder == "fallback" for tile in tiles)
        totals.network_chunks += sum(tile.model is not None for tile in tiles)
        keyframes = np.flatnonzero(rows["kind"] == Kind.KEYFRAME)
        self.windows += keyframes.size
        self._keyframes.append(start + keyframes)
        if self._preview is not None:
            for t in keyframes:
                self._preview.add(start + int(t), step.picture(int(t)))

    def adopt_tail(self) -> None:
        """Count the old unfinished last chunk as it is, because no frame was added to it."""
        past = self._past
        self.totals = replace(past.with_tail)
        self._keyframes.append(
            past.totals.frames + np.flatnonzero(past.tail_rows["kind"] == Kind.KEYFRAME)
        )

    @property
    def keyframes(self) -> np.ndarray:
        """Numbers of the keyframes written, rising."""
        return np.concatenate(self._keyframes)

    def write_preview(self, group: h5py.Group) -> None:
        """Store the thumbnails collected so far in `group`."""
        if self._preview is not None:
            self._preview.write(group)

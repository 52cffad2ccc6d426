"""Previews: small 8-bit pictures of keyframes that any viewer shows without our filter."""

from __future__ import annotations

import h5py
import numpy as np

from tezip_h5.hdf5.contents.layout import panels_joined
from tezip_h5.hdf5.contents.tables import reading

__all__ = ["Preview", "picture_of"]

_SIDE = 64  # pixels of the longer side of a thumbnail, at most
_MOST = 32  # thumbnails of one stack, at most


def picture_of(frames: np.ndarray, panel_axes: int, number: int) -> np.ndarray:
    """The small picture of a frame that `Preview.add` takes, with panels one below the other.

    It is a view of the frames if possible.
    """
    return _shrunk(panels_joined(frames[number][None], panel_axes)[0])


def _shrunk(frame: np.ndarray) -> np.ndarray:
    """The samples of a frame that make its thumbnail; a small frame is returned as it is."""
    step = max(1, -(-max(frame.shape[:2]) // _SIDE))
    return frame[::step, ::step]


class Preview:
    """Collect thumbnails of keyframes while a stack is written; few, however long it is.

    Grey levels are those of the first keyframe: its 0.5 and 99.5 percentiles become 0 and
    255. When there are more than 32 keyframes, every second one is dropped, again and again.
    Thumbnails that `group` has already come first.
    """

    def __init__(self, group: h5py.Group | None = None):
        self._thumbnails: list[tuple[int, np.ndarray]] = []
        self._stride = 1
        self._seen = 0
        self._range: tuple[float, float] | None = None
        if group is not None and "preview" in group:
            self._go_on(group)

    def _go_on(self, group: h5py.Group) -> None:
        with reading(group, "the dataset 'preview'"):
            preview = group["preview"]
            numbers = preview.attrs["frames"]
            self._thumbnails = [(int(n), p) for n, p in zip(numbers, preview[()], strict=True)]
            low, high = preview.attrs.get("range", (0, 1))
            self._range = float(low), float(high)

    def add(self, number: int, frame: np.ndarray) -> None:
        """Offer keyframe `number`, (H, W) or (H, W, C) of any dtype."""
        if self._seen % self._stride == 0:
            made = self._thumbnail(frame)
            if any(
                old.shape != made.shape or old.dtype != made.dtype for _, old in self._thumbnails
            ):
                self._thumbnails.clear()  # another program's pictures
            self._thumbnails.append((number, made))
            if len(self._thumbnails) > _MOST:
                self._thumbnails = self._thumbnails[::2]
                self._stride *= 2
        self._seen += 1

    def _thumbnail(self, frame: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # signalling NaN
            small = _shrunk(frame).astype(np.float64)
        small = small[..., :3] if small.ndim == 3 and small.shape[2] != 2 else small
        small = small[..., 0] if small.ndim == 3 and small.shape[2] < 3 else small
        finite = np.isfinite(small)
        if self._range is None and finite.any():
            low, high = 2 * np.percentile(small[finite] / 2, (0.5, 99.5))
            self._range = float(low), float(high)
        low, high = (end / 2 for end in self._range or (0.0, 1.0))
        span = high - low if high > low else 0.5  # of halves: that of numbers may be infinite
        scaled = (np.where(finite, small, 0) / 2 - low) / span * 255
        return np.where(finite, np.clip(scaled, 0, 255), 0).astype(np.uint8)

    def write(self, group: h5py.Group) -> None:
        """Store the thumbnails as ``preview`` in `group`."""
        if not self._thumbnails:
            return
        numbers, pictures = zip(*self._thumbnails, strict=True)
        if "preview" in group:
            del group["preview"]
        data = np.stack(pictures)
        preview = group.create_dataset(
            "preview", data=data, chunks=data.shape, compression="gzip", compression_opts=9
        )
        preview.attrs["frames"] = np.array(numbers, np.int64)
        preview.attrs["range"] = self._range or (0.0, 1.0)  # values that became 0 and 255
        preview.attrs["CLASS"] = np.bytes_("IMAGE")
        preview.attrs["IMAGE_VERSION"] = np.bytes_("1.2")
        preview.attrs["interpretation"] = "rgb-image" if data.ndim == 4 else "image"
        colour = "IMAGE_TRUECOLOR" if data.ndim == 4 else "IMAGE_GRAYSCALE"
        preview.attrs["IMAGE_SUBCLASS"] = np.bytes_(colour)

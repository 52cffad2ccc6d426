"""Other codecs, to be measured beside ours: each encodes a whole stack and decodes it again.

A peer says what it supports and whether it is installed; nothing here judges. Lossy peers get
the same guaranteed bound. Those that work on floats only take integers as float32 with half a
grey level more, because rounding back to integers takes that much off.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Peer", "peers"]

_CHUNK = 16


@dataclass(frozen=True)
class Peer:
    """A codec.

    `encode(stack, bound, threads)` returns something with a `nbytes`-like length given by
    `size`; `decode(encoded, stack, threads)` returns the array again (`stack` tells only shape
    and dtype).
    """

    name: str
    lossy: bool
    encode: Callable
    decode: Callable
    supports: Callable[[np.ndarray], bool] = lambda stack: True
    missing: str | None = None
    slow: bool = False
    note: str = ""


@dataclass(frozen=True)
class Encoded:
    """What a peer made of a stack: its parts, and their size in bytes."""

    parts: object
    size: int


def _has(module: str) -> str | None:
    return None if importlib.util.find_spec(module) else f"{module} is not installed"


# --- through h5py: hdf5plugin's filters -------------------------------------------------


def _hdf5(make_filter: Callable, as_float=False, frames=_CHUNK, planar=False):
    """Encode and decode with an HDF5 filter; `make_filter(bound)` gives h5py's keywords.

    `planar` puts the channels one after the other, for filters of three dimensions.
    """

    def encode(stack, bound, threads):
        import h5py

        data = stack
        if as_float and stack.dtype.kind in "iu":
            data, bound = stack.astype(np.float32), bound + 0.499
        if planar and data.ndim == 4:
            data = np.moveaxis(data, 3, 0).reshape(-1, *data.shape[1:3])
        file = h5py.File(f"{uuid.uuid4().hex}.h5", "w", driver="core", backing_store=False)
        chunks = (min(frames, len(data)), *data.shape[1:])
        dataset = file.create_dataset("x", data=data, chunks=chunks, **make_filter(bound))
        file.flush()
        return Encoded(file, dataset.id.get_storage_size())

    def decode(encoded, stack, threads):
        file = encoded.parts
        back = file["x"][:]
        file.close()
        if planar and stack.ndim == 4:
            back = np.moveaxis(back.reshape(stack.shape[3], *stack.shape[:3]), 0, 3)
        if as_float and stack.dtype.kind in "iu":
            info = np.iinfo(stack.dtype)
            back = np.clip(np.rint(back), info.min, info.max).astype(stack.dtype)
        return back

    return encode, decode


def _plugin(name: str, **options) -> Callable:
    def make(bound):
        import hdf5plugin

        keywords = {k: (bound if v is _BOUND else v) for k, v in options.items()}
        return dict(getattr(hdf5plugin, name)(**keywords))

    return make


_BOUND = object()
_GZIP = {"compression": "gzip", "compression_opts": 9, "shuffle": True}


# --- in memory --------------------------------------------------------------------------


def _integers(stack: np.ndarray) -> np.ndarray:
    """Integers whose differences are small where values are close: of floats, ordered bits."""
    if stack.dtype.kind != "f":
        return stack
    bits = stack.view(f"i{stack.dtype.itemsize}")
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)


def _difference_encode(stack, bound, threads):
    import zstandard

    values = _integers(stack)
    with np.errstate(over="ignore"):
        differences = np.concatenate([values[:1], values[1:] - values[:-1]])
    data = zstandard.ZstdCompressor(level=9).compress(differences.tobytes())
    return Encoded(data, len(data))


def _difference_decode(encoded, stack, threads):
    import zstandard

    values = _integers(stack)
    raw = zstandard.ZstdDecompressor().decompress(encoded.parts, max_output_size=stack.nbytes)
    differences = np.frombuffer(raw, values.dtype).reshape(stack.shape)
    decoded = np.cumsum(differences, axis=0, dtype=values.dtype)
    if stack.dtype.kind == "f":
        decoded = np.where(decoded < 0, decoded ^ np.iinfo(decoded.dtype).max, decoded)
        return decoded.view(stack.dtype)
    return decoded


def _blosc_encode(stack, bound, threads):
    from numcodecs import Blosc, blosc

    blosc.set_nthreads(threads)
    codec = Blosc("zstd", 5, Blosc.BITSHUFFLE)
    parts = [codec.encode(stack[i : i + _CHUNK]) for i in range(0, len(stack), _CHUNK)]
    return Encoded(parts, sum(map(len, parts)))


def _blosc_decode(encoded, stack, threads):
    from numcodecs import Blosc

    parts = [np.frombuffer(Blosc().decode(part), stack.dtype) for part in encoded.parts]
    return np.concatenate(parts).reshape(stack.shape)


def _per_frame(encode_one: Callable, decode_one: Callable):
    """A still-image codec over the frames, in `threads` threads."""

    def encode(stack, bound, threads):
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(lambda frame: encode_one(frame, bound), stack))
        return Encoded(parts, sum(map(len, parts)))

    def decode(encoded, stack, threads):
        with ThreadPoolExecutor(threads) as pool:
            return np.stack(list(pool.map(decode_one, encoded.parts)))

    return encode, decode


def _imagecodecs(name: str, **options):
    def encode_one(frame, bound):
        import imagecodecs

        keywords = {k: (int(bound) if v is _BOUND else v) for k, v in options.items()}
        return getattr(imagecodecs, f"{name}_encode")(np.ascontiguousarray(frame), **keywords)

    def decode_one(data):
        import imagecodecs

        return getattr(imagecodecs, f"{name}_decode")(data)

    return _per_frame(encode_one, decode_one)


# --- video, through ffmpeg --------------------------------------------------------------


def _pixel_format(stack: np.ndarray) -> str:
    return "rgb24" if stack.ndim == 4 else {1: "gray", 2: "gray16le"}[stack.dtype.itemsize]


def _ffmpeg(options: list[str], stored: dict[str, str], suffix: str, colour=()):
    """A video codec; `stored` maps the stack's pixel format to the codec's, `colour` are
    further options for RGB."""

    def run(arguments, data=None):
        command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *arguments]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout

    def encode(stack, bound, threads):
        kind = _pixel_format(stack)
        height, width = stack.shape[1:3]
        size = ["-f", "rawvideo", "-pix_fmt", kind, "-s", f"{width}x{height}", "-r", "25"]
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / f"video{suffix}"
            extra = colour if kind == "rgb24" else ()
            run(
                [*size, "-i", "-", "-threads", str(threads), *options, *extra,
                 "-pix_fmt", stored[kind], str(target)],
                stack.tobytes(),
            )  # fmt: skip
            data = target.read_bytes()
        return Encoded(data, len(data))

    def decode(encoded, stack, threads):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / f"video{suffix}"
            source.write_bytes(encoded.parts)
            raw = run(
                ["-threads", str(threads), "-i", str(source), "-f", "rawvideo", "-pix_fmt",
                 _pixel_format(stack), "-"]
            )  # fmt: skip
        return np.frombuffer(raw, stack.dtype).reshape(stack.shape)

    return encode, decode


def _is_image(stack: np.ndarray) -> bool:
    return stack.dtype.name in ("uint8", "uint16") and (stack.ndim == 3 or stack.shape[3] == 3)


def _is_video(stack: np.ndarray) -> bool:
    return stack.dtype == np.uint8 and _is_image(stack)


def _is_ffv1(stack: np.ndarray) -> bool:
    return _is_image(stack) and (stack.ndim == 3 or stack.dtype == np.uint8)


_GRAY = {"gray": "gray", "gray16le": "gray16le"}


def peers() -> list[Peer]:
    """Every codec we know to compare with, installed or not."""
    plugin, image = _has("hdf5plugin"), _has("imagecodecs")
    video = None if shutil.which("ffmpeg") else "ffmpeg is not installed"
    one = "HDF5 runs filters in one thread"
    x265 = ["-c:v", "libx265", "-x265-params", "lossless=1:log-level=error"]
    x264 = ["-c:v", "libx264", "-qp", "0", "-color_range", "pc"]
    ffv1 = ["-c:v", "ffv1", "-level", "3", "-coder", "1", "-context", "1", "-slices", "4"]
    planar = {"gray": "gray", "rgb24": "gbrp"}
    packed, rgb = {"gray": "gray", "rgb24": "rgb24"}, ("-c:v", "libx264rgb")
    # The whole stack in one chunk, as SZ3, SPERR and ZFP like it best.
    whole = 1 << 30
    return [
        Peer("previous-frame difference + zstd-9", False, _difference_encode, _difference_decode),
        Peer("blosc bitshuffle+zstd", False, _blosc_encode, _blosc_decode),
        Peer("hdf5 gzip-9 shuffle", False, *_hdf5(lambda _: _GZIP), note=one),
        Peer("hdf5 bitshuffle+zstd", False, *_hdf5(_plugin("Bitshuffle", cname="zstd")),
             missing=plugin, note=one),
        Peer("hdf5 zstd-9", False, *_hdf5(_plugin("Zstd", clevel=9)), missing=plugin, note=one),
        Peer("hdf5 blosc2 zstd-9", False,
             *_hdf5(_plugin("Blosc2", cname="zstd", clevel=9, filters=1)),
             missing=plugin, note=one),
        Peer("jpeg-ls", False, *_imagecodecs("jpegls"), supports=_is_image, missing=image),
        Peer("jpeg2000", False, *_imagecodecs("jpeg2k", reversible=True, level=0),
             supports=_is_image, missing=image),
        Peer("jpeg-xl effort 3", False, *_imagecodecs("jpegxl", lossless=True, effort=3),
             supports=_is_image, missing=image),
        Peer("jpeg-xl effort 7", False, *_imagecodecs("jpegxl", lossless=True, effort=7),
             supports=_is_image, missing=image),
        Peer("jpeg-xl effort 9", False, *_imagecodecs("jpegxl", lossless=True, effort=9),
             supports=_is_image, missing=image, slow=True),
        Peer("ffv1", False, *_ffmpeg(ffv1,
             {**_GRAY, "rgb24": "bgr0"}, ".mkv"), supports=_is_ffv1, missing=video),
        Peer("x264 medium", False, *_ffmpeg([*x264, "-preset", "medium"], packed, ".mkv", rgb),
             supports=_is_video, missing=video),
        Peer("x264 veryslow", False, *_ffmpeg([*x264, "-preset", "veryslow"], packed, ".mkv", rgb),
             supports=_is_video, missing=video, slow=True),
        Peer("x265 medium", False, *_ffmpeg([*x265, "-preset", "medium"], planar, ".mkv"),
             supports=_is_video, missing=video),
        Peer("x265 veryslow", False, *_ffmpeg([*x265, "-preset", "veryslow"], planar, ".mkv"),
             supports=_is_video, missing=video, slow=True),
        Peer("sz3", True, *_hdf5(_plugin("SZ3", absolute=_BOUND), True, whole),
             missing=plugin, note=one),
        Peer("sperr", True, *_hdf5(_plugin("Sperr", absolute=_BOUND), True, whole, True),
             missing=plugin, note=one),
        Peer("zfp", True, *_hdf5(_plugin("Zfp", accuracy=_BOUND), True, whole, True),
             missing=plugin, note=one),
        Peer("jpeg-ls near", True, *_imagecodecs("jpegls", level=_BOUND),
             supports=lambda stack: _is_image(stack), missing=image),
    ]  # fmt: skip

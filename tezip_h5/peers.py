"""Peers: other codecs, which ``tezip-h5 bench`` and reports compare with ours.

Each has the options and chunk sizes that gave its best results in trials. General compressors get
chunks of at most 16 frames, video codecs the whole stack. SZ3, SPERR and ZFP also get the whole
stack, which mostly needs the fewest bytes; SZ3 and SPERR are run with chunks of 16 frames, too.
These three get integers as floats, and their results are rounded. Rounding turns an error below
bound + 1/2 into one of at most the bound, so they are given a bound just below that.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache

import h5py
import numpy as np
import zstandard
from numcodecs import Blosc

__all__ = ["Encoded", "Peer", "peers"]

_FLOATS = ("float32", "float64")
_GRAYS = ("uint8", "uint16")
_MOST_BOUNDS = 2.0**63  # of the largest number in SPERR, which has crashed from 2**64 on


@dataclass(frozen=True)
class Encoded:
    """The result of a peer: the encoded stack, its size, and what its decoder needs besides."""

    parts: object = field(repr=False)
    nbytes: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def of(cls, stack: np.ndarray, parts: list[bytes]) -> Encoded:
        return cls(parts, sum(map(len, parts)), stack.shape, stack.dtype)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A codec for stacks of shape (T, H, W) or (T, H, W, C)."""

    name: str
    lossless: bool = True  # exact, and only run without a bound; or else only with one
    needs: str = ""  # "module.attribute" or "ffmpeg.encoder"
    dtypes: tuple[str, ...] = ()  # that it takes; all when empty
    pictures: bool = False  # takes gray and RGB frames only
    finite: bool = False  # loses NaN and infinities, or ends the process, or never comes to an end
    slow: bool = False  # about 1 MB/s or less
    note: str = ""  # what the reader of a row should know

    def available(self) -> str | None:
        """None, or the reason why this cannot run here."""
        return _missing(*self.needs.split(".")) if self.needs else None

    def supports(self, dtype, shape: tuple[int, ...], bound: float) -> bool:
        """Whether this is to be run on such a stack; `bound` 0 means lossless."""
        drawn = not self.pictures or len(shape) == 3 or shape[3] == 3
        taken = not self.dtypes or np.dtype(dtype).name in self.dtypes
        return self.lossless == (bound == 0) and drawn and taken

    def refuses(self, stack: np.ndarray) -> str | None:
        """Why the samples must not be given to this, or None."""
        if not self.finite or stack.dtype.kind != "f":
            return None
        for frame in stack:
            if not np.isfinite(frame).all():
                return f"it takes no {'NaN' if np.isnan(frame).any() else 'infinities'}"
        return None

    def encode(self, stack: np.ndarray, bound: float, threads: int) -> Encoded:
        """Encode a whole stack so that |decoded - stack| <= bound everywhere."""
        raise NotImplementedError

    def decode(self, encoded: Encoded, threads: int) -> np.ndarray:
        """Inverse of `encode`: an array of the stack's shape and dtype."""
        raise NotImplementedError


@lru_cache
def _missing(module: str, part: str) -> str | None:
    if module == "ffmpeg":
        if shutil.which(module) is None:
            return "ffmpeg is not installed"
        listed = subprocess.run([module, "-v", "error", "-encoders"], capture_output=True).stdout
        return None if part.encode() in listed.split() else f"this ffmpeg has no {part}"
    try:
        found = getattr(importlib.import_module(module), part, None)
    except ImportError:
        return f"{module} is not installed"
    return None if getattr(found, "available", found) else f"this {module} has no {part}"


@dataclass(frozen=True, kw_only=True)
class Hdf5Filter(Peer):
    """A filter of hdf5plugin, or without `needs` of HDF5 itself, on a dataset in memory.

    The bound is its option `bound_option`; every colour is then a chunk of its own, and chunks
    are equally long, since padding costs SZ3 and SPERR bytes. `frames`: in a chunk (0: all).
    """

    options: dict = field(default_factory=dict)
    bound_option: str = ""
    frames: int = 16
    shuffle: bool = False
    note: str = "HDF5 runs filters in one thread"

    def encode(self, stack, bound, threads):
        if reason := self.refuses(stack):
            raise ValueError(f"{self.name} is not run: {reason}")
        values, options, frame = stack, dict(self.options), list(stack.shape[1:])
        if self.bound_option:
            values, options[self.bound_option] = _as_floats(stack, bound)
            if self.needs.endswith("Sperr"):
                _require_moderate(values, options[self.bound_option])
            frame[2:] = [1] * (stack.ndim - 3)
        if self.needs:
            module, kind = self.needs.split(".")
            options = dict(getattr(importlib.import_module(module), kind)(**options))
        most = min(self.frames or len(stack), len(stack), 2**30 // values[0].nbytes or 1)
        if self.bound_option:
            most = -(-len(stack) // -(-len(stack) // most))
        # No cache of chunks: every read decodes.
        file = h5py.File(uuid.uuid4().hex, "w", driver="core", backing_store=False, rdcc_nbytes=0)
        options = {"chunks": (most, *frame), "shuffle": self.shuffle, **options}
        dataset = file.create_dataset("stack", data=values, **options).id
        file.flush()
        if self.bound_option and dataset.get_chunk_info(0).filter_mask:
            raise RuntimeError(f"{self.name} refused the stack, and HDF5 stored it uncompressed")
        return Encoded(file, dataset.get_storage_size(), stack.shape, stack.dtype)

    def decode(self, encoded, threads):
        values = encoded.parts["stack"][()]
        if values.dtype == encoded.dtype:
            return values
        if encoded.dtype.kind == "f":
            return values.astype(encoded.dtype)
        limits = np.iinfo(encoded.dtype)
        np.rint(values, out=values)
        return np.clip(values, limits.min, limits.max, out=values).astype(encoded.dtype)


def _as_floats(stack: np.ndarray, bound: float) -> tuple[np.ndarray, float]:
    """The stack as floats, and the bound for them that keeps `bound` after all rounding."""
    values = rounded = stack
    if stack.dtype.kind != "f":
        values = rounded = stack.astype("f8" if stack.itemsize > 2 else "f4")
        bound = bound // 1 + 0.499
    elif stack.itemsize == 2:
        values = stack.astype("f4")
    # SPERR rounds to the float type after keeping its bound, and so does who asks for float16.
    largest = np.max(np.abs(rounded), initial=0)
    return values, max(bound - float(np.spacing(largest)) / 2, bound / 2)


def _require_moderate(values: np.ndarray, bound: float) -> None:
    """Refuse what ends the process in SPERR besides: numbers far beyond the bound."""
    if not np.abs(values).max(initial=0) / bound < _MOST_BOUNDS:
        raise ValueError("SPERR takes no numbers so far beyond the bound")


@dataclass(frozen=True, kw_only=True)
class Difference(Peer):
    """zstd of each frame minus the one before, modulo 2**bits; of floats, of ordered bits; of
    bool, of bytes."""

    level: int

    def encode(self, stack, bound, threads):
        values = _ordered(stack) if stack.dtype.kind == "f" else stack
        values = values.view(np.uint8) if stack.dtype == np.bool_ else values
        changes = values.copy()
        np.subtract(values[1:], values[:-1], out=changes[1:])
        # Below 32 MiB threads would only cost bytes: zstd makes one job of it.
        codec = zstandard.ZstdCompressor(self.level, threads=threads * (stack.nbytes > 2**25))
        return Encoded.of(stack, [codec.compress(changes)])

    def decode(self, encoded, threads):
        floats, dtype = encoded.dtype.kind == "f", encoded.dtype
        raw = zstandard.ZstdDecompressor().decompress(encoded.parts[0])
        kind = "u" if dtype == np.bool_ else "i" if floats else dtype.kind
        changes = np.frombuffer(raw, f"{kind}{dtype.itemsize}")
        values = np.cumsum(changes.reshape(encoded.shape), axis=0, dtype=changes.dtype)
        return (_ordered(values) if floats else values).view(dtype)


def _ordered(values: np.ndarray) -> np.ndarray:
    """Bits of floats as integers that sort as the floats do; its own inverse."""
    bits = values.view(f"i{values.itemsize}")
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)


@dataclass(frozen=True, kw_only=True)
class Pieces(Peer):
    """A codec of imagecodecs, or else numcodecs' Blosc, on `frames` frames at once, threaded."""

    options: dict = field(default_factory=dict)
    bound_option: str = ""
    frames: int = 1

    def supports(self, dtype, shape, bound):
        near = 1 <= bound < 256  # what JPEG-LS takes
        return super().supports(dtype, shape, bound) and (self.lossless or near)

    def encode(self, stack, bound, threads):
        with ThreadPoolExecutor(threads) as pool:
            pieces = map(np.ascontiguousarray, self._cut(stack))
            parts = list(pool.map(lambda piece: self._pack(piece, bound), pieces))
        return Encoded.of(stack, parts)

    def decode(self, encoded, threads):
        out = np.empty(encoded.shape, encoded.dtype)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(self._unpack, encoded.parts, self._cut(out)))
        return out

    def _cut(self, stack):
        starts = range(0, len(stack), self.frames)
        return [stack[i] if self.frames == 1 else stack[i : i + self.frames] for i in starts]

    def _pack(self, piece, bound) -> bytes:
        if not self.needs:
            return Blosc(**self.options).encode(piece)
        options = {**self.options, self.bound_option: int(bound)} if bound else self.options
        return self._function("encode")(piece, **options)

    def _unpack(self, part, piece) -> None:
        told = {"shape": piece.shape, "dtype": piece.dtype} if self.name == "pcodec" else {}
        if self.needs:
            piece[...] = self._function("decode")(part, **told)
        else:
            Blosc().decode(part, piece)

    def _function(self, verb):
        module, kind = self.needs.split(".")
        return getattr(importlib.import_module(module), f"{kind.lower()}_{verb}")


@dataclass(frozen=True, kw_only=True)
class Video(Peer):
    """A video codec of ffmpeg; `rgb`: the encoder, if another, and pixel format for colour."""

    options: str
    rgb: str
    stream: str = "matroska"
    dtypes: tuple[str, ...] = ("uint8",)
    pictures: bool = True

    def supports(self, dtype, shape, bound):
        return super().supports(dtype, shape, bound) and (len(shape) == 3 or dtype == np.uint8)

    def encode(self, stack, bound, threads):
        raw, size = _raw(stack), f"{stack.shape[2]}x{stack.shape[1]}"
        # Gray must be marked as of full range, or it is rescaled when decoded.
        gray = f"{self.needs.split('.')[1]} -color_range pc -pix_fmt {raw}"
        codec = f"{self.rgb if raw == 'rgb24' else gray} {self.options.format(threads=threads)}"
        source = f"-f rawvideo -pix_fmt {raw} -s {size} -r 25 -i pipe:0"
        target = f"-c:v {codec} -threads {threads} -f {self.stream} pipe:1"
        return Encoded.of(stack, [_ffmpeg(f"{source} {target}", np.ascontiguousarray(stack))])

    def decode(self, encoded, threads):
        source = f"-threads {threads} -f {self.stream} -i pipe:0"
        data = _ffmpeg(f"{source} -f rawvideo -pix_fmt {_raw(encoded)} pipe:1", encoded.parts[0])
        return np.frombuffer(data, encoded.dtype).reshape(encoded.shape)


def _raw(stack: np.ndarray | Encoded) -> str:
    return "rgb24" if len(stack.shape) == 4 else f"gray{'16le' * (stack.dtype.itemsize == 2)}"


def _ffmpeg(arguments: str, data) -> bytes:
    command = ["ffmpeg", "-v", "error", "-nostdin", *arguments.split()]
    done = subprocess.run(command, input=memoryview(data).cast("B"), capture_output=True)
    if done.returncode:
        raise RuntimeError(f"ffmpeg failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return done.stdout


def peers() -> list[Peer]:
    """Every codec we know to compare with, installed or not."""
    still = {"dtypes": _GRAYS, "pictures": True}
    # fmt: off
    return [
        Difference(name="previous-frame difference + zstd-9", level=9),
        Pieces(name="blosc bitshuffle+zstd-5", frames=16,
               options={"cname": "zstd", "clevel": 5, "shuffle": Blosc.BITSHUFFLE}),
        Hdf5Filter(name="hdf5 shuffle+gzip-9", shuffle=True, options={"compression": 9}),
        Hdf5Filter(name="hdf5 shuffle+zstd-9", needs="hdf5plugin.Zstd", shuffle=True,
                   options={"clevel": 9}),
        Hdf5Filter(name="hdf5 bitshuffle+zstd-5", needs="hdf5plugin.Bitshuffle",
                   options={"cname": "zstd", "clevel": 5}),
        *(Hdf5Filter(name=f"hdf5 blosc2 {filters}+zstd-9", needs="hdf5plugin.Blosc2",
                     options={"cname": "zstd", "clevel": 9, "filters": number})
          for filters, number in (("shuffle", 1), ("bitshuffle", 2))),
        Hdf5Filter(name="hdf5 zfp reversible", needs="hdf5plugin.Zfp", dtypes=_FLOATS,
                   options={"reversible": True}, frames=0),
        Pieces(name="pcodec", needs="imagecodecs.PCODEC", frames=16,
               dtypes=("uint16", "int16", "uint32", "int32", *_FLOATS)),
        Pieces(name="jpeg-ls", needs="imagecodecs.JPEGLS", **still),
        Pieces(name="jpeg2000", needs="imagecodecs.JPEG2K", options={"reversible": True}, **still),
        *(Pieces(name=f"jpeg-xl effort {effort}", needs="imagecodecs.JPEGXL", slow=effort == 9,
                 options={"lossless": True, "effort": effort}, **still) for effort in (3, 7, 9)),
        Video(name="ffv1", needs="ffmpeg.ffv1", dtypes=_GRAYS, rgb="ffv1 -pix_fmt bgr0",
              options="-level 3 -coder 1 -context 1 -g 9999 -slices 4 -slicecrc 0"),
        *(Video(name=f"x264 {preset}", needs="ffmpeg.libx264", stream="h264",
                rgb="libx264rgb -pix_fmt rgb24", options=f"-qp 0 -preset {preset}",
                slow=preset == "veryslow") for preset in ("medium", "veryslow")),
        # Some versions of x265 are not exact where they weight the predictions of B-frames.
        *(Video(name=f"x265 {preset}", needs="ffmpeg.libx265", stream="hevc",
                rgb="libx265 -pix_fmt gbrp", options=f"-preset {preset} -x265-params "
                "lossless=1:weightb=0:info=0:log-level=error:pools={threads}",
                slow=preset == "veryslow") for preset in ("medium", "veryslow")),
        *(Hdf5Filter(name=f"hdf5 {kind.lower()}{', 16 frames' if frames else ''}", frames=frames,
                     needs=f"hdf5plugin.{kind}", lossless=False, finite=True,
                     bound_option="absolute")
          for kind in ("SZ3", "Sperr") for frames in (0, 16)),
        Hdf5Filter(name="hdf5 zfp", needs="hdf5plugin.Zfp", lossless=False, finite=True, frames=0,
                   bound_option="accuracy"),
        Pieces(name="jpeg-ls near", needs="imagecodecs.JPEGLS", lossless=False, **still,
               bound_option="level"),
    ]
    # fmt: on

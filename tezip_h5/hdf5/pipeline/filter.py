"""The HDF5 filter, in Python. With it, plain h5py reads a compressed stack.

libhdf5 calls `_filter` for every chunk that it reads or writes. A Python exception cannot pass
through libhdf5: h5py raises only ``OSError: filter returned failure``. The real exception is
therefore logged (logger "tezip_h5") and kept in `last_error()`.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import ctypes
import functools
import logging
import os
import threading
import zlib
from collections import OrderedDict

import h5py
import numpy as np

from tezip_h5 import bitstream, codec
from tezip_h5.bounds import ChunkBound
from tezip_h5.errors import FormatError, InputError, TezipError
from tezip_h5.hdf5.pipeline import cache
from tezip_h5.hdf5.pipeline.options import FILTER_ID, FILTER_NAME, ChunkOptions
from tezip_h5.levels import DTYPES
from tezip_h5.model import store

__all__ = ["decode", "encode", "last_error", "register"]

_log = logging.getLogger("tezip_h5")
_REVERSE = 0x0100  # HDF5's H5Z_FLAG_REVERSE: the filter is to decode
_MAX_RANK = 32  # HDF5's largest number of axes
_WRAPPERS = {0: h5py.h5t.TypeIntegerID, 1: h5py.h5t.TypeFloatID, 8: h5py.h5t.TypeEnumID}
"""h5py's classes for the HDF5 types that samples may have, by the number of the type's class."""
_INTERRUPT_SECONDS = 0.25  # a Ctrl-C is raised after this time, when HDF5 has left the filter

_hid = ctypes.c_int64
_size = ctypes.c_size_t
_CanApply = ctypes.CFUNCTYPE(ctypes.c_int, _hid, _hid, _hid)
_SetLocal = ctypes.CFUNCTYPE(ctypes.c_int, _hid, _hid, _hid)
_FILTER_ARGUMENTS = (
    ctypes.c_uint,
    _size,
    ctypes.POINTER(ctypes.c_uint),
    _size,
    ctypes.POINTER(_size),
    ctypes.POINTER(ctypes.c_void_p),
)
_Filter = ctypes.CFUNCTYPE(_size, *_FILTER_ARGUMENTS)
_Callback = ctypes.CFUNCTYPE(None, *_FILTER_ARGUMENTS)


class _FilterClass(ctypes.Structure):
    """H5Z_class2_t."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("id", ctypes.c_int),
        ("encoder_present", ctypes.c_uint),
        ("decoder_present", ctypes.c_uint),
        ("name", ctypes.c_char_p),
        ("can_apply", _CanApply),
        ("set_local", _SetLocal),
        ("filter", _Filter),
    )


def _library() -> ctypes.CDLL:
    """The libhdf5 that h5py itself uses, through the module that is linked to it."""
    library = ctypes.CDLL(h5py.h5z.__file__)
    library.H5allocate_memory.restype = ctypes.c_void_p
    library.H5allocate_memory.argtypes = (_size, ctypes.c_bool)
    library.H5free_memory.argtypes = (ctypes.c_void_p,)
    library.H5Pget_chunk.argtypes = (_hid, ctypes.c_int, ctypes.c_void_p)
    library.H5Pget_filter_by_id2.argtypes = (
        _hid,
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_uint),
        ctypes.POINTER(_size),
        ctypes.c_void_p,
        _size,
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_uint),
    )
    library.H5Pmodify_filter.argtypes = (_hid, ctypes.c_int, ctypes.c_uint, _size, ctypes.c_void_p)
    library.H5Tget_class.argtypes = (_hid,)
    library.H5Tcopy.argtypes = (_hid,)
    library.H5Tcopy.restype = _hid
    library.H5Tget_size.argtypes = (_hid,)
    library.H5Tget_size.restype = _size
    return library


_lib = None
_class = None  # must live as long as the process: libhdf5 holds its address
_last_error: BaseException | None = None


def last_error() -> BaseException | None:
    """The exception behind the filter's last failure in this process, or None.

    HDF5 itself raises an ``OSError`` that does not say why.

    Returns
    -------
    TezipError, another exception, or None
    """
    return _last_error


def _failed(error: BaseException) -> None:
    global _last_error
    _last_error = error
    if isinstance(error, KeyboardInterrupt):
        # HDF5 must leave the filter first; an exception raised before that would be lost.
        later = threading.Timer(_INTERRUPT_SECONDS, _thread.interrupt_main)
        later.daemon = True
        later.start()
    elif isinstance(error, TezipError):
        _log.error("tezip filter: %s", error)
    else:
        _log.exception("tezip filter: unexpected error")


class _ReadFrames:
    """Checksums of frames that lossy chunks decoded to in this process.

    When part of a chunk is rewritten, HDF5 has the whole chunk encoded again. Frames that are
    found here are kept exactly, so that their error does not grow. An accidental match is
    harmless: it only keeps one more frame exactly.
    """

    limit = 1 << 18

    def __init__(self):
        self.unlock()
        self._seen: OrderedDict[int | bytes, None] = OrderedDict()

    def unlock(self) -> None:
        """Make a new lock after a fork, because another thread may have held the old one."""
        self._lock = threading.Lock()

    def add(self, identity: bytes, frames: np.ndarray) -> None:
        """Note the frames of the chunk whose payload has this identity, once."""
        with self._lock:
            if identity in self._seen:
                return
        sums = [zlib.crc32(np.ascontiguousarray(frame)) for frame in frames]
        with self._lock:
            self._seen.update(dict.fromkeys([*sums, identity]))
            while len(self._seen) > self.limit:
                self._seen.popitem(last=False)

    def find(self, frames: np.ndarray) -> np.ndarray:
        """Which of `frames` were noted, bool (G,)."""
        sums = [zlib.crc32(np.ascontiguousarray(frame)) for frame in frames]
        with self._lock:
            return np.array([checksum in self._seen for checksum in sums])


_read_frames = _ReadFrames()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _read_frames.unlock())


def decode(options: ChunkOptions, payload, threads: int = 1) -> np.ndarray:
    """The chunk's samples in the dataset's dtype; not to be written to.

    Raises
    ------
    FormatError
        Also when the payload belongs to a dataset of another shape or dtype.
    """
    header, identity = bitstream.peek(payload)
    expected = options.dtype.newbyteorder("<")
    if header.shape != options.shape or header.dtype != expected:
        raise FormatError(
            f"a chunk holds {header.dtype} {header.shape}, its dataset says {expected} "
            f"{options.shape}; the chunk belongs to another dataset"
        )
    frames = cache.decoded(payload, threads=threads)
    if not options.bound.lossless:
        _read_frames.add(identity, frames)
    return frames.byteswap() if options.dtype != expected else frames


def encode(options: ChunkOptions, frames: np.ndarray) -> bytes:
    """Encode a whole chunk, which HDF5 writes or rewrites.

    Frames that this process decoded from a lossy chunk, and that are unchanged, are kept exactly.
    The chunk may be padded, see `ErrorBound.of_frames`.

    Parameters
    ----------
    options : ChunkOptions
    frames : array of `options.shape`, of any byte order

    Raises
    ------
    ModelError
        When a network is pinned that is not known here.
    """
    frames = frames.astype(options.dtype.newbyteorder("<"), copy=False)
    bound = ChunkBound()
    if not options.bound.lossless:
        bound = options.bound.of_frames(frames.reshape((*frames.shape[:3], -1)), padded=True)
        bound = bound.exact_where(_read_frames.find(frames))
    model = None
    if options.settings.predictor == "prednet":  # only then: the filter cannot embed a network
        model = store.resolve(options.settings.model, frames.shape[3] if frames.ndim == 4 else 1)
    return codec.encode_chunk(frames, bound, options.settings, model=model).payload


def _encode(options: ChunkOptions, chunk: bytes) -> bytes:
    if options.dtype is None:
        raise FormatError("cd_values hold no dtype and shape; create the dataset with tezip_h5")
    return encode(options, np.frombuffer(chunk, options.dtype).reshape(options.shape))


_made: dict[str, int] = {}  # "size": bytes of the chunk that `_callback` made


@_Callback
def _callback(flags, count, values, nbytes, buf_size, buf):
    """Decode or encode one chunk; its size goes to `_made`."""
    try:
        chunk = (ctypes.c_char * nbytes).from_address(buf[0])
        if flags & _REVERSE:
            options = ChunkOptions.of_decoder(values[:count])
            result = decode(options, memoryview(chunk).cast("B"))
            address, size = result.ctypes.data, result.nbytes
        else:
            result = _encode(ChunkOptions.unpack(values[:count]), bytes(chunk))
            address, size = ctypes.cast(result, ctypes.c_void_p).value, len(result)
        fresh = _lib.H5allocate_memory(size, False)
        if not fresh:
            raise MemoryError(f"libhdf5 could not allocate {size} bytes")
        ctypes.memmove(fresh, address, size)
        old = buf[0]
        buf[0], buf_size[0] = fresh, size
        _lib.H5free_memory(old)
        _made["size"] = size
    except BaseException as error:  # no exception may pass into C, not even KeyboardInterrupt
        _failed(error)


def _guarded(callback):
    """The function that HDF5 calls: `callback`, and then, in C alone, ``_made.pop("size", 0)``.

    A signal handler may raise before the first line of `callback`, or in its `except`. If HDF5 got
    the result of `callback` itself, ctypes would then return whatever was in memory, and HDF5 would
    take that for the size of a chunk. It would read wrong bytes without an error.
    """
    # An `errcheck` is called with three arguments, which this function of C does not look at.
    prototype = ctypes.PYFUNCTYPE(*[ctypes.py_object] * 5)
    call_without_arguments = prototype(("PyObject_CallNoArgs", ctypes.pythonapi))
    call = _Callback(ctypes.cast(callback, ctypes.c_void_p).value)
    take_size = functools.partial(_made.pop, "size", 0)
    call.errcheck = functools.partial(call_without_arguments, take_size)
    return _Filter(call)


_filter = _guarded(_callback)


@_CanApply
def _can_apply(dcpl, type_id, space):
    return 1


@_SetLocal
def _set_local(dcpl, type_id, space):
    try:
        _fill_in(dcpl, type_id, space)
        return 0
    except BaseException as error:
        _failed(error)
        return -1


def _fill_in(dcpl: int, type_id: int, space: int) -> None:
    """Complete the cd_values of a dataset being created with its dtype and chunk shape."""
    flags, count = ctypes.c_uint(), _size(64)
    values = (ctypes.c_uint * 64)()
    if (
        _lib.H5Pget_filter_by_id2(
            dcpl, FILTER_ID, ctypes.byref(flags), ctypes.byref(count), values, 0, None, None
        )
        < 0
    ):
        raise InputError("the dataset's filter options cannot be read")
    options = ChunkOptions.unpack(values[: count.value])
    if options.dtype is not None:
        return  # the options come from our writer and are complete
    dims = (ctypes.c_uint64 * _MAX_RANK)()
    rank = _lib.H5Pget_chunk(dcpl, _MAX_RANK, dims)
    shape = _chunk_shape([int(n) for n in dims[:rank]])
    completed = ChunkOptions(_dtype_of(type_id), shape, options.bound, options.settings)
    packed = completed.pack()
    array = (ctypes.c_uint * len(packed))(*packed)
    if _lib.H5Pmodify_filter(dcpl, FILTER_ID, flags.value, len(packed), array) < 0:
        raise InputError("the dataset's filter options cannot be set")


def _chunk_shape(dims: list[int]) -> tuple[int, ...]:
    if len(dims) == 2:
        return (1, *dims)
    if len(dims) == 3 or (len(dims) == 4 and dims[3] <= 4):
        return tuple(dims)
    raise InputError(
        f"chunks of shape {tuple(dims)}: expected (frames, rows, columns) or (frames, rows, "
        "columns, channels <= 4); move or flatten the axes first"
    )


def _dtype_of(type_id: int) -> np.dtype:
    """The sample type of an HDF5 datatype, as h5py sees it: its bool is an enumeration."""
    number_class = _lib.H5Tget_class(type_id)
    wrapper = _WRAPPERS.get(number_class)
    with contextlib.suppress(TypeError, ValueError):  # h5py's, for floats of unknown kinds
        dtype = np.dtype(wrapper(_lib.H5Tcopy(type_id)).dtype.str)
        if dtype.newbyteorder("=").name in DTYPES:
            return dtype
    raise InputError(
        f"an HDF5 type of class {number_class} with {_lib.H5Tget_size(type_id)} bytes; tezip "
        f"stores {', '.join(DTYPES)}"
    )


def _flush_open_files() -> None:
    """Flush HDF5's chunk caches at exit, while Python can still encode.

    libhdf5 would flush them later, when no Python code runs any more, and store the chunks raw.
    """
    for file in h5py.h5f.get_obj_ids(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE):
        with contextlib.suppress(RuntimeError, OSError):  # a full disk: nothing more can be done
            if file.get_intent() != h5py.h5f.ACC_RDONLY:
                h5py.h5f.flush(file)


def register() -> None:
    """Register the filter with the libhdf5 of h5py. Called at import; repeating it is harmless."""
    global _lib, _class
    if _class is not None and h5py.h5z.filter_avail(FILTER_ID):
        return
    _lib = _library()
    _class = _FilterClass(1, FILTER_ID, 1, 1, FILTER_NAME, _can_apply, _set_local, _filter)
    h5py.h5z.register_filter(ctypes.addressof(_class))
    atexit.register(_flush_open_files)

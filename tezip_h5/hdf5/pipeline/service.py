"""The process that decodes chunks for the C plugin (`filters/tezip.c`).

The plugin starts it with a socket as standard input, and ends it by closing the socket. Messages
are in the machine's byte order:

    greeting  u32 magic, u32 0, u64 0
    question  u32 magic, u32 n, u32 f, u32 0, u64 p;  n x u32 cd_values, f bytes of file names (each
              ended by a zero), p bytes of payload
    answer    u32 magic, u32 status, u64 size;  `size` bytes: the chunk (status 0), a message
              (status 1), or one about a model that was not found (status 2)

After status 2 the plugin asks again, with the names of the files that its process has open. One of
them should contain the model.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct

import h5py
import numpy as np

from tezip_h5.errors import ModelError, TezipError
from tezip_h5.hdf5.pipeline.filter import decode
from tezip_h5.hdf5.pipeline.options import ChunkOptions
from tezip_h5.hdf5.threads import default_threads
from tezip_h5.model import embedding, store

__all__ = ["main", "serve"]

_GREETING = 0x505A4554
_QUESTION = struct.Struct("=IIIIQ")
_ANSWER = struct.Struct("=IIQ")
_CHUNK, _ERROR, _NO_MODEL = range(3)


def main() -> None:
    """Serve the socket that is standard input, until it closes."""
    with contextlib.suppress(ConnectionError, EOFError):
        serve(socket.socket(fileno=0))
    os._exit(0)  # nothing to finish, and the plugin waits


def serve(connection: socket.socket) -> None:
    """Answer questions until the other side closes; raises EOFError or ConnectionError then."""
    threads = default_threads()
    connection.sendall(_ANSWER.pack(_GREETING, 0, 0))
    while True:
        magic, count, names, _, size = _QUESTION.unpack(_receive(connection, _QUESTION.size))
        if magic != _GREETING:
            raise EOFError
        values = np.frombuffer(_receive(connection, 4 * count), np.uint32).tolist()
        files = bytes(_receive(connection, names)).split(b"\0")[:-1]
        payload = _receive(connection, size)
        for name in files:
            _take_models(name)
        status, answer = _answer(values, payload, threads)
        connection.sendall(_ANSWER.pack(_GREETING, status, answer.nbytes))
        connection.sendall(answer)


def _answer(values: list[int], payload: memoryview, threads: int) -> tuple[int, memoryview]:
    """Status and bytes of one answer."""
    try:
        frames = decode(ChunkOptions.of_decoder(values), payload, threads)
        return _CHUNK, memoryview(np.ascontiguousarray(frames)).cast("B")
    except ModelError as error:
        return _NO_MODEL, memoryview(str(error).encode())
    except TezipError as error:
        return _ERROR, memoryview(str(error).encode())
    except Exception as error:  # whatever it is, the next chunk may be better
        return _ERROR, memoryview(f"{type(error).__name__}: {error}".encode())


def _take_models(name: bytes) -> None:
    """Register the models of a file that the plugin's process has open, if it is an HDF5 file."""
    with contextlib.suppress(OSError, KeyError, RuntimeError):
        if not h5py.is_hdf5(name):
            return
        with h5py.File(os.fsdecode(name), "r", locking=False) as file:
            for digest in embedding.embedded(file):
                with contextlib.suppress(TezipError):  # the next may be the one that is needed
                    store.register(embedding.read(file, digest))


def _receive(connection: socket.socket, size: int) -> memoryview:
    """Receive exactly `size` bytes."""
    buffer = memoryview(bytearray(size))
    at = 0
    while at < size:
        got = connection.recv_into(buffer[at:])
        if got == 0:
            raise EOFError
        at += got
    return buffer

"""Damaged payloads of every coder into the decoder: an array or one of our errors, nothing else.

    pip install atheris                                   # Linux; optional
    NUMBA_BOUNDSCHECK=1 python tests/fuzz.py -max_total_time=300
    NUMBA_BOUNDSCHECK=1 python tests/fuzz.py --random 60  # seconds, without atheris

Not a test that pytest collects: it runs for as long as it is let. With atheris, what the Python
code does steers the search, and libFuzzer's options are taken; an input that failed is written
to a file, which `python tests/fuzz.py FILE` runs again. NUMBA_BOUNDSCHECK=1 turns a kernel's
access outside its arrays into an IndexError, which counts as a failure here.

Sections are damaged behind the checksums: they are made anew, else nothing else would be found.
"""

from __future__ import annotations

import contextlib
import random
import struct
import sys
import time
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np

try:
    import atheris
except ImportError:
    atheris = None

if atheris is None:
    steered = contextlib.nullcontext()
else:  # not the kernels: numba cannot compile what atheris has changed
    steered = atheris.instrument_imports(include=["tezip_h5"], exclude=["tezip_h5.kernels"])
with steered:
    from tezip_h5 import bitstream, codec, levels, prediction, residual
    from tezip_h5.bounds import ErrorBound
    from tezip_h5.errors import FormatError, ModelError
    from tezip_h5.model import store
    from tezip_h5.settings import Settings

GOLDEN = Path(__file__).parent / "golden"
MOST_BYTES = 1 << 17  # of a decoded chunk
SECTIONS = [*range(1, 13)]  # all numbers that ever were sections


def seeds() -> list[bytes]:
    """Small payloads: the golden ones, and every coder, kind of scale and predictor."""
    found = [path.read_bytes() for path in sorted(GOLDEN.glob("*.tezip"))]
    t, y, x = np.ogrid[:3, :24, :20]
    moving = ((x + t) * 9 + y * 5 + (x * y + t) % 7).astype("u1")
    colour = np.stack([moving, moving // 2, moving // 3 + 9], -1)
    holes = moving.astype("f4") / 7
    holes[1, 3:5] = np.nan
    for coder in ("fallback", "stages", "linear", "mixing"):
        for frames in (moving, moving * np.uint16(37), colour, holes, holes.astype("f8")):
            for bound in ({}, {"absolute": 2}, {"pointwise_relative": 0.1}):
                for level in ("balanced", "best"):
                    limits = ErrorBound(**bound).of_frames(frames.reshape((*frames.shape[:3], -1)))
                    settings = Settings(level=level, coder=coder, window=2, warmup=1)
                    found.append(codec.encode_chunk(frames, limits, settings).payload)
    stretched = moving / np.array([231, 245, 239])[:, None, None]  # each frame by itself
    for coder in ("stages", "linear", "mixing"):
        for dtype in ("f4", "f8"):
            frames = stretched.astype(dtype)
            frames[1, 2, 3] += 4 * np.spacing(frames[1, 2, 3])
            limits = ErrorBound().of_frames(frames[..., None])
            found.append(codec.encode_chunk(frames, limits, Settings(coder=coder)).payload)
    for coder in ("stages", "mixing"):
        settings = Settings(coder=coder, predictor="prednet", window=3)
        limits = ErrorBound().of_frames(moving[..., None])
        network = codec.encode_chunk(moving, limits, settings, model=store.default(1))
        found.append(network.payload)
    return sorted({payload for payload in found if len(payload) < 1 << 14})


class Choices:
    """Decisions read from bytes; zeros behind their end."""

    def __init__(self, data: bytes):
        self._data, self._at = data, 0

    def number(self, most: int) -> int:
        """A number in 0..most."""
        if most <= 0:
            return 0
        size = (most.bit_length() + 7) // 8
        value = int.from_bytes(self.take(size).ljust(size, b"\0"), "little")
        return value % (most + 1)

    def take(self, count: int) -> bytes:
        """The next bytes, at most `count`."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken


def damage(choices: Choices, payload: bytes) -> bytes:
    """A payload with a few bytes changed, removed or added."""
    if choices.number(15) == 15:  # as it would happen to a file: before the checksums
        return changed(choices, payload)
    parsed = bitstream.unpack(payload)
    header, sections = parsed.header, dict(parsed.sections)
    for _ in range(1 + choices.number(3)):
        action = choices.number(31)
        if action == 31:
            header = damaged_header(choices, header)
        elif action == 30:
            sections[SECTIONS[choices.number(len(SECTIONS) - 1)]] = choices.take(choices.number(40))
        elif action == 29 and sections:
            del sections[sorted(sections)[choices.number(len(sections) - 1)]]
        elif sections:  # mostly the largest
            ranked = sorted(sections, key=lambda number: -len(sections[number]))
            number = ranked[choices.number(len(sections) - 1) if action % 2 else 0]
            sections[number] = changed(choices, sections[number])
    try:
        return bitstream.pack(header, sections)
    except struct.error:  # a field that does not fit is no payload
        return payload


def damaged_header(choices: Choices, header):
    """A header with one field changed."""
    field = choices.number(6)
    if field == 0:
        return replace(header, coder=choices.number(5))
    if field == 1:
        return replace(header, predictor=choices.number(len(prediction.NUMBERS)))
    if field == 2:
        return replace(header, scale=choices.number(9))
    if field == 3:
        return replace(header, flags=choices.number(3))
    if field == 4:
        name = levels.DTYPES[choices.number(len(levels.DTYPES) - 1)]
        return replace(header, dtype=np.dtype(name).newbyteorder("<"))
    if field == 5:
        sizes = tuple(choices.number(40) for _ in range(3))
        channels = choices.number(4)
        return replace(header, shape=sizes + ((channels,) if channels else ()))
    return replace(header, valid=tuple(choices.number(40) for _ in range(3)))


def changed(choices: Choices, data: bytes) -> bytes:
    """Bytes with a few of them overwritten, removed or inserted."""
    at = choices.number(len(data))
    count = choices.number(7)
    action = choices.number(15)
    if action == 15:
        return data[:at]
    if action == 14:
        return data[:at] + data[at + 1 + count :]
    if action == 13:
        return data[:at] + choices.take(1 + count) + data[at:]
    new = choices.take(1 + count)
    return data[:at] + new + data[at + len(new) :]


def check(payload: bytes) -> bool:
    """Decode; whether the payload was taken. Anything but our own errors passes through."""
    try:
        frames = codec.decode_chunk(payload, max_bytes=MOST_BYTES)
    except (FormatError, ModelError):
        return False
    if not isinstance(frames, np.ndarray) or frames.nbytes > MOST_BYTES:
        raise TypeError(f"decoded to {type(frames).__name__}: {frames!r}")
    return True


def main() -> int:
    if not numba.config.BOUNDSCHECK:
        print("without NUMBA_BOUNDSCHECK=1 no access outside arrays is seen", file=sys.stderr)
    known = seeds()
    coders = {bitstream.peek(payload)[0].coder for payload in known}
    missing = set(residual.NUMBERS.values()) - coders
    if missing:
        raise ValueError(f"no seed of the coders {missing}")
    if not all(map(check, known)):  # compiles the kernels, too
        raise ValueError("a seed does not decode")

    def run(data: bytes) -> None:
        choices = Choices(bytes(data))
        check(damage(choices, known[choices.number(len(known) - 1)]))

    if "--random" not in sys.argv:
        if atheris is None:
            print("atheris is not installed; give --random SECONDS", file=sys.stderr)
            return 1
        atheris.Setup([*sys.argv, "-timeout=60", "-max_len=200"], run)
        atheris.Fuzz()
    source, runs = random.Random(1), 0
    end = time.monotonic() + float(sys.argv[sys.argv.index("--random") + 1])
    while time.monotonic() < end:
        data = source.randbytes(source.randrange(4, 40))
        try:
            run(data)
        except BaseException:
            print(f"failed on bytes.fromhex({data.hex()!r})", file=sys.stderr)
            raise
        runs += 1
    print(f"{runs} payloads, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())

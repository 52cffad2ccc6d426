"""The integer model: weights, shifts and tables that give the same results on every machine.

Every activation is an integer of at most 12 bits. The accumulators of a convolution stay below
2**24 in magnitude, in any order of summation. They are therefore exact in int32, and in float32
too. (Colbert et al., *A2Q: Accumulator-Aware Quantization*, ICCV 2023, bound them in the same
way.) Each accumulator becomes an activation by adding half and shifting right. The scales of all
tensors are folded into the weights, so that no other multiplication is needed.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import zstandard

from tezip_h5.errors import DamagedModelError, ModelError
from tezip_h5.prediction.architecture import KERNEL, Architecture

__all__ = [
    "ACTIVATION",
    "BEGINNING",
    "CELL",
    "GATE",
    "MAX_BYTES",
    "PREACTIVATION",
    "Convolution",
    "IntegerModel",
]

ACTIVATION = 255
"""Largest activation: frames, errors, A and Ahat are 0..255, R and changes -255..255."""
GATE = 256
"""An open gate (1.0) of the LSTM."""
PREACTIVATION = 1023
"""The cell input's tanh takes -1023..1023, in steps of 1/256."""
CELL = 2047
"""The LSTM's cell saturates at +-2047, in steps of 1/256."""

ACCUMULATOR = 1 << 24
BEGINNING = b"TZM0"
"""First bytes of a .tzm file."""
MAX_BYTES = 1 << 28
"""Largest size of a model, compressed or not."""
_STORED = ("<i4", "<i2", "|u1")
_TABLES = {"tanh_input": (2 * PREACTIVATION + 1, GATE), "tanh_cell": (2 * CELL + 1, ACTIVATION)}


@dataclass(frozen=True)
class Convolution:
    """One 3x3 convolution.

    Attributes
    ----------
    kernel : int16 or int32 (3, 3, in, out)
    bias : int32 (out,)
    shift : uint8 (out,)
        Bits that an accumulator is shifted right by.
    """

    kernel: np.ndarray
    bias: np.ndarray
    shift: np.ndarray

    @cached_property
    def bounds(self) -> np.ndarray:
        """Largest magnitude of every channel's accumulator, rounding included: int64 (out,)."""
        weights = np.abs(self.kernel.astype(np.int64)).sum((0, 1, 2))
        half = (np.int64(1) << self.shift.astype(np.int64)) >> 1
        return weights * ACTIVATION + np.abs(self.bias.astype(np.int64)) + half


@dataclass(frozen=True)
class IntegerModel:
    """An integer PredNet.

    Parameters
    ----------
    architecture : Architecture
    convolutions : dict of Convolution, by name as `Architecture.convolutions` has them
    tables : dict
        ``tanh_input`` int16 (2047,) of -256..256 and ``tanh_cell`` int16 (4095,) of -255..255.
    conformance : int32 (T, C, h, w)
        The predictions after each of the `conformance_frames`.
    provenance : dict
        The origin of the model: data, licences, training; free text.

    Raises
    ------
    ModelError
        When shapes do not fit the architecture, or an accumulator could reach 2**24.
    """

    architecture: Architecture
    convolutions: dict[str, Convolution]
    tables: dict[str, np.ndarray]
    conformance: np.ndarray
    provenance: dict = field(default_factory=dict)

    def __post_init__(self):
        expected = self.architecture.convolutions()
        if list(self.convolutions) != list(expected):
            raise ModelError(
                f"a model with the convolutions {list(self.convolutions)}; its architecture has "
                f"{list(expected)}"
            )
        for name, (inputs, outputs) in expected.items():
            conv = self.convolutions[name]
            shapes = (conv.kernel.shape, conv.bias.shape, conv.shift.shape)
            if shapes != ((KERNEL, KERNEL, inputs, outputs), (outputs,), (outputs,)):
                raise ModelError(
                    f"convolution {name} has arrays of shape {shapes}; its architecture has "
                    f"{inputs} channels in and {outputs} out"
                )
            if conv.shift.max() > 24 or conv.bounds.max() >= ACCUMULATOR:
                raise ModelError(
                    f"convolution {name}: an accumulator may reach {conv.bounds.max()}, below "
                    f"{ACCUMULATOR} it would be exact; this model cannot be used, export it again"
                )
        for name, (size, limit) in _TABLES.items():
            table = self.tables.get(name)
            if (
                table is None
                or table.shape != (size,)
                or np.abs(table.astype(np.int64)).max() > limit
            ):
                raise ModelError(f"the table {name} is not {size} numbers of at most {limit}")

    # --- bytes --------------------------------------------------------------------------

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, little-endian, in the order of storage.

        Returns
        -------
        dict of array
            ``NAME/kernel`` int16 or int32 (3, 3, in, out), ``NAME/bias`` and ``NAME/bound`` int32
            (out,), ``NAME/shift`` uint8 (out,) of every convolution; the tables; ``conformance``.
        """
        out = {}
        for name, conv in self.convolutions.items():
            wide = np.abs(conv.kernel.astype(np.int64)).max() > 32767
            out[f"{name}/kernel"] = conv.kernel.astype("<i4" if wide else "<i2")
            out[f"{name}/bias"] = conv.bias.astype("<i4")
            out[f"{name}/shift"] = conv.shift.astype("u1")
            out[f"{name}/bound"] = conv.bounds.astype("<i4")
        for name in _TABLES:
            out[f"tables/{name}"] = self.tables[name].astype("<i2")
        out["conformance"] = self.conformance.astype("<i4")
        return out

    @cached_property
    def description(self) -> str:
        """The model's JSON: architecture and provenance."""
        document = {
            "architecture": json.loads(self.architecture.to_json()),
            "provenance": self.provenance,
        }
        return json.dumps(document, sort_keys=True)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the description and all arrays, 32 bytes."""
        return _digest(self.description, self.arrays())

    @classmethod
    def from_arrays(cls, description: str, arrays: dict[str, np.ndarray]) -> IntegerModel:
        """Rebuild a model; the inverse of `description` and `arrays`.

        Parameters
        ----------
        description : str
        arrays : dict of array, as `arrays` gives them

        Returns
        -------
        IntegerModel

        Raises
        ------
        ModelError
            When anything is missing, has another shape, or an accumulator could overflow.
        """
        try:
            # The digest is of arrays of these types; other types could hold other numbers.
            for name, array in arrays.items():
                if array.dtype.str not in _STORED:
                    raise ValueError(f"array {name} of type {array.dtype}")
            document = json.loads(description)
            architecture = Architecture.from_json(json.dumps(document["architecture"]))
            convolutions = {
                name: Convolution(
                    *(np.asarray(arrays[f"{name}/{part}"]) for part in ("kernel", "bias", "shift"))
                )
                for name in architecture.convolutions()
            }
            tables = {name: np.asarray(arrays[f"tables/{name}"]) for name in _TABLES}
            model = cls(
                architecture,
                convolutions,
                tables,
                np.asarray(arrays["conformance"]),
                dict(document["provenance"]),
            )
            stored = {name: np.asarray(arrays[f"{name}/bound"]) for name in convolutions}
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise ModelError(f"this is no integer model: {error!r}") from None
        for name, array in model.arrays().items():
            if arrays[name].dtype != array.dtype:
                raise ModelError(
                    f"array {name} is {arrays[name].dtype}, in a model it is {array.dtype}; the "
                    "model is damaged"
                )
        for name, conv in convolutions.items():
            if not np.array_equal(stored[name], conv.bounds):
                raise ModelError(
                    f"convolution {name}: its accumulators' bounds are not those the model states; "
                    "the model is damaged"
                )
        return model

    def to_bytes(self) -> bytes:
        """One file: magic, digest, and compressed description and arrays.

        Returns
        -------
        bytes
        """
        arrays = self.arrays()
        index = {name: [a.dtype.str, a.shape] for name, a in arrays.items()}
        head = json.dumps({"description": self.description, "arrays": index}).encode()
        body = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values())
        packed = zstandard.compress(struct.pack("<I", len(head)) + head + body, 19)
        return BEGINNING + self.digest + packed

    @classmethod
    def from_bytes(cls, data: bytes) -> IntegerModel:
        """Read what `to_bytes` wrote.

        Parameters
        ----------
        data : bytes

        Returns
        -------
        IntegerModel

        Raises
        ------
        ModelError
            For other bytes; DamagedModelError if they begin like a model.
        """
        if data[:4] != BEGINNING:
            raise ModelError(
                f"this is no integer model: it begins with {bytes(data[:4])!r}, not {BEGINNING!r}"
            )
        try:
            raw = zstandard.ZstdDecompressor().decompress(data[36:], max_output_size=MAX_BYTES)
            size = struct.unpack_from("<I", raw)[0]
            head = json.loads(raw[4 : 4 + size])
            arrays, at = {}, 4 + size
            for name, (dtype, shape) in head["arrays"].items():
                if dtype not in _STORED:
                    raise ValueError(f"array {name} of type {dtype}")
                count = int(np.prod(shape, dtype=object))
                arrays[name] = np.frombuffer(raw, dtype, count, at).reshape(shape)
                at += arrays[name].nbytes
            if at != len(raw):
                raise ValueError(f"{len(raw) - at} bytes too many")
            description = head["description"]
        except (zstandard.ZstdError, struct.error, ValueError, KeyError, TypeError) as error:
            raise DamagedModelError(f"the integer model is damaged: {error}") from None
        try:
            model = cls.from_arrays(description, arrays)
        except ModelError as error:
            raise DamagedModelError(str(error)) from None
        if model.digest != data[4:36]:
            raise DamagedModelError(
                f"the integer model is damaged: its digest is {model.digest.hex()}, "
                f"{data[4:36].hex()} was written"
            )
        return model

    def __repr__(self):
        return f"<IntegerModel {self.digest.hex()[:12]} {self.architecture}>"


def _digest(description: str, arrays: dict[str, np.ndarray]) -> bytes:
    digest = hashlib.sha256(description.encode())
    for name, array in arrays.items():
        digest.update(f"\0{name}\0{array.dtype.str}{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def conformance_frames(architecture: Architecture) -> np.ndarray:
    """Test frames, for which all implementations must give the same predictions.

    int32 (3, C, h, w), 0..255.

    A moving ramp with pseudo-random texture (a linear congruential generator modulo 2**32,
    Knuth's multiplier), h and w twice the architecture's multiple.
    """
    side = 2 * architecture.multiple
    shape = (3, architecture.channels, side, side)
    state, values = 1, []
    for _ in range(int(np.prod(shape))):
        state = (1664525 * state + 1013904223) % 2**32
        values.append(state >> 26)
    t, c, y, x = np.indices(shape)
    return ((3 * y + 5 * (x + 2 * t) + 17 * c) % 160 + np.reshape(values, shape)).astype(np.int32)

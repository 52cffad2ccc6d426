"""Payloads of this format version, byte for byte in the repository: they must decode for ever.

``pytest --regenerate`` writes them anew; a changed file is a breaking change of the format.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tezip_h5 import ErrorBound, FormatError, Settings, bitstream, codec

FOLDER = Path(__file__).parent / "golden"


def frames(dtype, channels=0):
    """A small moving pattern from integers alone: (6, 10, 12[, channels])."""
    t, y, x = np.ogrid[:6, :10, :12]
    values = (x + t) * 9 + y * 5 + (x * y + t) % 7
    if channels:
        values = values[..., None] + np.arange(channels) * 20
    return (values * (37 if np.dtype(dtype).itemsize > 1 else 1)).astype(dtype)


def tiles(dtype):
    """Enough for weights and several tables, from calm to noisy: (3, 80, 96)."""
    t, y, x = np.ogrid[:3, :80, :96]
    noise = (x * 7919 + y * 104729 + t * 1299709) * 2654435761 % 2**32 >> 24
    return (np.tile(frames(dtype)[:3], (1, 8, 8)) // 2 + noise * y // 400).astype(dtype)


def drifting():
    """A smooth scene of integers that drifts by (2, 5) pixels a frame: (4, 70, 96)."""
    y, x = np.ogrid[:96, :128]
    scene = 128 + ((x * x + 3 * y * y) // 40 % 97 - 48) + ((x * y) // 23 % 61 - 30)
    smooth = sum(np.roll(scene, (dy, dx), (0, 1)) for dy in range(6) for dx in range(6)) // 36
    return np.stack([smooth[2 * t : 2 * t + 70, 5 * t : 5 * t + 96] for t in range(4)])


def jumping():
    """A still scene whose brightness jumps: (5, 80, 96)."""
    y, x = np.ogrid[:80, :96]
    scene = 40 + (x * x + 3 * y * y) // 40 % 97
    return (scene * np.array([8, 8, 6, 10, 9])[:, None, None] // 8).astype("uint8")


def patches():
    """Patches of unrelated values, a few of which change: (3, 64, 72)."""
    t, y, x = np.ogrid[:3, :32, :36]
    values = (x * 7919 + y * 104729 + (t * (x + y) // 9) * 31) * 2654435761 % 2**32 >> 29
    return np.repeat(np.repeat(values * 31 + (x * y + t) % 3, 2, 1), 2, 2).astype("uint8")


def holes():
    values = frames("float32") / np.float32(16)
    values[:, 2:4, 5] = np.nan
    values[3, 0, 0] = np.inf
    return values


def irregular():
    """Floats on no grid."""
    values = np.sqrt(frames("float32") * frames("float32")[:, ::-1])
    values[:, 2:4, 5] = np.nan
    values[3, 0, 0] = -np.inf
    return values


def rough(values):
    """More of the values of 16 bits, with no gaps between them."""
    return (values.astype("int64") * 9 + np.arange(values.size).reshape(values.shape) % 9).astype(
        "uint16"
    )


def uncounted():
    """Floats that hardly ever come twice."""
    values = drifting().astype("float32")
    return np.sqrt(values + np.arange(values.size, dtype="f4").reshape(values.shape) / 8192)


def gaps():
    """A detector of two modules, and a hot pixel."""
    values = tiles("uint32")
    values[:, 38:42] = 2**32 - 1
    values[1, 5, 7] = 2**32 - 2
    return values


def long_gaps():
    """Integers of 64 bits, with the least of them where nothing was measured."""
    values = tiles("int64")[:2, :, :72] - 2**40
    values[:, 38:42] = -(2**63)
    return values


def halves():
    """Floats of 16 bits on no grid, both zeros among them."""
    t, y, x = np.ogrid[:3, :80, :96]
    values = np.sqrt(tiles("float32") + 1) - (3 * x + 5 * y + t) % 41
    values[:, 2:4, 5] = np.nan
    values[2, 0, :2] = 0.0, -0.0
    return values.astype("float16")


def photons():
    """Few of them behind a multiplier: a sharp lower end and a long upper one."""
    t, y, x = np.ogrid[:3, :40, :48]
    mean = 400 + 60 * np.sin((x + t) / 8) * np.cos(y / 7)
    chance = ((t * 2711 + y * 7919 + x * 104729) * 48271 % 65521 + 1) / 65522
    return (100 - mean * np.log(chance)).astype("u2")


def stretched(dtype):
    """Counts, every frame of which was brought to 0..1 by itself; one is a float beside."""
    values = tiles("float64")[:, :40, :48] - np.array([3, 50, 11])[:, None, None]
    values = values / np.array([255, 311, 290])[:, None, None]
    values = values.astype(dtype)
    values[1, 3, 4] = np.nextafter(values[1, 3, 4], values.dtype.type(9))
    values[2, 0, 0] = np.nan
    return values


def over_means():
    """Counts of a scene that stands still, every frame of which was divided by another number."""
    still = tiles("float64")[:1, :40, :48].repeat(3, axis=0)
    return (still / np.array([90, 111, 130])[:, None, None]).astype("float32")


def with_gaps():
    """Counts, every frame of which was brought to 16 bits by itself."""
    values = tiles("int64")[:, :30, :32] // 37
    return (values * 65535 // values.max(axis=(1, 2), keepdims=True)).astype("uint16")


CASES = {
    "smallest": (np.zeros((1, 1, 1), np.uint8), {}, {"coder": "stages"}),
    "uint8-lossless": (frames("uint8"), {}, {"coder": "stages", "window": 4}),
    "uint16-abs-uniform": (
        frames("uint16"),
        {"absolute": 5},
        {"coder": "stages", "quantizer": "uniform", "window": 6},
    ),
    "uint16-abs-merged": (
        frames("uint16"),
        {"absolute": 5},
        {"coder": "stages", "quantizer": "run-merging", "window": 6},
    ),
    "int16-dbse-pee": (
        frames("uint8").astype("int16") - 300,
        {},
        {"coder": "stages", "spatial": True, "ranks": True, "window": 6},
    ),
    "rgb-rel-open-loop": (
        frames("uint8", 3),
        {"relative": 0.05},
        {"coder": "stages", "feedback": "prediction", "window": 3, "warmup": 1},
    ),
    "uint32-pwrel": (frames("uint32"), {"pointwise_relative": 0.03}, {"coder": "stages"}),
    "float32-lossless": (irregular(), {}, {"coder": "stages", "window": 6}),
    "float32-abs": (holes(), {"absolute": 0.1}, {"coder": "stages", "window": 6}),
    "float64-pwrel": (
        frames("float64") - 500.5,
        {"pointwise_relative": 0.01},
        {"coder": "stages", "window": 6},
    ),
    "float32-ordered": (irregular()[:, :, 8:9].repeat(2, 2), {}, {"coder": "stages"}),
    "float32-gridded": (holes(), {}, {"coder": "stages", "window": 6}),
    "uint16-linear-listed": (frames("uint16") // 900 * 901, {}, {"coder": "linear"}),
    "float32-mixing-listed": (
        (tiles("uint16") % 90).astype("float32") * np.float32(0.013) + np.float32(1.7),
        {},
        {"coder": "mixing"},
    ),
    "uint32-mixing-gaps": (gaps(), {}, {"coder": "mixing"}),
    "uint8-linear": (tiles("uint8"), {}, {"coder": "linear"}),
    "uint16-linear-flat": (photons(), {}, {"coder": "linear", "level": "fast"}),
    "uint16-linear-flat-abs": (
        photons(),
        {"absolute": 1},
        {"coder": "linear", "level": "fast", "window": 2},
    ),
    "uint16-linear-abs": (tiles("uint16"), {"absolute": 9}, {"coder": "linear", "window": 3}),
    "rgb-linear-abs": (frames("uint8", 3), {"absolute": 1}, {"coder": "linear"}),
    "float32-linear": (irregular(), {}, {"coder": "linear", "window": 3}),
    "uint8-mixing": (tiles("uint8"), {}, {"coder": "mixing"}),
    "uint16-mixing-abs": (
        tiles("uint16"),
        {"absolute": 9},
        {"coder": "mixing", "level": "best", "window": 2},
    ),
    "rgb-mixing-abs": (frames("uint8", 3), {"absolute": 1}, {"coder": "mixing", "level": "best"}),
    "float32-mixing-abs": (holes(), {"absolute": 0.1}, {"coder": "mixing", "window": 3}),
    "uint16-mixing-moving": (rough(drifting()), {}, {"coder": "mixing"}),
    "uint8-mixing-jumping": (jumping(), {"absolute": 2}, {"coder": "mixing", "level": "best"}),
    "float32-mixing-mantissa": (
        uncounted() - np.float32(11),
        {},
        {"coder": "mixing", "level": "best"},
    ),
    "uint8-mixing-repeating": (patches(), {}, {"coder": "mixing"}),
    "float32-mixing-centred": (
        uncounted(),
        {"absolute": 0.05},
        {"coder": "mixing", "level": "best"},
    ),
    "float64-fallback": (frames("float64"), {}, {"coder": "fallback"}),
    "int64-linear-gaps": (long_gaps(), {"absolute": 3}, {"coder": "linear"}),
    "uint64-mixing-listed": (
        frames("uint64") // 900 * (2**50 + 1),
        {},
        {"coder": "mixing", "level": "best"},
    ),
    "uint64-fallback": (frames("uint64") + np.uint64(2**63), {}, {"coder": "fallback"}),
    "float16-linear-ordered": (halves(), {}, {"coder": "linear"}),
    "float16-mixing-pwrel": (halves(), {"pointwise_relative": 0.01}, {"coder": "mixing"}),
    "float32-linear-each-frame": (stretched("float32"), {}, {"coder": "linear"}),
    "float64-linear-each-frame": (stretched("float64"), {}, {"coder": "linear"}),
    "float32-linear-each-frame-abs": (over_means(), {"absolute": 0.03}, {"coder": "linear"}),
    "uint16-mixing-each-frame": (with_gaps(), {}, {"coder": "mixing"}),
    "bool-mixing": (tiles("uint16") > 200, {}, {"coder": "mixing"}),
}


def digest(array):
    text = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(text + array.tobytes()).hexdigest()


def test_regenerate(regenerate, monkeypatch):
    if not regenerate:
        pytest.skip("only with --regenerate")
    monkeypatch.setattr(codec, "_fallback_may_win", lambda *_: False)  # chunks are tiny
    index = {}
    for name, (array, bound, options) in CASES.items():
        limits = ErrorBound(**bound).of_frames(array.reshape((*array.shape[:3], -1)))
        shape = (8, 10, 16, *array.shape[3:]) if name == "uint8-lossless" else None
        encoded = codec.encode_chunk(array, limits, Settings(**options), shape=shape)
        (FOLDER / f"{name}.tezip").write_bytes(encoded.payload)
        index[name] = digest(codec.decode_chunk(encoded.payload))
    (FOLDER / "digests.json").write_text(json.dumps(index, indent=1) + "\n")


@pytest.mark.parametrize("name", CASES)
def test_golden_payloads_decode(name):
    expected = json.loads((FOLDER / "digests.json").read_text())[name]
    decoded = codec.decode_chunk((FOLDER / f"{name}.tezip").read_bytes())
    assert digest(decoded) == expected
    array, bound, _ = CASES[name]
    stored = decoded[tuple(slice(n) for n in array.shape)]
    limits = ErrorBound(**bound).of_frames(array.reshape((*array.shape[:3], -1)))
    for t, (frame, back) in enumerate(zip(array, stored, strict=True)):
        shape = (*frame.shape[:2], -1)
        assert not limits.check(frame.reshape(shape), back.reshape(shape), t)[1].any()


@pytest.mark.parametrize("name", CASES)
def test_what_goes_on_behind_a_section_is_damage(name):
    parsed = bitstream.unpack((FOLDER / f"{name}.tezip").read_bytes())
    for number, data in parsed.sections.items():
        longer = parsed.sections | {number: bytes(data) + b"\0"}
        with pytest.raises(FormatError):
            codec.decode_chunk(bitstream.pack(parsed.header, longer))


def test_the_coder_is_the_one_the_name_says():
    from tezip_h5.residual import NUMBERS

    for name in CASES:
        header = bitstream.unpack((FOLDER / f"{name}.tezip").read_bytes()).header
        special = [n for word, n in NUMBERS.items() if word in name]
        assert header.coder == (special[0] if special else NUMBERS["stages"]), name


def test_golden_payloads_hold_what_their_names_say():
    from tezip_h5.bitstream import Section

    def sections(name):
        return bitstream.unpack((FOLDER / f"{name}.tezip").read_bytes()).sections

    names = {
        "ordered": 1,
        "gridded": 2,
        "pwrel": (3, 4),
        "listed": 6,
        "each-frame": 8,
        "lossless": (0, 5),
    }
    for name in CASES:
        scale = bitstream.unpack((FOLDER / f"{name}.tezip").read_bytes()).header.scale
        for word, expected in names.items():
            assert word not in name or scale in np.atleast_1d(expected), name
    assert sections("uint16-mixing-moving")[Section.RESIDUALS][1] == 2
    assert sections("uint8-mixing-jumping")[Section.RESIDUALS][1] & 4
    assert Section.MANTISSA in sections("float32-mixing-mantissa")
    for name in ("uint16-linear-flat", "uint16-linear-flat-abs"):
        assert sections(name)[Section.RESIDUALS][-1] & 16
    for name in ("float32-linear-each-frame", "float64-linear-each-frame"):
        assert Section.CORRECTIONS in sections(name)
    for name in ("uint32-mixing-gaps", "int64-linear-gaps", "float16-linear-ordered"):
        assert Section.EXCEPTIONS in sections(name)


def test_no_file_is_forgotten():
    assert {path.stem for path in FOLDER.glob("*.tezip")} == set(CASES)


def test_the_fuzzer_can_begin_with_all_of_them():
    """It refuses to start when one does not decode within its limit."""
    import fuzz

    assert all(map(fuzz.check, fuzz.seeds()))

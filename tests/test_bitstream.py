"""Damaged payloads: the exact error, quickly, and nothing allocated from what they claim."""

import struct
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tezip_h5 import FormatError, Settings, TezipError, bitstream, codec
from tezip_h5.bitstream import Section
from tezip_h5.bounds import ChunkBound
from tezip_h5.inflate import inflate


def payloads():
    rng = np.random.default_rng(0)
    walk = (np.cumsum(rng.integers(-2, 3, (5, 12, 14)), axis=0) + 50).astype(np.uint16)
    floats = walk.astype(np.float32) / 7
    floats[:, 2, 3] = np.nan
    bound = ChunkBound(absolute=np.full((5, 1), 0.05))
    return {
        "stages": codec.encode_chunk(walk, ChunkBound(), Settings(coder="stages")).payload,
        "ranks": codec.encode_chunk(
            walk, ChunkBound(), Settings(coder="stages", ranks=True, spatial=True)
        ).payload,
        "grid": codec.encode_chunk(floats, bound, Settings(coder="stages")).payload,
        "companded": codec.encode_chunk(walk, ChunkBound(pointwise=0.1), Settings()).payload,
        "fallback": codec.encode_chunk(walk, ChunkBound(), Settings(coder="fallback")).payload,
    }


PAYLOADS = payloads()
SAMPLES = {kind: codec.decode_chunk(payload) for kind, payload in PAYLOADS.items()}
each = pytest.mark.parametrize("kind", PAYLOADS)


@each
def test_pack_is_the_inverse_of_unpack(kind):
    parsed = bitstream.unpack(PAYLOADS[kind])
    assert bitstream.pack(parsed.header, parsed.sections) == PAYLOADS[kind]


@each
def test_every_truncation_is_refused(kind):
    payload = PAYLOADS[kind]
    for size in range(len(payload)):
        with pytest.raises(FormatError):
            codec.decode_chunk(payload[:size])
    with pytest.raises(FormatError):
        codec.decode_chunk(payload + b"\0")


@each
def test_every_bit_flip_is_refused(kind):
    payload = bytearray(PAYLOADS[kind])
    for i in range(len(payload) * 8):
        payload[i // 8] ^= 1 << i % 8
        with pytest.raises(FormatError):
            codec.decode_chunk(bytes(payload))
        payload[i // 8] ^= 1 << i % 8


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data):
    with pytest.raises(FormatError):
        codec.decode_chunk(data)


@given(st.sampled_from(sorted(PAYLOADS)), st.data())
@settings(max_examples=500, deadline=None)
def test_damage_with_right_checksums_is_survived(kind, data):
    """Whatever sections hold, decoding ends in an error of ours or in the samples encoded, whose
    checksum the header has."""
    parsed = bitstream.unpack(PAYLOADS[kind])
    number = data.draw(st.sampled_from(sorted(parsed.sections)))
    section = bytearray(parsed.sections[number])
    for _ in range(data.draw(st.integers(1, 4))):
        action = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        at = data.draw(st.integers(0, max(len(section) - 1, 0)))
        if action == "flip" and section:
            section[at] ^= data.draw(st.integers(1, 255))
        elif action == "cut":
            del section[at:]
        else:
            section[at:at] = data.draw(st.binary(min_size=1, max_size=9))
    payload = bitstream.pack(parsed.header, {**parsed.sections, number: bytes(section)})
    try:
        samples = codec.decode_chunk(payload, max_bytes=1 << 20)
    except TezipError:
        return
    np.testing.assert_array_equal(samples, SAMPLES[kind], strict=True)


@given(st.sampled_from(sorted(PAYLOADS)), st.data())
@settings(max_examples=300, deadline=None)
def test_a_forged_header_is_survived(kind, data):
    payload = bytearray(PAYLOADS[kind])
    end = 44 + 12 * payload[10]
    at = data.draw(st.integers(4, end - 1))
    payload[at] ^= data.draw(st.integers(1, 255))
    struct.pack_into("<I", payload, end, zlib.crc32(payload[:end]))
    try:
        samples = codec.decode_chunk(bytes(payload), max_bytes=1 << 20)
    except TezipError:
        return
    header, _ = bitstream.peek(bytes(payload))
    assert (samples.shape, samples.dtype) == (header.shape, header.dtype)
    g, h, w = header.valid  # the rest is filled up
    assert samples[:g, :h, :w].tobytes() == SAMPLES[kind].tobytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"valid": (9, 12, 14)}, "valid extent"),
        ({"valid": (0, 12, 14)}, "valid extent"),
        ({"shape": (2**31, 2**31, 100)}, "bytes"),
        ({"coder": 77}, "unknown residual coder"),
        ({"scale": 77}, "unknown scale"),
        ({"predictor": 77}, "unknown predictor"),
        ({"flags": 2}, "out of range"),
        ({"checksum": 1}, "checksum"),
    ],
)
def test_header_fields(change, words):
    parsed = bitstream.unpack(PAYLOADS["stages"])
    with pytest.raises(FormatError, match=words):
        codec.decode_chunk(bitstream.pack(replace(parsed.header, **change), parsed.sections))


def longer(section, count=4):
    return zstandard.compress(zstandard.decompress(section) + bytes(count))


def shorter(section):
    return zstandard.compress(zstandard.decompress(section)[:-4])


def exceptions_by(samples=bytes, masks=bytes):
    """A change of the section of exceptions: of its samples, or of its masks."""

    def change(section):
        (size,) = struct.unpack_from("<I", section)
        changed = masks(section[4 : 4 + size])
        return struct.pack("<I", len(changed)) + changed + samples(section[4 + size :])

    return change


@pytest.mark.parametrize(
    ("number", "change", "words"),
    [
        (Section.EXCEPTIONS, exceptions_by(longer), "more samples than its masks"),
        (Section.EXCEPTIONS, exceptions_by(shorter), "fewer samples than its masks"),
        (Section.EXCEPTIONS, exceptions_by(lambda data: longer(data, 1)), "no whole number"),
        (Section.EXCEPTIONS, exceptions_by(masks=lambda data: data + bytes(3)), "go on behind"),
        (Section.EXCEPTIONS, lambda data: b"\xff" * 4 + data[4:], "too short for its masks"),
        (Section.EXCEPTIONS, lambda data: data[:3], "too short for its masks"),
        (Section.MANTISSA, longer, "left behind the last frame"),
        (Section.MANTISSA, shorter, "end before the frames do"),
        (Section.FRAMES, lambda data: data[:2] + b"\3" + data[3:], "unknown kind of frame 3"),
        (Section.FRAMES, lambda data: data[:-4] + b"\1\0\0\x40", "at most 2\\*\\*30"),
        (Section.LEVELS, lambda data: struct.pack("<q", 1 << 62) + data[8:], "offset .* out of"),
    ],
)
def test_sections_hold_what_their_frames_need_and_no_more(number, change, words):
    frames = np.random.default_rng(1).normal(100, 5, (3, 20, 20)).astype("f4")
    frames[0, 3, 4] = np.nan
    payload = codec.encode_chunk(frames, ChunkBound(), Settings(coder="mixing")).payload
    parsed = bitstream.unpack(payload)
    changed = parsed.sections | {number: change(parsed.sections[number])}
    with pytest.raises(FormatError, match=words):
        codec.decode_chunk(bitstream.pack(parsed.header, changed))


def test_a_stream_ends_with_the_last_frame():
    steps = np.random.default_rng(0).integers(-2, 3, (5, 48, 56))
    frames = (np.cumsum(steps, axis=0) + 50).astype("u2")
    payload = codec.encode_chunk(frames, ChunkBound(), Settings(coder="linear")).payload
    parsed = bitstream.unpack(payload)
    changed = parsed.sections | {Section.RESIDUALS: parsed.sections[Section.RESIDUALS] + bytes(4)}
    with pytest.raises(FormatError, match="does not end where it should"):
        codec.decode_chunk(bitstream.pack(parsed.header, changed))


def empty_frame(stated):
    """A zstd frame of nothing, which says so or does not, and has a checksum."""
    made = zstandard.ZstdCompressor(write_checksum=True, write_content_size=stated)
    return made.compress(b"") if stated else made.compressobj().flush()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"\0",
        lambda data: data + empty_frame(stated=True),
        lambda data: data + empty_frame(stated=False),
        lambda data: data[:-1],
        lambda data: data[:-4],
        lambda data: struct.pack("<II", 0x184D2A50, 1) + b"\0" + data,
    ],
)
def test_a_stream_of_the_stages_is_one_whole_frame(change):
    """Whatever zstandard looks at once it has all bytes that it wants."""
    frames = codec.decode_chunk(PAYLOADS["stages"])
    parsed = bitstream.unpack(PAYLOADS["stages"])
    for number in (Section.KEYFRAMES, Section.RESIDUALS):
        prefix, body = parsed.sections[number][:8], parsed.sections[number][8:]
        samples = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        whole = zstandard.ZstdCompressor(write_checksum=True).compress(samples)
        again = parsed.sections | {number: prefix + whole}
        assert (codec.decode_chunk(bitstream.pack(parsed.header, again)) == frames).all()
        changed = parsed.sections | {number: prefix + change(whole)}
        with pytest.raises(FormatError):
            codec.decode_chunk(bitstream.pack(parsed.header, changed))


@pytest.mark.parametrize("samples", [b"", b"of a table"])
@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data + empty_frame(stated=True),
        lambda data: data + empty_frame(stated=False),
    ],
)
def test_what_is_inflated_is_one_whole_frame(samples, change):
    for made in (zstandard.compress(samples), zstandard.ZstdCompressor().compressobj()):
        whole = made if isinstance(made, bytes) else made.compress(samples) + made.flush()
        assert inflate(whole, len(samples), "a table") == samples
        with pytest.raises(FormatError, match="a table cannot"):
            inflate(change(whole), len(samples), "a table")


def test_keyframes_are_quantized_uniformly():
    parsed = bitstream.unpack(PAYLOADS["stages"])
    section = parsed.sections[Section.KEYFRAMES]
    changed = parsed.sections | {Section.KEYFRAMES: section[:3] + b"\1" + section[4:]}
    with pytest.raises(FormatError, match="quantized by 1"):
        codec.decode_chunk(bitstream.pack(parsed.header, changed))


@pytest.mark.parametrize("name", ["float32-ordered", "uint8-lossless", "uint16-linear-abs"])
def test_no_tolerance_exceeds_the_levels(name):
    """And levels that wrap have none."""
    golden = Path(__file__).parent / "golden" / f"{name}.tezip"
    parsed = bitstream.unpack(golden.read_bytes())
    (top,) = struct.unpack_from("<I", parsed.sections[Section.LEVELS], 8)
    section = parsed.sections[Section.FRAMES]
    for tolerance in (1,) if top >= 2**31 else (top + 1, 2**30):
        kinds = section[: parsed.header.valid[0]]
        changed = {Section.FRAMES: kinds + b"\0" + struct.pack("<I", tolerance)}
        with pytest.raises(FormatError, match=f"a tolerance of {tolerance} of levels"):
            codec.decode_chunk(bitstream.pack(parsed.header, parsed.sections | changed))


def test_what_is_reserved_is_zero():
    payload = bytearray(PAYLOADS["stages"])
    end = 44 + 12 * payload[10]
    payload[36] = 1
    struct.pack_into("<I", payload, end, zlib.crc32(payload[:end]))
    with pytest.raises(FormatError, match="reserved 1"):
        codec.decode_chunk(bytes(payload))


@pytest.mark.parametrize("change", [lambda data: data[:-5], lambda data: data + bytes(5)])
def test_a_fallback_that_ends_elsewhere_is_not_given_to_blosc(change):
    """It would believe the size that stands in the section, and read what is behind."""
    parsed = bitstream.unpack(PAYLOADS["fallback"])
    changed = {Section.FALLBACK: change(parsed.sections[Section.FALLBACK])}
    with pytest.raises(FormatError, match="claims sizes"):
        codec.decode_chunk(bitstream.pack(parsed.header, changed))


def test_a_huge_claim_is_refused_at_once():
    parsed = bitstream.unpack(PAYLOADS["fallback"])
    header = replace(parsed.header, shape=(1000, 1000, 1000), valid=(1000, 1000, 1000))
    payload = bitstream.pack(header, parsed.sections)
    started = time.perf_counter()
    with pytest.raises(FormatError, match="at most 1000000"):
        codec.decode_chunk(payload, max_bytes=1000000)
    assert time.perf_counter() - started < 1


def test_other_versions_are_named():
    payload = bytearray(PAYLOADS["stages"])
    payload[4] = 9
    with pytest.raises(FormatError, match="version 9"):
        codec.decode_chunk(bytes(payload))
    with pytest.raises(FormatError, match="no tezip payload"):
        codec.decode_chunk(b"\x89HDF" + bytes(payload[4:]))


def test_peek_needs_only_the_beginning():
    payload = PAYLOADS["grid"]
    header, identity = bitstream.peek(payload[:256])
    assert header == bitstream.unpack(payload).header
    assert payload.startswith(identity)

"""FORMAT.md is enough to write a decoder: one written from it reads the golden payloads."""

import json
import zlib
from dataclasses import replace
from pathlib import Path

import naive_payload
import naive_prednet
import numpy as np
import pytest
from test_golden import digest

from tezip_h5 import Settings, bitstream, codec, levels
from tezip_h5.bitstream import Section
from tezip_h5.bounds import ChunkBound
from tezip_h5.chunk import coding, exceptions, samples
from tezip_h5.model import store
from tezip_h5.prediction.reference import Reference

FOLDER = Path(__file__).parent / "golden"
MOST_MIXED = 3000  # samples: a naive decoder takes a millisecond for each

PAYLOADS = {path.stem: path.read_bytes() for path in sorted(FOLDER.glob("*.tezip"))}


def is_quick(payload):
    stored = np.frombuffer(payload, "<u4", 3, 24)
    return payload[6] != 2 or stored.prod() * max(payload[11], 1) <= MOST_MIXED


@pytest.mark.parametrize("name", [name for name in PAYLOADS if is_quick(PAYLOADS[name])])
def test_the_golden_payloads_are_what_the_document_says(name):
    expected = json.loads((FOLDER / "digests.json").read_text())[name]
    assert digest(naive_payload.decode(PAYLOADS[name])) == expected


def test_all_coders_are_read():
    read = {payload[6] for payload in PAYLOADS.values() if is_quick(payload)}
    assert read == {0, 1, 2, 3}


@pytest.mark.parametrize("channels", [1, 3])
def test_the_models_that_ship_are_what_the_document_says(channels):
    config, arrays = naive_prednet.read_model(store.default(channels).to_bytes())
    assert np.array_equal(naive_prednet.conformance(config, arrays), arrays["conformance"])


@pytest.mark.parametrize(("offset", "shift", "top"), [(100, 4, 4095), (-50, -2, 60), (0, 0, 255)])
def test_the_network_is_what_the_document_says(offset, shift, top):
    """Of frames whose sides are no multiples, too."""
    model, shape = store.default(1), (1, 13, 22)
    config, arrays = naive_prednet.read_model(model.to_bytes())
    plain = naive_prednet.Network(config, arrays, shape, top, offset, shift)
    reference = Reference(model, shape, top, offset, shift)
    generator = np.random.default_rng(0)
    for _ in range(3):
        frame = generator.integers(0, top + 1, shape)
        plain.observe(frame)
        reference.observe(frame)
        assert np.array_equal(plain.guess, reference.predict())


def by_hand(dtype, scales, corrections):
    """A payload of the smallest kind, whose levels are 0 to 9 in each of three frames."""
    counted = np.arange(30).reshape(3, 2, 5).astype("u1") % 10
    made = codec.encode_chunk(counted, ChunkBound(), Settings(coder="stages"))
    parsed = bitstream.unpack(made.payload)
    top = int.from_bytes(parsed.section(Section.LEVELS)[8:12], "little")
    for scale in scales:
        scale.top = top
    scale = levels.EachFrame(np.dtype(dtype), 0, top, scales)
    writer = exceptions.ExceptionWriter()
    for marked, differences in corrections:
        writer.add(marked[..., None], differences[..., None])
    sections = {**parsed.sections, Section.LEVELS: scale.pack(), Section.CORRECTIONS: writer.pack()}
    header = replace(parsed.header, dtype=np.dtype(f"<{dtype}"), scale=scale.kind)
    found = bitstream.Payload(header, sections)
    reader = samples.SampleReader(found, *coding.decoded_levels(found)[:1])
    frames = [reader.next(frame) for frame, _ in coding.decoded_levels(found)[1]]
    checksum = zlib.crc32(b"".join(frame.tobytes() for frame in frames))
    return bitstream.pack(replace(header, checksum=checksum), sections)


LINES = {
    "plain": (0, 0.25, 1.0, -3.5),
    "by a divisor": (-7, 1.0, 255.0, 0.1),
    "infinite": (4, 1e308, 1.0, 0.0),
    "subnormal": (-3, 5e-324, 1.0, 0.0),
    "far": (2**61, 1.0, 3.0, 1.0),
    "beyond the mantissa": (2**53 + 1, 1.0, 1e16, -0.5),
}


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("name", LINES)
def test_scales_of_frames_are_what_the_document_says(dtype, name, no_fallback):
    """Lines and tables in one chunk, and corrections of all sizes, which no encoder writes."""
    offset, *numbers = LINES[name]
    table = np.array([-np.inf, -2.5, -0.0, 0.0, 7.1, np.finfo(dtype).max, np.inf], dtype)
    scales = [
        levels.Affine(np.dtype(dtype), offset, 0, *numbers),
        levels.Listed(np.dtype(dtype), 3, 0, table),
        levels.Affine(np.dtype(dtype), -5, 0, 1.0, 7.0, 0.0),
    ]
    sizes = np.array([[-128, -127, -1, 0, 1], [2, 5, 100, 126, 127]], np.int8)
    marked = np.array([[1, 0, 1, 1, 0], [1, 1, 0, 1, 1]], bool)
    payload = by_hand(dtype, scales, [(marked, sizes), (~marked, sizes), (marked, -sizes // 2)])
    found = codec.decode_chunk(payload)
    with np.errstate(all="ignore"):
        assert found.tobytes() == naive_payload.decode(payload).tobytes()

"""What a payload is made of: sizes that add up, for every coder, and predictions as they were."""

from pathlib import Path

import numpy as np
import pytest
from models import random_model

from tezip_h5 import bitstream, levels
from tezip_h5.bounds import ErrorBound
from tezip_h5.chunk import anatomy, coding
from tezip_h5.codec import decode_chunk, encode_chunk
from tezip_h5.errors import FormatError
from tezip_h5.model import store
from tezip_h5.prediction.architecture import Architecture
from tezip_h5.settings import Settings
from tezip_h5.simulate import colour_sequence

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.tezip"))

# What each coder's streams are called; a part named otherwise was not understood.
STREAMS = {
    "stages": {"prefix", "table of ranks", "symbols, zstd"},
    "linear": {"sizes of streams", "symbols, rANS", "low bits of symbols", "weights"},
    "mixing": {"prefix", "motion of blocks", "changes of brightness", "transmitted weights"},
}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_byte_of_a_golden_payload_has_a_name(path):
    payload = path.read_bytes()
    parts = anatomy.divide(payload)
    assert sum(part.nbytes for part in parts) == len(payload)
    parsed = bitstream.unpack(payload)
    sizes = {}
    for part in parts:
        sizes[part.section] = sizes.get(part.section, 0) + part.nbytes
    assert sizes.pop("header") == 48 + 12 * len(parsed.sections)
    expected = {bitstream.SECTIONS[n]: len(data) for n, data in parsed.sections.items() if data}
    assert sizes == expected
    coder = anatomy.CODERS[parsed.header.coder]
    for part in parts:
        if part.section in ("keyframes", "residuals"):
            assert part.name in STREAMS[coder] or part.name.startswith("stream of band"), part


def test_damage_is_an_error():
    payload = bytearray(GOLDEN[0].read_bytes())
    payload[60] ^= 1
    with pytest.raises(FormatError):
        anatomy.divide(bytes(payload))
    with pytest.raises(FormatError):
        anatomy.divide(b"")


@pytest.mark.parametrize(
    ("coder", "data"),
    [
        ("mixing", b"\x00\x00\x00\x00\xff\xff" + bytes(8)),
        ("mixing", b"\x00\x02\x00\x00\x01\x00\xff\xff\xff\xff" + bytes(6)),
        ("mixing", b"\x00"),
        ("stages", bytes(16)),
        ("stages", b"\x02\x01\x01\x00\xff\xff\x00\x00" + bytes(8)),
        ("linear", bytes([255] * 40)),
        ("linear", b"\x02"),
    ],
)
def test_a_stream_that_is_not_understood_is_not_divided(walk, coder, data):
    made = encoded(walk, coder=coder)
    parsed = bitstream.unpack(made.payload)
    sections = dict(parsed.sections)
    sections[bitstream.Section.RESIDUALS] = data
    payload = bitstream.pack(parsed.header, sections)
    assert [p for p in anatomy.divide(payload) if p.section == "residuals"] == [
        anatomy.Part("residuals", "all of it", len(data))
    ]
    with pytest.raises(FormatError):
        decode_chunk(payload)


def test_a_section_of_another_coder_is_not_divided(walk):
    for coder, number in (("mixing", "KEYFRAMES"), ("stages", "TABLES"), ("linear", "KEYFRAMES")):
        parsed = bitstream.unpack(encoded(walk, coder=coder).payload)
        number = getattr(bitstream.Section, number)
        payload = bitstream.pack(parsed.header, {**parsed.sections, number: bytes(20)})
        assert anatomy.divide(payload)[-1] == anatomy.Part(
            bitstream.SECTIONS[number], "all of it", 20
        )


def encoded(frames, model=None, bound=ErrorBound(absolute=1), **settings):  # noqa: B008
    planar = frames.reshape((*frames.shape[:3], -1))
    return encode_chunk(frames, bound.of_frames(planar), Settings(**settings), model=model)


@pytest.mark.parametrize("feedback", ["reconstruction", "prediction"])
@pytest.mark.parametrize("network", [False, True], ids=["previous", "prednet"])
def test_prediction_and_residual_give_the_frame(walk, feedback, network):
    """With the stages, what was coded is the frame minus this prediction: zstd would know."""
    model = store.register(random_model(Architecture(1, (4,), (3, 5)))) if network else None
    made = encoded(
        walk[:8], model, coder="stages", window=4, feedback=feedback,
        predictor="prednet" if network else "previous",
    )  # fmt: skip
    frames = decode_chunk(made.payload)
    found = list(anatomy.predictions(made.payload, frames))
    assert [guess is None for guess in found] == [t % 4 == 0 for t in range(8)]
    scale = float(np.iinfo(walk.dtype).max)
    for t, guess in enumerate(found):
        if guess is not None:
            assert guess.shape == frames[t].shape
            assert guess.dtype == frames.dtype
            mse = np.mean((walk[t].astype(float) - guess.astype(float)) ** 2) / scale**2
            assert made.frames[t].mse == pytest.approx(mse, rel=1e-6)


@pytest.mark.parametrize("feedback", ["reconstruction", "prediction"])
def test_predictions_are_by_the_scale_of_their_frame(walk, feedback):
    """The last frame's levels are other samples in a frame that was scaled otherwise."""
    frames = walk[:6].astype("f8") / np.arange(211, 217)[:, None, None]
    made = encoded(frames, bound=ErrorBound(), coder="stages", window=3, feedback=feedback)
    assert bitstream.peek(made.payload)[0].scale == levels.EachFrame.kind
    scale, decoded = coding.decoded_levels(bitstream.unpack(made.payload), predictions=True)
    expected = [
        None if guess is None else scale.of_frame(t).to_values(guess)[0]
        for t, (_, guess) in enumerate(decoded)
    ]
    found = list(anatomy.predictions(made.payload, frames))
    assert [guess is None for guess in found] == [t % 3 == 0 for t in range(6)]
    for one, other in zip(found, expected, strict=True):
        assert other is None or np.array_equal(one, other)


def test_the_fallback_predicts_nothing(walk):
    made = encoded(walk[:4], coder="fallback", bound=ErrorBound())
    assert list(anatomy.predictions(made.payload, walk[:4])) == [None] * 4
    assert {p.name for p in anatomy.divide(made.payload)} == {
        "header",
        "section table",
        "shuffle + zstd",
    }


def test_colours_have_predictions_of_their_shape():
    frames = colour_sequence(4, 24, 32)
    made = encoded(frames, coder="linear", predictor="previous", window=4)
    found = list(anatomy.predictions(made.payload, decode_chunk(made.payload)))
    assert found[0] is None
    np.testing.assert_array_equal(found[1], decode_chunk(made.payload)[0])

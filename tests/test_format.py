"""FORMAT.md is enough to write a decoder: one written from it reads the golden payloads."""

import json
from pathlib import Path

import naive_payload
import naive_prednet
import numpy as np
import pytest
from test_golden import digest

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

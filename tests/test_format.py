"""FORMAT.md is enough to write a decoder: one written from it reads the golden payloads."""

import json
from pathlib import Path

import naive_payload
import numpy as np
import pytest
from test_golden import digest

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

"""Peers decode to what they were given, or within the bound: nobody is measured broken."""

import pytest

from tezip_h5.cli import bench
from tezip_h5.peers import peers
from tezip_h5.simulate import colour_sequence, detector_sequence, float_field

STACKS = {
    "uint8": detector_sequence(18, 40, 48, "uint8"),
    "uint16": detector_sequence(18, 40, 48),
    "rgb": colour_sequence(4, 40, 48),
    "float32": float_field(18, 40, 48),
}


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("peer", peers(), ids=lambda peer: peer.name)
def test_peer(peer, kind):
    stack = STACKS[kind]
    if peer.missing:
        pytest.skip(peer.missing)
    if not peer.supports(stack):
        pytest.skip(f"{peer.name} does not take {kind}")
    bound = (0.05 if kind == "float32" else 3) if peer.lossy else 0
    row = bench.measure(kind, stack, bound, peer, threads=2)
    assert row.kept, f"{row.codec}: largest error {row.largest_error}"
    assert 0 < row.bytes < 2 * stack.nbytes
    assert row.ratio == pytest.approx(stack.nbytes / row.bytes)


def test_a_broken_bound_is_shown():
    from dataclasses import replace

    peer = next(p for p in peers() if p.name.startswith("previous-frame"))
    wrong = replace(peer, decode=lambda encoded, stack, threads: stack + 1)
    row = bench.measure("x", STACKS["uint8"], 0, wrong, 1)
    assert not row.kept
    assert "NO" in bench.table([row])

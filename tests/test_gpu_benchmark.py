"""The benchmark of GPUs: what it says without one, what it counts, what it refuses."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import require_package

from tezip_h5 import devices, kernels
from tezip_h5.prediction.architecture import Architecture

require_package("numba", "numba.cuda")

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """The script's names; `sys.modules` holds it, as its dataclasses need."""
    monkeypatch.syspath_prepend(FOLDER)
    module = SimpleNamespace(**runpy.run_path(str(FOLDER / "gpu.py"), run_name="gpu"))
    monkeypatch.setattr(devices, "_found", None)
    return module


def test_without_a_gpu_nothing_is_claimed(script, monkeypatch, tmp_path):
    out = tmp_path / "gpu.md"
    for found in (
        devices.Status(False, "there is no NVIDIA driver", "install one"),
        devices.Status(True, simulated=True),
    ):
        monkeypatch.setattr(devices, "_found", found)
        assert script.main(["--out", str(out)]) == 0
        text = out.read_text()
        assert "Not measured: no GPU was at hand" in text
        assert text.count("not measured") == 4
        assert not any(c.isdigit() for row in text.splitlines() if row[:1] == "|" for c in row)
    monkeypatch.setattr(devices, "_found", devices.Status(False, "there is none", "buy one"))
    assert script.main(["--tiny"]) == 1


def test_the_committed_page_is_what_it_writes():
    text = (FOLDER / "results" / "gpu.md").read_text()
    assert "Not measured" in text or "compute capability" in text


def test_everything_runs_on_a_few_pixels(script, capsys):
    assert script.main(["--tiny"]) == 0
    text = capsys.readouterr().out
    assert "is the same" in text
    untimed = {"convert", "extremes", "pack_signed", "unpack_signed", "table_search"}
    for name in set(kernels.load("cuda").__all__) - untimed:
        assert f"`{name}`" in text, name
    assert "quantise + DBSE + PEE mapping" in text
    for tolerance in (0, script.TOLERANCE):
        for kernel in ("model", "rans_encode", "decode"):
            assert f"linear, tolerance {tolerance}" in text
            assert f"(`{kernel}`)" in text
    for row in ("write, `fast`", "read, `fast`", "write, `balanced`", "read, `balanced`"):
        assert row in text


def test_a_difference_stops_it(script, monkeypatch):
    gpu = kernels.load("cuda")
    encode = gpu.difference_encode

    def wrong(symbols, mask, differences):
        encode(symbols, mask, differences)
        differences[3] = 77

    monkeypatch.setattr(gpu, "difference_encode", wrong)
    stages = script.Stages(script.TINY, script.Clock(1))
    stages._host["symbols"] = np.arange(stages._host["levels"].size, dtype=np.int32)
    with pytest.raises(SystemExit, match="computes something else"):
        stages._row("DBSE", "difference_encode", ["symbols"], (script.MASK,), ["differences"])


def test_what_a_row_comes_to(script):
    copy = script.Row("copy", 10, 2_000_000_000, 0, 1.0)  # 2000 GB/s
    peak = script.Row("peak", 10, 4, 10_000_000_000, 1.0)  # 10000 Gop/s
    stage = script.Row("stage", 5_000_000, 1_000_000_000, 5_000_000_000, 2.0)
    lines = script.table([stage, script.Row("unknown", 1, 1, 1, None)], copy, peak)
    assert lines[2] == "| stage | 5000000 | 1000000000 | 2.000 | 2500 | 500 | 25% | 2500 | 25% |"
    assert lines[3] == "| unknown | 1 | 1 | - | - | - | - | - | - |"


def test_multiply_adds_of_a_network(script):
    # One layer, frames as they are: ahat0 (4 + 2 -> 1), gates0 (4 + 2 + 2 -> 16), 3 x 3 each.
    one = Architecture(1, (), (4,), patch=1)
    assert script.multiply_adds(one, 8) == 9 * 64 * (6 * 1 + 8 * 16)
    # a1 is computed before pooling, at the size of the layer below; the rest of layer 1 after it.
    two = Architecture(1, (3,), (4, 5), patch=2, skip=False)
    sizes = two.convolutions()
    below, above = 9 * 16, 9 * 4
    expected = below * sum(a * b for a, b in (sizes[n] for n in ("ahat0", "gates0", "a1")))
    expected += above * sum(a * b for a, b in (sizes[n] for n in ("ahat1", "gates1")))
    assert script.multiply_adds(two, 8) == expected

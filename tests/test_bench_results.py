"""`benchmarks/run.py` puts rows of several days together, and what is committed is so."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from tezip_h5.cli import bench

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def run():
    spec = importlib.util.spec_from_file_location("run", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(codec, bound, size):
    return bench.Row("s", "2x4x4", "float32", codec, bound, size, 2, 16, 1, 1, 0, "kept", 1)


def test_a_bound_has_one_heading_whatever_its_last_digits(run):
    ours = [row("tezip fast", 0.0001257181789, 90), row("tezip fast", 0.001257181789, 80)]
    kept = [row("sz3", 0.000125718, 100), row("sz3", 0.00125718, 95), row("sz3", 0.5, 9)]
    rows = run.together(ours, kept)
    assert [r.codec for r in rows] == ["tezip fast", "sz3", "tezip fast", "sz3", "sz3"]
    assert rows[1] == replace(kept[0], bound=ours[0].bound)
    headings = [line for line in run.markdown(rows).splitlines() if line.startswith("### ")]
    assert len(headings) == len(set(headings)) == 3


def test_rows_that_were_not_measured_have_no_numbers(run):
    rows = [row("tezip best", 1, 50), row("sz3", 1, 0), row("zfp", 1, 70)]
    rows[1] = replace(rows[1], verdict="not run: it takes no NaN")
    lines = run.markdown(rows).splitlines()[-3:]
    assert lines[1] == "| sz3 | – | – | – | – | – | – | not run: it takes no NaN | – |"
    assert lines[2].startswith("| zfp | **70** |")
    assert {line.count("|") for line in lines} == {10}


@pytest.mark.parametrize(
    "path", sorted(FOLDER.glob("results/**/stacks.md")), ids=lambda path: path.parent.name
)
def test_no_heading_comes_twice(path):
    headings = [line for line in path.read_text().splitlines() if line.startswith("### ")]
    assert headings
    assert len(headings) == len(set(headings))


def test_the_originals_stages_are_nobodys_best_peer():
    rows = [row("tezip best", 1, 50), row("the original's stages", 1, 20), row("sz3", 1, 100)]
    best = [line for line in bench.summary(rows).splitlines() if line.startswith("best peer")]
    assert [line.split()[-3] for line in best] == ["2.000"]
    only = bench.summary(rows[:2])
    assert "best peer" not in only
    assert "the original's stages / tezip best" in only

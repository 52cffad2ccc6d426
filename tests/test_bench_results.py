"""`benchmarks/run.py` puts rows of several days together, and what is committed is so."""

import importlib.util
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import require_tool

from tezip_h5.cli import bench

FOLDER = Path(__file__).parents[1] / "benchmarks"


NO_RESULTS = {"default_models", "kinds", "plots", "two_frames"}


def script(name, monkeypatch):
    """A script as a module; scripts find one another in their folder."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delitem(sys.modules, "provenance", raising=False)
    return module


@pytest.fixture
def run(monkeypatch):
    return script("run", monkeypatch)


@pytest.fixture
def provenance(monkeypatch):
    return script("provenance", monkeypatch)


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


def test_results_say_which_code_was_measured(provenance, tmp_path):
    def git(*words):
        author = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        words = [require_tool("git"), "-C", tmp_path, *author, *words]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    unknown = "no git checkout: the commit is unknown"
    assert unknown in provenance.made_by(tmp_path)
    git("init", "-q")
    assert unknown in provenance.made_by(tmp_path)  # nothing is committed
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    for name in ("code.py", "benchmarks/results/x.csv"):
        (tmp_path / name).write_text("old")
    git("add", "-A")
    git("commit", "-q", "-m", "x")
    commit = git("rev-parse", "--short", "HEAD")
    (tmp_path / "benchmarks" / "results" / "x.csv").write_text("new")
    made = provenance.made_by(tmp_path)
    assert re.fullmatch(rf"tezip_h5 \S+ \(commit {commit}\), \d{{4}}-\d\d-\d\d", made)
    (tmp_path / "code.py").write_text("new")
    assert f"(commit {commit} + changes), " in provenance.made_by(tmp_path)
    assert unknown in provenance.made_by(tmp_path / "benchmarks")  # another's repository


def test_every_script_that_writes_results_names_the_code():
    for path in {*FOLDER.glob("*.py")} - {FOLDER / "provenance.py"}:
        named = re.search(r"\b(made_by|of_rows)\(", path.read_text())
        assert bool(named) != (path.stem in NO_RESULTS), path.stem


def test_rows_keep_what_they_were_measured_with(run, tmp_path):
    rows = [replace(row("tezip best", 1, 50), made_by="tezip_h5 1 (commit a), 2030-01-01")]
    rows.append(row("sz3", 1, 60))
    bench.save(rows, tmp_path / "s.csv")
    assert bench.saved(tmp_path / "s.csv") == rows
    said = f"Rows were measured with {rows[0].made_by}; a commit that was not written down."
    assert said in run.document(rows, "A machine")


@pytest.mark.parametrize(
    "path", sorted(FOLDER.glob("results/**/*.csv")), ids=lambda path: path.stem
)
def test_rows_of_earlier_days_are_read(path):
    assert bench.saved(path)

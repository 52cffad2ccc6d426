"""What the documents show runs as it stands; what they say of the format is so."""

import re
import runpy
from pathlib import Path

import pytest
from conftest import require_package, require_training

from tezip_h5 import bitstream
from tezip_h5.hdf5.pipeline.options import FILTER_ID, TEZip

ROOT = Path(__file__).parents[1]
NEEDED = {"dask_cluster": ["distributed"], "zarr_references": ["zarr", "fsspec"]}


def code_blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def test_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = code_blocks(ROOT / "README.md", "python")
    assert len(blocks) >= 3
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["frames"].shape == (8, 256, 256)


def test_the_readme_has_the_two_commands():
    shell = code_blocks(ROOT / "README.md", "sh")
    assert shell[0].strip() == "python -m pip install . && tezip-h5 demo"
    assert shell[1].strip() == 'python -m pip install ".[test]" && python -m pytest'


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_examples_run(path, tmp_path, monkeypatch, capsys):
    if path.stem == "train_and_use":
        require_training()
    require_package(*NEEDED.get(path.stem, ()))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


def test_the_format_document_agrees_with_the_code():
    text = (ROOT / "FORMAT.md").read_text()
    assert f"version {bitstream.FORMAT_VERSION}" in text.splitlines()[0]
    assert str(FILTER_ID) in text
    assert f"Of {len(TEZip().filter_options)} values" in text
    smallest = (ROOT / "tests/golden/smallest.tezip").read_bytes()
    section = text[text.index(" The smallest payload") :]
    section = section[: section.index("\n## ")]
    shown = []
    for cells in re.findall(r"^\| `([0-9a-f ]+)`( x 3)? \|", section, re.MULTILINE):
        shown += bytes.fromhex(cells[0]) * (3 if cells[1] else 1)
    assert bytes(shown) == smallest

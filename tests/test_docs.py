"""The documentation builds without a warning, and its links lead somewhere."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from conftest import require_package

import tezip_h5

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in ("sphinx", "myst_parser", "furo"):
        require_package(package)
    folder = tmp_path_factory.mktemp("docs")
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", str(ROOT / "docs")]
    words += ["-d", str(folder / "doctrees"), str(ROOT), str(folder / "site")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return folder / "site"


def test_every_document_is_a_page(site):
    front = (site / "index.html").read_text()
    assert "docs/index.html" in front
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "FORMAT.md", ROOT / "CHANGELOG.md"]
    for page in (*pages, ROOT / "filters" / "README.md", ROOT / "benchmarks" / "README.md"):
        assert (site / page.relative_to(ROOT)).with_suffix(".html").exists(), page


def test_every_public_name_is_described(site):
    text = (site / "docs" / "api.html").read_text()
    elsewhere = {
        "Model": "Model",
        "report": "tezip_h5.page.report",
        "train": "tezip_h5.model.learning.train",
    }
    for name in tezip_h5.__all__:
        if name != "__version__":
            place = elsewhere.get(name, f"tezip_h5.{name}")
            assert re.search(rf'id="[\w.]*{re.escape(place)}"', text), name


def test_every_example_is_shown(site):
    text = re.sub(r"<[^>]+>", "", (site / "docs" / "examples.html").read_text())
    for path in (ROOT / "examples").iterdir():
        words = re.findall(r"[A-Za-z_]{9,}", path.read_text())
        assert words, path
        assert set(words) <= set(re.findall(r"[A-Za-z_]+", text)), path


def test_every_command_is_described_as_its_parser_does():
    spec = importlib.util.spec_from_file_location("commands", ROOT / "docs" / "commands.py")
    commands = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(commands)
    assert commands.PAGE.read_text() == commands.page(), "run python docs/commands.py"


def test_links_lead_somewhere(site):
    pages = {page: page.read_text() for page in site.rglob("*.html") if "_modules" not in str(page)}
    assert len(pages) > 10
    checked = 0
    for page, text in pages.items():
        for link in re.findall(r'(?:href|src)="([^"]+)"', text):
            if re.match(r"[a-z]+:", link):
                continue
            file, _, anchor = link.partition("#")
            target = (page.parent / unquote(file.partition("?")[0])).resolve() if file else page
            assert target.exists(), f"{page.relative_to(site)}: {link}"
            if anchor and target in pages:
                assert f'id="{unquote(anchor)}"' in pages[target], f"{page}: {link}"
            checked += 1
    assert checked > 200

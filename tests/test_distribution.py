"""What is distributed: the source has all that is tracked, the wheel what a package needs."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from conftest import require_package, require_tool

ROOT = Path(__file__).parents[1]
OF_A_CHECKOUT = {".gitignore", ".ci/run"}


def tracked():
    listed = [require_tool("git"), "-C", str(ROOT), "ls-files", "-z"]
    done = subprocess.run(listed, capture_output=True, text=True)
    if done.returncode or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A function that builds as pip does, but with the setuptools that is here."""
    if int(require_package("setuptools").__version__.partition(".")[0]) < 77:
        pytest.skip("setuptools is too old to build this")
    source = tmp_path_factory.mktemp("source")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)

    def build(kind):
        out = tmp_path_factory.mktemp(kind)
        program = f"import sys; from setuptools import build_meta as b; b.build_{kind}(sys.argv[1])"
        words = [sys.executable, "-c", program, str(out)]
        done = subprocess.run(words, cwd=source, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        (made,) = out.iterdir()
        return made

    return build


def test_the_source_has_what_is_tracked(built):
    with tarfile.open(built("sdist")) as file:
        inside = {str(PurePosixPath(*Path(m.name).parts[1:])) for m in file if m.isfile()}
    made = {"PKG-INFO", "setup.cfg"} | {n for n in inside if n.startswith("tezip_h5.egg-info/")}
    assert inside - made == tracked() - OF_A_CHECKOUT


def test_the_wheel_has_the_package_alone(built):
    with zipfile.ZipFile(built("wheel")) as file:
        inside = set(file.namelist())
    packaged = {name for name in tracked() if name.startswith("tezip_h5/")}
    found = {name for name in inside if name.startswith("tezip_h5/") and "/libh5tezip" not in name}
    assert found == packaged - {"tezip_h5/plugins/.gitignore"}
    assert "tezip_h5/py.typed" in found
    assert {name.partition("/")[0].partition("-")[0] for name in inside} == {"tezip_h5"}

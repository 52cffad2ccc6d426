"""The house: imports go one way, stages are strangers, rooms are small."""

import ast
import re
from pathlib import Path

import pytest

import tezip_h5
from tezip_h5.settings import LEVELS

ROOT = Path(tezip_h5.__file__).parent

# Folders whose modules are rooms of their own.
FOLDERS = {"chunk", "stacks"}
# What each room may import, besides itself. A room not named here fails.
LOW = {"errors", "bounds", "levels", "chunk.exceptions", "chunk.mantissa", "efforts", "settings"}
LOW |= {"cost", "chunk.fallback"}
GPU = {"devices", "gpu_arrays", "failover"}
CODEC = LOW | {
    "failover",
    "kernels",
    "bitstream",
    "prediction",
    "residual",
    "windows",
    "chunk.planning",
    "chunk.frames_section",
    "model",
}
MAY_IMPORT = {
    "errors": set(),
    "version": set(),
    "cost": set(),
    "simulate": set(),
    "peers": set(),
    "signatures": {"prediction"},
    "kernels": {"errors"},
    "parallel": set(),
    "progress": set(),
    "bounds": {"errors", "holes"},
    "devices": {"errors"},
    "failover": {"devices", "errors"},
    "gpu_arrays": {"devices", "errors", "failover"},
    "efforts": set(),
    "settings": {"errors", "efforts"},
    "chunk.fallback": {"errors"},
    "inflate": {"errors"},
    "placing": set(),
    "holes": set(),
    "predictability": set(),
    "arithmetic": set(),
    "chunk.exceptions": {"arithmetic", "errors", "inflate", "kernels"},
    "chunk.mantissa": {"errors", "inflate", "kernels", "levels"},
    "stacks.images": {"errors", "stacks.misread", "placing"},
    "stacks.misread": {"errors"},
    "stacks.stackfiles": {"errors"},
    "model": {
        "errors",
        "prediction",
        "frames",
        "stacks.images",
        "placing",
        "progress",
        "simulate",
        "stacks.dataset_paths",
    },
    "levels": {"errors", "bounds", "predictability", "inflate"},
    "stacks.dask_blocks": set(),
    "stacks.dataset_paths": {"errors"},
    "frames": {
        "errors",
        "stacks.dask_blocks",
        "gpu_arrays",
        "levels",
        "stacks.images",
        "stacks.stackfiles",
    },
    "bitstream": {"errors", "levels"},
    "prediction": {"errors", "kernels", "parallel"},
    "windows": {"kernels", "cost"},
    "residual": {"arithmetic", "errors", "kernels", "cost", "inflate", "parallel"},
    "chunk.frames_section": {"errors", "windows"},
    "chunk.planning": {"bounds", "holes", "levels", "settings", "windows"},
    "chunk.samples": LOW | {"bitstream", "holes", "kernels"},
    "chunk.coding": CODEC | {"holes", "chunk.samples"},
    "chunk.attempts": CODEC | {"chunk.coding", "predictability", "holes", "parallel"},
    "codec": CODEC | {"chunk.attempts", "chunk.coding", "holes", "chunk.samples"},
    "recoding": CODEC | {"codec"},
    "chunk.anatomy": CODEC | {"chunk.coding"},
    "hdf5": CODEC
    | GPU
    | {
        "chunk.attempts",
        "codec",
        "chunk.coding",
        "recoding",
        "chunk.anatomy",
        "holes",
        "frames",
        "stacks.images",
        "version",
    }
    | {"stacks.dask_blocks", "stacks.dataset_paths", "progress", "stacks.stackfiles"},
    "page": {
        "errors",
        "chunk.anatomy",
        "bounds",
        "hdf5",
        "levels",
        "peers",
        "placing",
        "prediction",
        "progress",
        "version",
    },
    "zarr": CODEC | {"hdf5", "frames"},
    "__main__": {"cli"},
    "cli": CODEC
    | GPU
    | {
        "codec",
        "chunk.coding",
        "frames",
        "stacks.images",
        "hdf5",
        "page",
        "zarr",
        "peers",
        "simulate",
    }
    | {"holes", "placing", "stacks.stackfiles", "stacks.dataset_paths", "version", ""},
}
# What each room of `hdf5` may import of the others.
OF_HDF5 = {
    "threads": set(),
    "files": set(),
    "pipeline": {"threads"},
    "contents": {"files", "pipeline"},
    "reading": {"files", "pipeline", "contents", "threads"},
    "writing": {"files", "pipeline", "contents", "reading", "threads"},
    "changing": {"files", "pipeline", "contents", "reading", "writing", "threads"},
}
# What each room of `kernels` may import of the others; "" are the files beside them.
OF_KERNELS = {
    "": set(),
    "mixing": {""},
    "linear": {""},
    "cuda": {"", "mixing", "linear"},
}
COMPOSERS = {
    "residual",
    "residual.stages",
    "residual.linear",
    "residual.linear_device",
    "residual.linear_host",
    "residual.linear_plan",
    "residual.mixing",
    "residual.changes",
}
STAGES = {"quantize", "spatial", "ranks", "entropy"}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), path


def imports(path):
    """Modules of the package that a file imports, without the package's name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "tezip_h5":
                names = [f"tezip_h5.{alias.name}" for alias in node.names]
            else:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name == "tezip_h5" or name.startswith("tezip_h5."):
                yield name.removeprefix("tezip_h5").removeprefix(".")


FILES = dict(modules())


def room_of(name):
    """The room of a module, or of a name in it."""
    first, *further = name.split(".")
    return ".".join((first, *further[:1])) if first in FOLDERS else first


@pytest.mark.parametrize("name", [n for n in FILES if n not in {"__init__", *FOLDERS}])
def test_imports_go_one_way(name):
    room = room_of(name)
    allowed = MAY_IMPORT[room] | {room, "signatures", *FOLDERS}  # `signatures` has types alone
    for imported in imports(FILES[name]):
        assert room_of(imported) in allowed, f"{name} imports {imported}"


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_folders_of_rooms_bring_nothing_along(folder):
    assert not list(imports(FILES[folder]))


@pytest.mark.parametrize("name", [n for n in FILES if n.startswith("hdf5.")])
def test_imports_within_hdf5_go_one_way(name):
    room = name.split(".")[1]
    found = {i.split(".")[1] for i in imports(FILES[name]) if i.startswith("hdf5.")}
    assert found - {room} <= OF_HDF5[room]


def _room_of_kernels(name):
    room = name.split(".")[1] if name.count(".") else ""
    return room if room in OF_KERNELS else ""


@pytest.mark.parametrize("name", [n for n in FILES if n.partition(".")[0] == "kernels"])
def test_imports_within_kernels_go_one_way(name):
    """What is compiled for the processor is digested without the room for CUDA."""
    room = _room_of_kernels(name)
    found = {_room_of_kernels(i) for i in imports(FILES[name]) if i.startswith("kernels.")}
    assert found - {room} <= OF_KERNELS[room]


@pytest.mark.parametrize("name", sorted(STAGES))
def test_stages_are_strangers(name):
    found = {
        i.split(".")[1] for i in imports(FILES[f"residual.{name}"]) if i.startswith("residual.")
    }
    assert not found


def test_only_the_composers_know_the_stages():
    for name in FILES:
        known = {i for i in imports(FILES[name]) if i.startswith("residual.")}
        if name not in COMPOSERS:
            assert not known, f"{name} imports {known}"


def test_only_efforts_says_what_a_level_does():
    """No other room compares levels, or has a table of them."""
    for name, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            parts = []
            if isinstance(node, ast.Compare):
                parts = [node.left, *node.comparators]
            elif isinstance(node, ast.Dict):
                parts = node.keys
            elif isinstance(node, ast.MatchValue):
                parts = [node.value]
            values = {v for p in parts if p for v in ast.walk(p) if isinstance(v, ast.Constant)}
            found = {v.value for v in values if isinstance(v.value, str)} & set(LEVELS)
            assert not found or name == "efforts", f"{name}, line {node.lineno}: {found}"


def test_only_direct_goes_past_the_pipeline():
    """h5py's methods for that have no lock before 3.16."""
    for name, path in FILES.items():
        if re.search(r"\.(read|write)_direct_chunk\(", path.read_text()):
            assert name == "hdf5.contents.direct", name


def test_only_bitstream_packs_the_header():
    for name, path in FILES.items():
        if re.search(r"\bMAGIC\b", path.read_text()):  # not _MAGIC, which others may have
            assert name in ("bitstream",), name


@pytest.mark.parametrize("name", list(FILES))
def test_rooms_are_small(name):
    assert len(FILES[name].read_text().splitlines()) <= 420


def test_public_names_have_docstrings():
    for name in tezip_h5.__all__:
        value = getattr(tezip_h5, name)
        if callable(value):
            assert value.__doc__, name


def test_every_room_is_on_the_map():
    """docs/architecture.md names every room, and every one of `hdf5` and `kernels`."""
    text = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`([a-z0-9_]+)[/`*]", text))
    paths = (*ROOT.iterdir(), *(ROOT / "hdf5").rglob("*.py"))
    rooms = {path.stem for path in paths if path.suffix in ("", ".py")}
    rooms |= {path.stem for path in (ROOT / "kernels").rglob("*.py")}
    rooms |= set(OF_HDF5)
    assert {room for room in rooms if not room.startswith("_")} - named == set()


def test_encoders_leave_blas_alone():
    """After a long product its threads keep cores busy for a tenth of a second."""
    short = {"predictability", "residual.brightness"}  # of 512 samples, and of blocks of pixels
    rooms = {"chunk", "levels", "residual", "codec", "holes", "predictability", "windows"}
    for name, path in FILES.items():
        if name.partition(".")[0] in rooms and name not in short:
            products = [
                node.lineno
                for node in ast.walk(ast.parse(path.read_text()))
                if (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult))
                or (isinstance(node, ast.Attribute) and node.attr in ("dot", "matmul", "lstsq"))
            ]
            assert not products, f"{name}, lines {products}"

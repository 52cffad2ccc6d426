"""What is public says what it takes, gives and raises, as numpydoc has it."""

import importlib.util
import inspect
import re

import pytest

import tezip_h5
from tezip_h5 import page
from tezip_h5.chunk.coding import Encoded
from tezip_h5.hdf5.changing import convert, recompress, repair
from tezip_h5.hdf5.pipeline import misnamed
from tezip_h5.hdf5.reading import chunks, report, verifying
from tezip_h5.hdf5.writing import summary
from tezip_h5.model import learning
from tezip_h5.settings import Settings
from tezip_h5.signatures import SettingsKeywords
from tezip_h5.zarr.numcodec import TEZipCodec

OTHERS = [page.report, learning.train, report.FileReport, report.StackReport]
OTHERS += [chunks.ChunkReport, summary.Summary, verifying.Verification, Encoded, TEZipCodec]
OTHERS += [convert.Converted, convert.ConvertedStack, repair.Repaired, repair.RepairedStack]
OTHERS += [recompress.Recompressed, recompress.RecompressedStack]
if importlib.util.find_spec("zarr"):
    from tezip_h5.zarr.serializer import TEZipSerializer

    OTHERS.append(TEZipSerializer)


def public():
    """Names and what they are: functions, classes, their public methods and properties."""
    named = [(name, getattr(tezip_h5, name)) for name in tezip_h5.__all__]
    for name, value in [*named, *((f"{o.__module__}.{o.__name__}", o) for o in OTHERS)]:
        if not callable(value) or (inspect.isclass(value) and issubclass(value, Exception)):
            continue
        yield name, value
        bases = value.__mro__[1:] if inspect.isclass(value) else ()
        for method, of in vars(value).items() if inspect.isclass(value) else ():
            if any(method in vars(base) for base in bases):  # described there
                continue
            if not method.startswith("_") and not isinstance(of, str | bool | int | type(None)):
                yield f"{name}.{method}", getattr(of, "__func__", getattr(of, "fget", None) or of)


PUBLIC = [(name, value) for name, value in public() if callable(value)]


def sections(value) -> dict[str, str]:
    """The text of every section of a docstring."""
    parts = re.split(r"^(\w+)\n-{3,}\n", inspect.getdoc(value) or "", flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


@pytest.mark.parametrize(("name", "value"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_public_docstrings_are_whole(name, value):
    found = sections(value)
    assert re.match(r"[A-Za-z].*[.:)]", found[""]), "begins with no sentence"
    signature = inspect.signature(value)
    takes = [p for p in signature.parameters if p not in ("self", "cls")]
    fields = getattr(value, "__dataclass_fields__", None) if inspect.isclass(value) else None
    if takes:
        described = found.get("Attributes" if fields and "Attributes" in found else "Parameters")
        if described is None:  # one parameter, which the first sentence speaks of
            assert len(takes) == 1
            assert not isinstance(value, type)
            return
        heads = re.findall(r"^(\S.*?)(?: : .*)?$", described, re.MULTILINE)
        names = {n.strip(" *") for head in heads for n in head.split(",")}
        assert set(takes) <= names, f"not described: {set(takes) - names}"
        assert names <= set(takes), f"not taken: {names - set(takes)}"
    returns = str(signature.return_annotation)
    if takes and not inspect.isclass(value) and returns not in ("None",):
        assert "Returns" in found
    if takes and not inspect.isclass(value):
        assert "Raises" in found or "what is raised" in found["Parameters"]


@pytest.mark.parametrize(("name", "value"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_public_signatures_have_types(name, value):
    if value.__module__.startswith("tezip_h5.zarr.") and name.count(".") > 3:
        return  # zarr's and numcodecs' own methods
    signature = inspect.signature(value)
    takes = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    assert [p.name for p in takes if p.annotation is p.empty] == []
    assert inspect.isclass(value) or signature.return_annotation is not signature.empty


def test_settings_have_types_as_keywords():
    assert list(SettingsKeywords.__annotations__) == list(Settings.__dataclass_fields__)


def test_options_of_calls_are_known_to_the_advice_on_names():
    """What is misspelt is answered with options that there are, all of them."""
    parameters = {**inspect.signature(tezip_h5.write).parameters}
    parameters |= inspect.signature(tezip_h5.Writer).parameters
    named = {p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY}
    others = {"name", "frame_shape", "filenames", "dtype"}  # that follow what is compressed
    assert {name for name in named - others if name not in misnamed._OF_CALLS} == set()


def test_types_of_signatures_are_not_imported(in_fresh_process):
    in_fresh_process("import sys, tezip_h5; assert 'tezip_h5.signatures' not in sys.modules")

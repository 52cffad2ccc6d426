"""zarr writes our chunks, and reads those of HDF5 files: with the real packages."""

import json
import pickle
import subprocess
import sys

import h5py
import numcodecs
import numpy as np
import pytest
from conftest import require_package
from models import random_model

import tezip_h5
from tezip_h5 import FormatError, InputError, ModelError
from tezip_h5.cli import main
from tezip_h5.model import store
from tezip_h5.prediction.architecture import Architecture
from tezip_h5.zarr.numcodec import TEZipCodec
from tezip_h5.zarr.references import references

require_package("zarr", "fsspec", "kerchunk")
import kerchunk.combine  # noqa: E402
import kerchunk.utils  # noqa: E402
import zarr  # noqa: E402

from tezip_h5.zarr.serializer import TEZipSerializer  # noqa: E402

BOUNDS = [
    ({}, 0),
    ({"absolute": 2}, 2),
    ({"relative": 0.05}, None),
    ({"pointwise_relative": 0.01}, None),
]


def opened(refs, zarr_format=2):
    """The group that references describe, as a user opens it."""
    options = {"fo": refs, "remote_protocol": "file"}
    return zarr.open_group(
        "reference://", mode="r", storage_options=options, zarr_format=zarr_format
    )


def error(array, stack):
    return int(np.abs(array[:].astype(int) - stack).max())


# --- numcodecs, zarr's format 2 ---


@pytest.mark.parametrize(("bound", "largest"), BOUNDS)
@pytest.mark.parametrize("place", ["filters", "compressors"])
def test_format_2(tmp_path, walk, bound, largest, place):
    codec = TEZipCodec(level="fast", **bound)
    pipeline = {"filters": None, "compressors": None, place: codec}
    array = zarr.create_array(
        tmp_path / "x.zarr",
        shape=walk.shape,
        chunks=(8, 25, 30),
        dtype="u2",
        zarr_format=2,
        **pipeline,
    )
    array[:] = walk
    again = zarr.open_array(tmp_path / "x.zarr", mode="r")
    assert error(again, walk) == largest or (largest is None and 0 < error(again, walk) < 10)
    metadata = json.loads((tmp_path / "x.zarr/.zarray").read_text())
    stored = metadata["compressor"] or metadata["filters"][0]
    assert numcodecs.get_codec(stored) == codec
    payload = (tmp_path / "x.zarr/0.0.0").read_bytes()
    assert payload[:4] == b"TZH5"
    np.testing.assert_array_equal(tezip_h5.decode_chunk(payload), again[:8, :25, :30])


def test_numcodecs_finds_the_codec_by_itself(in_fresh_process):
    code = """
        import sys, numcodecs, numpy as np
        codec = numcodecs.get_codec({"id": "tezip", "absolute": 1.5})
        frames = np.arange(60, dtype="f4").reshape(3, 4, 5)
        out = np.empty_like(frames)
        codec.decode(bytearray(codec.encode(frames)), out=out)
        print(np.abs(out - frames).max() <= 1.5, repr(codec), "zarr" in sys.modules)
    """
    assert in_fresh_process(code).split("\n")[0] == "True TEZipCodec(absolute=1.5) False"


@pytest.mark.parametrize(
    "shape",
    [(5, 7), (3, 5, 7), (3, 5, 7, 3), (2, 3, 5, 7), (1, 1, 4, 5, 7), (2, 1, 3, 5, 7), (1, 1, 9)],
)
@pytest.mark.parametrize("dtype", ["u1", "<i4", "<f8"])
def test_shapes(shape, dtype):
    chunk = np.random.default_rng(0).integers(0, 99, shape).astype(dtype)
    codec = TEZipCodec(level="fast")
    back = codec.decode(codec.encode(chunk))
    assert back.dtype == chunk.dtype
    np.testing.assert_array_equal(back.reshape(shape), chunk)


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        (np.zeros(9, "u1"), r"chunks of shape \(9,\)"),
        (np.zeros((2, 0, 3), "u1"), "chunks of shape"),
        (np.zeros((2, 3, 3), ">u2"), "'<u2'"),
        (np.zeros((2, 3, 3), "c8"), "imaginary"),
        (np.zeros((2, 3, 3), "S2"), "cannot be stored"),
        (np.asfortranarray(np.zeros((2, 3, 3), "u1")), "order='C'"),
        (b"abc", "chunks of shape"),
    ],
)
def test_chunks_that_cannot_be(chunk, words):
    with pytest.raises(InputError, match=words):
        TEZipCodec().encode(chunk)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"absolute": -1}, "absolute"),
        ({"quality": 1}, "unknown option"),
        ({"level": "great"}, "level"),
        ({"models": ["?"]}, "base64"),
        ({"models": ["AAAA"]}, "no integer model"),
        ({"models": [7]}, "base64"),
        ({"models": 5}, "base64"),
        ({"models": "AAAA"}, "base64"),
    ],
)
@pytest.mark.parametrize("codec", [TEZipCodec, TEZipSerializer])
def test_options_that_cannot_be(codec, options, words):
    with pytest.raises((InputError, ModelError), match=words):
        codec(**options)


def test_damage_is_found(walk):
    codec = TEZipCodec(level="fast")
    payload = codec.encode(walk)
    for damaged in (b"", payload[:40], payload[:-1], payload[:99] + b"?" + payload[100:]):
        with pytest.raises(FormatError):
            codec.decode(damaged)
    with pytest.raises((ValueError, TypeError)):
        codec.decode(payload, out=np.empty(7, "u2"))


# --- zarr's format 3 ---


@pytest.mark.parametrize(("bound", "largest"), BOUNDS)
@pytest.mark.parametrize("shards", [None, (16, 40, 60)])
def test_format_3(tmp_path, walk, bound, largest, shards):
    array = zarr.create_array(
        tmp_path / "x.zarr",
        shape=walk.shape,
        chunks=(8, 20, 30),
        shards=shards,
        dtype="uint16",
        serializer=TEZipSerializer(level="fast", **bound),
        compressors=None,
    )
    array[:] = walk
    again = zarr.open_array(tmp_path / "x.zarr", mode="r")
    assert error(again, walk) == largest or (largest is None and 0 < error(again, walk) < 10)
    assert "tezip" in (tmp_path / "x.zarr/zarr.json").read_text()
    np.testing.assert_array_equal(again[3, 5:30, ::3], again[:][3, 5:30, ::3])


def test_zarr_finds_the_codec_by_itself(tmp_path, walk, in_fresh_process):
    serializer = TEZipSerializer(level="fast", absolute=1)
    array = zarr.create_array(
        tmp_path / "x.zarr", data=walk.astype(">u2"), serializer=serializer, compressors=None
    )
    assert error(array, walk) == 1
    code = "import zarr, sys; a = zarr.open_array(sys.argv[1]); print(a[:].sum(), a.serializer)"
    code = code.replace("sys.argv[1]", repr(str(tmp_path / "x.zarr")))
    expected = f"{array[:].sum()} TEZipSerializer(absolute=1.0, level='fast')"
    assert in_fresh_process(code).strip() == expected


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [((9,), "uint8", "chunks of shape"), ((3, 4, 5), "complex64", "imaginary")],
)
def test_arrays_that_cannot_be(shape, dtype, words):
    with pytest.raises(InputError, match=words):
        zarr.create_array(
            {}, shape=shape, dtype=dtype, serializer=TEZipSerializer(), compressors=None
        )


def test_rewriting_a_part_adds_no_error(walk):
    for zarr_format, pipeline in [
        (2, {"compressors": TEZipCodec(absolute=3, level="fast")}),
        (3, {"compressors": None, "serializer": TEZipSerializer(absolute=3, level="fast")}),
    ]:
        array = zarr.create_array(
            {},
            shape=walk.shape,
            chunks=walk.shape,
            dtype="uint16",
            zarr_format=zarr_format,
            **pipeline,
        )
        array[:] = walk
        before = array[:]
        for t in range(0, 20, 2):
            array[t] = walk[t] // 2
        np.testing.assert_array_equal(array[1::2], before[1::2])
        assert error(array, walk) > 3


@pytest.mark.parametrize(("dtype", "columns"), [("uint16", 55), ("int16", 56)])
def test_chunks_of_another_array_are_refused(walk, dtype, columns):
    serializer = TEZipSerializer(level="fast")
    a = zarr.create_array(
        {}, data=walk, chunks=(20, 40, 56), serializer=serializer, compressors=None
    )
    kept = a.store_path.store._store_dict
    b = zarr.create_array(
        {},
        shape=(20, 40, columns),
        chunks=(20, 40, columns),
        dtype=dtype,
        serializer=serializer,
        compressors=None,
    )
    b.store_path.store._store_dict["c/0/0/0"] = kept["c/0/0/0"]
    with pytest.raises(FormatError, match="another array"):
        b[:]


# --- references to HDF5 files ---


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_stack_through_references(tmp_path, walk, zarr_format):
    path = tmp_path / "run.h5"
    tezip_h5.write(walk, path, level="fast", chunk_frames=7, tile=(25, 30))
    tezip_h5.write(walk.astype("f4"), path, "deep/b", level="fast", absolute=0.5)
    refs = json.loads(json.dumps(references(path, zarr_format=zarr_format)))
    group = opened(refs, zarr_format)
    array = group["scan/data"]
    assert array.chunks == (7, 25, 30)
    if zarr_format == 2:
        assert [name for name, _ in group["scan"].members()] == ["data"]
        assert array.metadata.fill_value is None  # to xarray it would be a missing sample
    np.testing.assert_array_equal(array[:], walk)
    np.testing.assert_array_equal(array[4:9, 7, ::2], walk[4:9, 7, ::2])
    assert group["deep/b"].attrs["bound"] == "absolute 0.5"
    assert np.abs(group["deep/b/data"][:] - walk).max() <= 0.5
    only = references(path, "deep/b", zarr_format=zarr_format)["refs"]
    assert not any(key.startswith("scan") for key in only)
    moved = references(path, url="s3://bucket/run.h5", zarr_format=zarr_format)["refs"]
    assert {v[0] for v in moved.values() if isinstance(v, list)} == {"s3://bucket/run.h5"}


def test_datasets_that_the_filter_made(tmp_path, walk):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", userblock_size=1024) as f:
        data = f.create_dataset(
            "a/x",
            walk.shape,
            ">u2",
            chunks=(5, 40, 56),
            fillvalue=9,
            **tezip_h5.TEZip(level="fast"),
        )
        data[:10] = walk[:10]
        data.attrs["unit"] = "counts"
        data.attrs["self"] = data.ref
        data.attrs["limits"] = np.array([1.5, np.nan])
        data.dims[1].label = "height"
        data.id.write_direct_chunk((15, 0, 0), walk[15:].astype(">u2").tobytes(), filter_mask=1)
    expected = walk.copy()
    expected[10:15] = 9
    refs = references(path)
    array = opened(refs)["a/x"]
    np.testing.assert_array_equal(array[:], expected)
    attrs = dict(array.attrs)
    assert attrs.pop("_ARRAY_DIMENSIONS") == ["x_frame", "height", "x_column"]
    assert attrs == {"unit": "counts", "limits": [1.5, "NaN"]}
    assert refs["refs"]["a/x/3.0.0"].startswith("base64:")


def test_an_embedded_model_is_in_the_references(tmp_path, walk, in_fresh_process):
    model = random_model(Architecture(1, (4,), (3, 5)))
    path, out = tmp_path / "run.h5", tmp_path / "refs.json"
    stack = walk[:4].astype("u1")
    tezip_h5.write(stack, path, model=model, predictor="prednet")
    assert main(["references", str(path), str(out)]) == 0
    code = f"""
        import json, zarr
        options = {{"fo": {str(out)!r}, "remote_protocol": "file"}}
        group = zarr.open_group("reference://", mode="r", storage_options=options, zarr_format=2)
        print(group["scan/data"][:].sum())
    """
    assert in_fresh_process(code).strip() == str(stack.sum())
    digest = model.digest.hex()
    codec = TEZipCodec(model=digest, predictor="prednet")
    config = codec.get_config()
    assert config["model"] == digest
    payload, pickled = codec.encode(stack), pickle.dumps(codec)
    for again in (lambda: numcodecs.get_codec(config), lambda: pickle.loads(pickled)):
        store._registered.pop(model.digest)
        np.testing.assert_array_equal(again().decode(payload), stack)


def test_kerchunk_joins_files(tmp_path, walk):
    refs = []
    for i in range(3):
        tezip_h5.write(walk + i, tmp_path / f"{i}.h5", level="fast", chunk_frames=5)
        refs.append(references(tmp_path / f"{i}.h5"))
    joined = kerchunk.combine.concatenate_arrays(refs, path="scan/data", axis=0)
    store = kerchunk.utils.refs_as_store(joined, remote_protocol="file")
    array = zarr.open_array(store, path="scan/data", mode="r", zarr_format=2)
    np.testing.assert_array_equal(array[:], np.concatenate([walk, walk + 1, walk + 2]))


def test_kerchunk_describes_the_rest(tmp_path, walk):
    path = tmp_path / "run.h5"
    tezip_h5.write(walk, path, level="fast")
    with h5py.File(path, "r+") as f:
        f.create_dataset("entry/dark", data=walk[0], chunks=(10, 56), compression="gzip")
        f["entry/temperature"] = np.arange(5.0)
        f.create_dataset("entry/odd", data=walk, chunks=True, compression="lzf")
    with pytest.warns(UserWarning, match=r"cannot describe.*entry/odd"):
        refs = references(path, others=True)
    group = opened(refs)
    np.testing.assert_array_equal(group["entry/dark"][:], walk[0])
    np.testing.assert_array_equal(group["entry/temperature"][:], np.arange(5.0))
    np.testing.assert_array_equal(group["scan/data"][:], walk)
    np.testing.assert_array_equal(
        group["scan/preview"][0, 0, 0], h5py.File(path)["scan/preview"][0, 0, 0]
    )


def test_the_command_warns_in_one_line(tmp_path, walk):
    path = tmp_path / "run.h5"
    tezip_h5.write(walk, path, level="fast")
    with h5py.File(path, "r+") as f:
        f.create_dataset("odd", data=walk, chunks=True, compression="lzf")
    command = [sys.executable, "-m", "tezip_h5", "references", str(path)]
    result = subprocess.run(
        [*command, str(tmp_path / "run.json"), "--others"],
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [line for line in result.stderr.splitlines() if "odd" in line]
    assert line.startswith("tezip-h5: warning: ")
    assert "warnings.warn" not in result.stderr


def test_references_that_cannot_be(tmp_path, walk, capsys):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as f:
        f["plain"] = walk
    for call, words in [
        (lambda: references(tmp_path / "none.h5"), "no file"),
        (lambda: references(path), "no dataset compressed"),
        (lambda: references(path, "plain"), "no dataset compressed"),
        (lambda: references(path, zarr_format=4), "zarr_format"),
        (lambda: references(path, zarr_format=3, others=True), "zarr_format 2"),
    ]:
        with pytest.raises(InputError, match=words):
            call()
    with h5py.File(path, "r+") as f:
        f.create_dataset(
            "x", data=walk, chunks=(5, 40, 56), shuffle=True, **tezip_h5.TEZip(level="fast")
        )
    with pytest.raises(InputError, match="further filters"):
        references(path)
    out = tmp_path / "out.json"
    assert main(["references", str(path), str(out)]) == 1
    assert "further filters" in capsys.readouterr().err
    assert not out.exists()

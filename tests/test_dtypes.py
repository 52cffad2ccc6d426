"""Every type of sample on every way in and out: what HDF5 calls it, and that it comes back."""

import json

import h5py
import numpy as np
import pytest
from conftest import require_package
from PIL import Image

import tezip_h5
from tezip_h5 import ErrorBound, InputError, Settings, codec
from tezip_h5.cli import main
from tezip_h5.levels import DTYPES


def moving(dtype):
    """A drifting gradient with noise: (6, 20, 24)."""
    t, y, x = np.ogrid[:6, :20, :24]
    values = (x + t) * 3 + y * 2 + np.random.default_rng(0).poisson(9, (6, 20, 24))
    return values > 60 if dtype == "bool" else values.astype(dtype)


@pytest.fixture(params=DTYPES)
def stack(request):
    return moving(request.param)


def assert_same(found, stack):
    assert found.dtype == stack.dtype
    assert found.shape == stack.shape
    assert found.tobytes() == stack.tobytes()


def test_written_and_read(tmp_path, stack):
    path = tmp_path / "run.h5"
    tezip_h5.write(stack, path)
    assert_same(tezip_h5.read(path), stack)
    assert_same(tezip_h5.read(path, 2), stack[2])
    tezip_h5.verify(path)


def test_plain_h5py_reads_all_of_them(tmp_path, in_fresh_process):
    for dtype in DTYPES:
        tezip_h5.write(moving(dtype), tmp_path / f"{dtype}.h5")
    in_fresh_process(
        f"import h5py, numpy, tezip_h5\n"
        f"for dtype in {DTYPES}:\n"
        f"    with h5py.File(f'{tmp_path}/{{dtype}}.h5') as f:\n"
        f"        numpy.save(f'{tmp_path}/{{dtype}}.npy', f['scan/data'][()])\n"
    )
    for dtype in DTYPES:
        assert_same(np.load(tmp_path / f"{dtype}.npy"), moving(dtype))


def test_big_endian_stacks_are_stored_little_endian(tmp_path, stack):
    path = tmp_path / "run.h5"
    tezip_h5.write(stack.astype(stack.dtype.newbyteorder(">")), path)
    assert_same(tezip_h5.read(path), stack)


def test_an_absolute_bound(tmp_path, stack):
    """Numbers are within it; what is true stays true."""
    path = tmp_path / "run.h5"
    tezip_h5.write(stack, path, absolute=2)
    back = tezip_h5.read(path)
    if stack.dtype == bool:
        assert_same(back, stack)
    else:
        error = np.abs(back.astype(float) - stack.astype(float)).max()
        assert 0 < error <= 2
    tezip_h5.verify(path)


@pytest.mark.parametrize("bound", [{"relative": 0.02}, {"pointwise_relative": 0.05}])
def test_relative_bounds(tmp_path, stack, bound):
    path = tmp_path / "run.h5"
    tezip_h5.write(stack, path, **bound)
    before, after = stack.astype(float), tezip_h5.read(path).astype(float)
    allowed = 0.05 * np.abs(before)
    if "relative" in bound:
        allowed = 0.02 * (before.max((1, 2)) - before.min((1, 2)))[:, None, None]
    assert (np.abs(after - before) <= allowed).all()


def test_frame_by_frame(tmp_path, stack):
    path = tmp_path / "run.h5"
    with tezip_h5.Writer(path, "scan", frame_shape=(20, 24), dtype=stack.dtype) as writer:
        for frame in stack:
            writer.append(frame)
    assert_same(tezip_h5.read(path), stack)


@pytest.mark.parametrize("order", "<>")
def test_through_the_filter(tmp_path, stack, order):
    stack = stack.astype(stack.dtype.newbyteorder(order))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", data=stack, chunks=(3, 20, 24), **tezip_h5.TEZip())
        assert data.id.get_storage_size() < stack.nbytes
    with h5py.File(tmp_path / "x.h5") as file:
        assert_same(file["x"][:], stack)
    assert_same(tezip_h5.read(tmp_path / "x.h5", name="x"), stack.astype(stack.dtype.name))


def test_an_enumeration_stays_one(tmp_path):
    """Labels with names; only h5py's own enumeration means bool."""
    names = h5py.enum_dtype({"cell": 1, "wall": 2, "none": 0}, basetype="u1")
    labels = (moving("uint8") % 3).astype(names)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=labels, dtype=names, chunks=(3, 20, 24), **tezip_h5.TEZip())
    with h5py.File(tmp_path / "x.h5") as file:
        assert h5py.check_enum_dtype(file["x"].dtype) == {"cell": 1, "wall": 2, "none": 0}
        np.testing.assert_array_equal(file["x"][:], labels)
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "x.h5", name="x"), labels)


def test_converted_recompressed_and_shown(tmp_path, stack, capsys):
    source, path, best = (tmp_path / name for name in ("in.h5", "out.h5", "best.h5"))
    large = np.tile(stack, (2, 4, 4))
    with h5py.File(source, "w") as file:
        file.create_dataset("raw/x", data=large, chunks=(1, 80, 96), compression="gzip")
        assert file["raw/x"].dtype == stack.dtype
    assert main(["convert", str(source), str(path)]) == 0
    with h5py.File(path) as file:
        assert "36471" in str(file["raw/x"].id.get_create_plist().get_filter(0))
        assert_same(file["raw/x"][:], large)
    assert main(["recompress", str(path), str(best), "--level", "best"]) == 0
    with h5py.File(best) as file:
        assert_same(file["raw/x"][:], large)
    assert main(["verify", str(best)]) == 0
    assert main(["inspect", str(best), "--html", str(tmp_path / "page.html")]) == 0
    assert stack.dtype.name in capsys.readouterr().out


def test_measured_beside_others(tmp_path, stack, capsys):
    np.save(tmp_path / "x.npy", stack)
    only = ["--only", "tezip fast", "difference", "sz3"]
    assert main(["bench", str(tmp_path / "x.npy"), *only]) == 0
    captured = capsys.readouterr()
    assert "failed" not in captured.err
    assert "broken" not in captured.out
    assert "exact" in captured.out


def test_zarr(tmp_path, stack):
    require_package("zarr", "fsspec")
    import zarr

    from tezip_h5.zarr.numcodec import TEZipCodec
    from tezip_h5.zarr.references import references
    from tezip_h5.zarr.serializer import TEZipSerializer

    for number, pipeline in [
        (2, {"compressors": TEZipCodec()}),
        (3, {"compressors": None, "serializer": TEZipSerializer()}),
    ]:
        array = zarr.create_array(
            tmp_path / f"{number}.zarr",
            shape=stack.shape,
            chunks=(3, 20, 24),
            dtype=stack.dtype,
            zarr_format=number,
            **pipeline,
        )
        array[:] = stack
        assert_same(zarr.open_array(tmp_path / f"{number}.zarr")[:], stack)
        path = tmp_path / f"{number}.h5"
        tezip_h5.write(stack, path)
        found = json.loads(json.dumps(references(path, zarr_format=number)))
        options = {"fo": found, "remote_protocol": "file"}
        group = zarr.open_group(
            "reference://", mode="r", storage_options=options, zarr_format=number
        )
        assert_same(group["scan/data"][:], stack)


def test_dask(tmp_path, stack):
    require_package("dask")
    tezip_h5.write(stack, tmp_path / "run.h5")
    lazy = tezip_h5.to_dask(tmp_path / "run.h5")
    assert_same(lazy[1:3].compute(), stack[1:3])


def test_bool_becomes_black_and_white_images(tmp_path):
    stack = moving("bool")
    tezip_h5.write(stack, tmp_path / "run.h5")
    tezip_h5.extract(tmp_path / "run.h5", tmp_path / "out")
    paths = sorted((tmp_path / "out").iterdir())
    assert len(paths) == len(stack)
    for path, frame in zip(paths, stack, strict=True):
        with Image.open(path) as image:
            assert image.mode == "1"
            np.testing.assert_array_equal(np.asarray(image), frame)
    tezip_h5.write(tmp_path / "out", tmp_path / "again.h5")
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "again.h5"), stack)


@pytest.mark.parametrize(
    ("dtype", "channels"), [("bool", 3), ("f8", 1), ("i8", 1), ("u8", 1), ("u2", 3)]
)
def test_what_no_image_holds_becomes_npy_files(tmp_path, dtype, channels):
    stack = np.stack([moving("u1")[:3] % 2] * channels, -1).astype(dtype)
    tezip_h5.write(stack, tmp_path / "run.h5", level="fast")
    assert tezip_h5.extract(tmp_path / "run.h5", tmp_path / "out") == {}  # no name was recorded
    paths = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in paths] == [f"frame_{i:06}.npy" for i in range(3)]
    np.testing.assert_array_equal(np.stack([np.load(path) for path in paths]), stack)


def test_masks_hide_pixels_of_every_type(tmp_path, stack):
    mask = np.zeros((20, 24), bool)
    mask[3:5, 7] = True
    tezip_h5.write(stack, tmp_path / "run.h5", mask=mask, absolute=1)
    back = tezip_h5.read(tmp_path / "run.h5")
    np.testing.assert_array_equal(back[:, mask], stack[:, mask])


# --- integers of 64 bits at their limits ---

ENDS = np.iinfo("i8").min, np.iinfo("i8").max, np.iinfo("u8").max


def differences(one, other):
    """Of Python's integers, which do not overflow."""
    return [abs(a - b) for a, b in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True)]


@pytest.mark.parametrize("level", ["fast", "balanced", "best"])
@pytest.mark.parametrize("shift", [-(2**63), -(2**62), -(2**53), 2**52, 2**61, 2**63 - 5000, 2**63])
def test_far_from_zero(shift, level):
    dtype = "u8" if shift >= 2**62 else "i8"
    stack = (moving("i8").astype(object) + shift).astype(dtype)
    for bound in (ErrorBound(), ErrorBound(absolute=3), ErrorBound(pointwise_relative=0.1)):
        limits = bound.of_frames(stack[..., None])
        back = codec.decode_chunk(codec.encode_chunk(stack, limits, Settings(level=level)).payload)
        most = 0 if bound.lossless else 3 if bound.absolute else 0.1 * 2**64
        assert max(differences(stack, back)) <= most


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_sentinels_at_the_ends_do_not_widen_the_levels(dtype):
    stack = moving(dtype)
    stack[:, 4:6] = np.iinfo(dtype).max if dtype == "u8" else np.iinfo(dtype).min
    encoded = codec.encode_chunk(
        stack, ErrorBound(absolute=2).of_frames(stack[..., None]), Settings()
    )
    assert encoded.coder != "fallback"
    back = codec.decode_chunk(encoded.payload)
    np.testing.assert_array_equal(back[:, 4:6], stack[:, 4:6])
    assert max(differences(stack, back)) <= 2


def test_a_check_sees_differences_that_float64_does_not():
    bound = ErrorBound(absolute=2).of_frames(np.zeros((1, 1, 1, 1)))
    frame = np.array([[[2**62 + 100]]])
    assert not bound.check(frame, frame + 2, 0)[1].any()
    assert bound.check(frame, frame + 3, 0)[1].all()
    least, most = np.array([[[ENDS[0]]]]), np.array([[[ENDS[1]]]])
    assert bound.check(least, most, 0)[1].all()


def test_labels_of_64_bits_take_few_levels():
    labels = np.random.default_rng(0).choice(np.arange(9) * 2**57 - 2**59, (6, 40, 50))
    for bound in (ErrorBound(), ErrorBound(absolute=1000)):
        limits = bound.of_frames(labels[..., None])
        encoded = codec.encode_chunk(labels, limits, Settings(level="fast"))
        assert len(encoded.payload) < labels.size * 0.45 + 500  # log2(9) is 3.2 bits
        np.testing.assert_array_equal(codec.decode_chunk(encoded.payload), labels)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64"])
def test_errors_of_predictions_are_on_a_scale_of_0_to_1(monkeypatch, dtype):
    """Half of all samples turn from the least to the most."""
    most = {"bool": 1, "uint8": 255, "int64": 9}[dtype]  # of 64 bits none fills its type
    stack = np.zeros((2, 8, 8), dtype)
    stack[1, :4] = most
    monkeypatch.setattr(codec, "_fallback_may_win", lambda *_: False)
    settings = Settings(coder="stages", predictor="previous")
    encoded = codec.encode_chunk(stack, ErrorBound().of_frames(stack), settings)
    assert [frame.mse for frame in encoded.frames] == [0, 0.5]


# --- bytes that are neither true nor false ---


def test_bytes_of_bool_come_back_as_they_are():
    """HDF5 lets any byte be stored; nothing may be lost."""
    stack = np.array([0, 1, 1, 2, 255, 0] * 50, "u1").reshape(3, 10, 10).view(bool)
    for coder in ("stages", "linear", "mixing", "fallback"):
        back = codec.decode_chunk(
            codec.encode_chunk(stack, ErrorBound().of_frames(stack), Settings(coder=coder)).payload
        )
        assert back.dtype == bool
        assert back.tobytes() == stack.tobytes()


@pytest.mark.parametrize("dtype", ["complex64", "longdouble", "datetime64[s]", "S3", "V4"])
def test_what_cannot_be_stored(tmp_path, dtype):
    with pytest.raises(InputError, match="cannot be stored"):
        tezip_h5.write(np.zeros((2, 4, 4), dtype), tmp_path / "x.h5")
    with (
        h5py.File(tmp_path / "y.h5", "w") as file,
        pytest.raises((ValueError, OSError, TypeError)),
    ):
        file.create_dataset("x", (2, 4, 4), dtype, chunks=(2, 4, 4), **tezip_h5.TEZip())
    assert not (tmp_path / "x.h5").exists()

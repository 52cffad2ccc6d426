"""What was built apart works together: panels and masks with clusters, zarr and the report page;
marks for NeXus on whatever writes."""

import json
import re

import h5py
import numpy as np
import pytest
from conftest import require_package

import tezip_h5
from tezip_h5 import InputError
from tezip_h5.simulate import detector_sequence
from tezip_h5.zarr.numcodec import TEZipCodec

OPTIONS = {"level": "fast", "absolute": 2, "threads": 1}


@pytest.fixture(scope="module")
def modules():
    """Three modules of a detector, uint16 (T, M, H, W)."""
    frames = detector_sequence(10, 40, 48)
    return np.stack([frames, frames[:, ::-1], frames[:, :, ::-1]], axis=1)


@pytest.fixture(scope="module")
def mask(modules):
    mask = np.zeros(modules.shape[1:], bool)
    mask[:, 5:8, 3:9] = True
    return mask


@pytest.fixture(scope="module")
def masked(modules, mask):
    frames = modules.copy()
    frames[:, mask] = 65535
    return frames


@pytest.fixture(scope="module")
def path(tmp_path_factory, masked, mask):
    path = tmp_path_factory.mktemp("together") / "panels.h5"
    tezip_h5.write(masked, path, axes="TMYX", mask=mask, **OPTIONS)
    return path


def payloads(path):
    with h5py.File(path) as f:
        data = f["scan/data"]
        chunks = [data.id.get_chunk_info(i) for i in range(data.id.get_num_chunks())]
        found = {c.chunk_offset: data.id.read_direct_chunk(c.chunk_offset)[1] for c in chunks}
        return found, f["scan/frames"][()].tolist(), f["scan/preview"][()].tolist()


def test_a_dask_array_of_modules(tmp_path, path, masked, mask):
    require_package("dask")
    import dask.array

    blocks = dask.array.from_array(masked.transpose(1, 0, 2, 3), chunks=(1, 4, 20, 48))
    out = tmp_path / "out.h5"
    tezip_h5.write(blocks, out, axes="MTYX", mask=mask, verify=True, **OPTIONS)
    assert payloads(out) == payloads(path)
    lazy = tezip_h5.to_dask(out)
    assert lazy.shape == masked.shape
    assert np.array_equal(lazy.compute(scheduler="sync"), tezip_h5.read(path))


def test_a_cluster_encodes_modules_around_masks(tmp_path, path, masked, mask):
    require_package("distributed")
    import dask.array
    import distributed

    loopback = {
        "protocol": "tcp",
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "processes": False,
    }
    raw = tmp_path / "raw.h5"
    with h5py.File(raw, "w") as f:
        f["x"] = masked
    blocks = dask.array.from_array(masked.transpose(1, 0, 2, 3), chunks=(1, 4, 20, 48))
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, **loopback) as local,
        distributed.Client(local) as client,
        h5py.File(raw) as f,
    ):
        ways = [(blocks, "MTYX"), (f["x"], "TMYX"), (masked, "TMYX")]
        for number, (stack, axes) in enumerate(ways):
            out = tmp_path / f"{number}.h5"
            tezip_h5.write(stack, out, axes=axes, mask=mask, scheduler=client, **OPTIONS)
            assert payloads(out) == payloads(path), axes
    back = tezip_h5.read(tmp_path / "0.h5")
    assert (back[:, mask] == 65535).all()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_reads_modules(path, zarr_format):
    require_package("zarr", "fsspec")
    import zarr

    refs = tezip_h5.references(path, zarr_format=zarr_format)
    options = {"fo": refs, "remote_protocol": "file"}
    root = zarr.open_group(
        "reference://", mode="r", storage_options=options, zarr_format=zarr_format
    )
    assert np.array_equal(root["scan/data"][:], tezip_h5.read(path))
    names = ["frame", "panel", "row", "column"]
    if zarr_format == 2:
        assert root["scan/data"].attrs["_ARRAY_DIMENSIONS"] == names
    else:
        assert list(root["scan/data"].metadata.dimension_names) == names


def test_the_page_draws_modules_one_below_the_other(tmp_path, path):
    page = tezip_h5.report(path, tmp_path / "page.html", peers=True, threads=1)
    text = page.read_text()
    told = [json.loads(part) for part in scripts(text)]
    (frames,) = [part for part in told if isinstance(part, dict) and "images" in part]
    assert frames["size"] == [48, 120]
    assert len(frames["frames"]) == 10
    low, high = re.search(
        r"<span>([\d.]+)</span><i class=.greys.></i><span>([\d.]+)<", text
    ).groups()
    assert float(low) < float(high) < 60000  # masked pixels hold 65535, and are no grey level


def scripts(text):
    for part in text.split("<script")[1:]:
        head, _, body = part.partition(">")
        if "json" in head:
            yield body.partition("</script>")[0]


def test_a_network_predicts_modules(tmp_path, modules, no_fallback):
    out = tmp_path / "network.h5"
    options = {"predictor": "prednet", "axes": "TMYX", "threads": 1}
    summary = tezip_h5.write(modules[:3, :, :16, :24], out, **options)
    assert summary.network_chunks == summary.chunks == 3
    assert np.array_equal(tezip_h5.read(out), modules[:3, :, :16, :24])


def test_image_files_of_modules_are_refused(tmp_path, path):
    with pytest.raises(InputError, match="panel axes"):
        tezip_h5.extract(path, tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_a_noise_bound_stays_with_the_references(tmp_path):
    counts = np.random.default_rng(0).poisson(30, (4, 32, 32)).astype("u2")
    out = tmp_path / "noise.h5"
    tezip_h5.write(counts, out, noise=0.5, level="fast")
    about = json.loads(tezip_h5.references(out)["refs"]["scan/data/.zarray"])
    assert about["filters"] == [{"id": "tezip", "noise": 0.5, "level": "fast"}]
    codec = TEZipCodec(noise=0.5, level="fast")
    back = codec.decode(codec.encode(counts)).astype(float)
    assert (np.abs(back - counts) <= 0.5 * np.sqrt(counts)).all()


def test_every_writer_marks_its_file(tmp_path, masked):
    live = tmp_path / "live.h5"
    shape, name = masked.shape[1:], "entry/detector/scan"
    with tezip_h5.Writer(
        live, name, frame_shape=shape, dtype="u2", panel_axes=1, swmr=True, level="fast"
    ) as writer:
        writer.append(masked)
    with h5py.File(live) as f:
        found = [(f[p].attrs["NX_class"], f[p].attrs.get("default")) for p in ("/", "entry")]
        assert found == [("NXroot", "entry"), ("NXentry", "detector")]
        assert f[name].attrs["NX_class"] == "NXdata"
        assert f[f"{name}/data"].attrs["interpretation"] == "image"

    old, new = tmp_path / "old.h5", tmp_path / "new.h5"
    with h5py.File(old, "w") as f:
        f["entry/images"] = masked
        f["entry/images"].attrs["units"] = "counts"
    tezip_h5.convert(old, new, level="fast")
    with h5py.File(new) as f:
        assert dict(f["entry"].attrs) == {}
        assert set(f["entry/images"].attrs) == {"units", "tezip"}
        tables = f["tezip/stacks/entry/images"]
        assert tables.attrs["NX_class"] == "NXcollection"
        assert "signal" not in tables.attrs


def test_a_writer_below_a_dataset_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as f:
        f["x"] = 1
    with pytest.raises(InputError, match=r"x of .* is no group"):
        tezip_h5.Writer(path, "x/scan", frame_shape=(8, 8), dtype="u2")
    with h5py.File(path) as f:
        assert list(f) == ["x"]

"""What callers get wrong: each is an `InputError` that says what was found, and no file is left."""

import time

import h5py
import numpy as np
import pytest
from conftest import require_package
from PIL import Image

import tezip_h5
from tezip_h5 import ErrorBound, InputError, Settings, Writer, decode_chunk, encode_chunk
from tezip_h5.cli import main
from tezip_h5.frames import open_stack
from tezip_h5.hdf5.contents.layout import Layout

STACK = np.arange(6 * 8 * 9, dtype="u2").reshape(6, 8, 9)

# --- stacks that are not what they say ---


class Liar:
    """An array-like that gives something else than it says it has."""

    def __init__(self, change):
        self.shape, self.dtype, self._change = STACK.shape, STACK.dtype, change

    def __getitem__(self, index):
        return self._change(STACK[index])


LIES = [
    (lambda b: b * 1.7, "came as float64"),
    (lambda b: b.astype("i2"), "came as int16"),
    (lambda b: b[:1], r"came as uint16 \(1, 8, 9\)"),
    (lambda b: np.repeat(b, 2, 0), r"came as uint16 \(4, 8, 9\)"),
    (lambda b: b[:, :3], r"came as uint16 \(2, 3, 9\)"),
    (lambda b: b.reshape(-1), "came as uint16"),
    (lambda b: None, "came as None"),
    (lambda b: np.ma.masked_less(b, 1), "mask"),
]


@pytest.mark.parametrize(("change", "words"), LIES)
def test_an_array_like_that_gives_something_else(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        tezip_h5.write(Liar(change), tmp_path / "x.h5", level="fast", chunk_frames=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0)])
@pytest.mark.parametrize("chunks", [(2, 8, 9), (2, 4, 9)])
@pytest.mark.parametrize(("change", "words"), LIES)
def test_a_dask_array_that_gives_something_else(tmp_path, change, words, chunks, order):
    dask = require_package("dask.array", "dask")
    array = dask.array.from_array(STACK, chunks=chunks).map_blocks(
        lambda b, block_info=None: change(b) if block_info[0]["chunk-location"] == (0, 0, 0) else b,
        dtype="u2",
        meta=np.empty((0, 0, 0), "u2"),
    )
    if order != (0, 1, 2):
        if words == "came as None" or change(STACK).ndim == 1:
            pytest.skip("dask itself fails to transpose it")
        array = array.transpose(order)
    axes = "".join("TYX"[axis] for axis in order)
    match = "mask" if words == "mask" else "came as"
    with dask.config.set(scheduler="threads"), pytest.raises(InputError, match=match):
        tezip_h5.write(array, tmp_path / "x.h5", level="fast", axes=axes)
    assert list(tmp_path.iterdir()) == []


def test_what_came_and_what_was_said():
    with pytest.raises(InputError) as error:
        list(open_stack(Liar(lambda b: b * 1.7)).blocks(2))
    assert "frames 0 to 1 came as float64 (2, 8, 9); the array says uint16 (2, 8, 9)" in str(
        error.value
    )


def test_another_byte_order_is_no_lie(tmp_path):
    tezip_h5.write(Liar(lambda b: b.astype(">u2")), tmp_path / "x.h5", level="fast", verify=True)
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "x.h5"), STACK)


def test_a_list_that_grows_while_it_is_read():
    frames = list(STACK)
    blocks = open_stack(frames).blocks(2)
    next(blocks)
    frames.append(STACK[0])
    with pytest.raises(InputError, match="gave 7 frames, but said that it has 6"):
        list(blocks)


def test_masked_arrays(tmp_path):
    masked = np.ma.masked_equal(STACK, 7)
    for stack in (masked, list(masked), iter(masked)):
        with pytest.raises(InputError, match=r"mask=.*\.filled\(\)"):
            tezip_h5.write(stack, tmp_path / "x.h5", level="fast")
    assert list(tmp_path.iterdir()) == []
    tezip_h5.write(np.ma.array(STACK), tmp_path / "x.h5", level="fast")  # nothing is lost
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "x.h5"), STACK)


def test_masked_frames_of_a_writer(tmp_path):
    with Writer(tmp_path / "x.h5", "scan", (8, 9), "u2", level="fast") as w:
        for frames in (np.ma.masked_equal(STACK, 7), np.ma.masked_equal(STACK[0], 7)):
            with pytest.raises(InputError, match=r"mask=.*\.filled\(\)"):
                w.append(frames)
        with pytest.raises(InputError, match="no array"):
            w.append([[1, 2], [3]])
        w.append(np.ma.array(STACK))
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "x.h5"), STACK)


def test_datasets_that_hold_nothing(tmp_path, capsys):
    np.save(tmp_path / "x.npy", STACK)
    with h5py.File(tmp_path / "n.h5", "w") as f:
        f["null"], f["type"] = h5py.Empty("u2"), np.dtype("u2")
        with pytest.raises(InputError, match="empty, without even a shape"):
            tezip_h5.write(f["null"], tmp_path / "x.h5")
    words = ["compress", "none", f"{tmp_path}/x.npy", f"{tmp_path}/x.h5", "--level", "fast"]
    for name in ("null", "type"):
        assert main([*words, "--mask", f"{tmp_path}/n.h5:/{name}"]) == 1
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "x.h5").exists()


# --- lists ---


@pytest.mark.parametrize("kind", [list, tuple])
def test_lists_are_read_twice(tmp_path, kind):
    tezip_h5.write(kind(STACK), tmp_path / "x.h5", verify=True, level="fast", chunk_frames=4)
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "x.h5"), STACK)
    stack = open_stack(kind(STACK))
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate(list(stack.blocks(4))), STACK)
    np.testing.assert_array_equal(np.concatenate(list(stack.blocks(2, first=3))), STACK[3:])


def test_frames_whose_rows_differ_in_length():
    with pytest.raises(InputError, match="no array"):
        open_stack([[[1, 2], [3]]])


@pytest.mark.parametrize("axes", ["QQQ", "YXT", "TYXC", "TMYX"])
def test_axes_that_frames_one_by_one_do_not_have(tmp_path, axes):
    (tmp_path / "images").mkdir()
    Image.fromarray(STACK[0]).save(tmp_path / "images" / "a.png")
    for stack in (tmp_path / "images", list(STACK), iter(STACK)):
        assert open_stack(stack, "tyx").frame_shape == (8, 9)
        with pytest.raises(InputError, match="one by one, which are TYX"):
            open_stack(stack, axes)


def test_iterators_are_not():
    stack = open_stack(iter(STACK))
    assert sum(map(len, stack.blocks(4))) == 6
    with pytest.raises(InputError, match="only once"):
        list(stack.blocks(4))


# --- frames that are too large, and shapes that are none ---


@pytest.mark.parametrize("shape", [(2**33, 1), (1, 2**33), (10**9, 10**9), (2**20, 2**20, 2)])
def test_frames_that_are_too_large(tmp_path, shape):
    with pytest.raises(InputError, match=f"at most {2**40} are allowed, and {2**31 - 1} along"):
        Writer(tmp_path / "x.h5", "scan", shape, "u2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "shape", [(200_000, 200_000), (2**31 - 1, 1), (1, 2**31 - 1), (2**31 - 1, 200)]
)
def test_the_largest_frames_have_a_layout_soon(shape):
    began = time.perf_counter()
    layout = Layout.choose(shape, 2)
    assert layout.tiled
    assert np.prod(layout.chunk[1:]) * 2 <= 1 << 20
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("shape", [(37, 53), (5, 7, 3), (4321, 1234), (2, 3, 900, 700)])
def test_tiles_are_counted_as_they_are_listed(shape):
    layout = Layout.choose(shape, 4, panel_axes=len(shape) - 2 if len(shape) == 4 else 0)
    assert layout.tile_count == len(layout.tiles)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chunk_frames": 10**12}, "smaller chunk_frames"),
        ({"frame_shape": (3000, 3000), "tile": (1, 1)}, "larger tile"),
    ],
)
def test_chunks_that_are_too_large_or_too_many(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        Writer(tmp_path / "x.h5", "scan", **{"frame_shape": (8, 9), "dtype": "u2", **options})
    assert list(tmp_path.iterdir()) == []


# --- options ---

WRONG = [
    *(("chunk_frames", value) for value in ("a", np.inf, np.nan, [3], np.array([3]), 2.5, True)),
    *(("tile", value) for value in (5, "ab", (None, 3), (np.nan, 2), (2.5, 3), (3,), (True, 3))),
    *(("frame_shape", value) for value in ((-8, 9), 5, "ab", (8.5, 9), (0, 9), (), ("8", "9"))),
    *(("dtype", value) for value in ("zz", 5, "2,")),
    *(("panel_axes", value) for value in (1.5, "a", True, -1)),
    *(("metadata", value) for value in (5, {"@": 1}, {"a@": 1}, {"x": 1, "x/y": 2}, {"a\0b": 1})),
    *(("mask", value) for value in ([[1, 2], [3]], "ab", [None])),
    *(("model", value) for value in (5, [1], b"x", np.zeros(3), True)),
    *(("name", value) for value in ("a\0b", "\ud800", "a/\udc80", 5, None)),
    ("absolute", 10**400),
    ("relative", np.complex64(1)),
    ("mse_threshold", "a"),
]


@pytest.mark.parametrize(("option", "value"), WRONG)
def test_options_of_a_writer_that_cannot_be(tmp_path, option, value):
    given = {"name": "scan", "frame_shape": (8, 9), "dtype": "u2", "level": "fast", option: value}
    with pytest.raises(InputError, match=option):
        Writer(tmp_path / "x.h5", **given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [case for case in WRONG if case[0] not in ("frame_shape", "dtype", "panel_axes", "metadata")],
)
def test_options_of_write_that_cannot_be(tmp_path, option, value):
    with pytest.raises(InputError, match=option):
        tezip_h5.write(STACK, tmp_path / "x.h5", **{"level": "fast", option: value})
    assert list(tmp_path.iterdir()) == []


def test_numpys_numbers_are_numbers(tmp_path):
    options = {"chunk_frames": np.int64(2), "tile": np.array([4, 9]), "absolute": np.float32(1)}
    with Writer(tmp_path / "x.h5", "scan", np.array([8, 9]), "u2", **options) as w:
        w.append(STACK)
    assert tezip_h5.read(tmp_path / "x.h5").shape == STACK.shape


def test_unknown_options_are_named_and_the_known_ones_listed(tmp_path):
    calls = [
        lambda: tezip_h5.write(STACK, tmp_path / "x.h5", foo=1),
        lambda: Writer(tmp_path / "x.h5", "scan", (8, 9), "u2", foo=1),
        lambda: tezip_h5.TEZip(foo=1),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"unknown option 'foo'.* level, window, .*model"):
            call()
    with pytest.raises(InputError) as error:
        tezip_h5.TEZip(mse_threshold="a")
    assert "unknown option" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bound", "absolute=, relative=.*, pointwise_relative=.* or noise="),
        ("Error", "absolute=, relative="),
        ("abs", r"did you mean absolute=\?"),
        ("pwrel", r"did you mean pointwise_relative=\?"),
        ("chunks", "chunk_frames=.*tile="),
        ("lossless", "leave it out"),
        ("treads", r"did you mean threads=\?"),
        ("Level", r"did you mean level=\?"),
        ("over_write", r"did you mean overwrite=\?"),
    ],
)
def test_an_option_that_is_called_otherwise(tmp_path, name, words):
    with pytest.raises(InputError, match=f"unknown option '{name}'; .*{words}"):
        tezip_h5.write(STACK, tmp_path / "x.h5", **{name: 1})
    assert list(tmp_path.iterdir()) == []


def test_an_option_of_another_call():
    with pytest.raises(InputError, match="'threads'; it is for other calls"):
        tezip_h5.TEZip(threads=2)


@pytest.mark.parametrize(
    ("filename", "words"),
    [
        ("a\0b", "NUL"),
        ("\ud800", "surrogate"),
        (["x" * 256], "more than 255 bytes"),
        (b"x", "no file name"),
        ([b"x"], "no file name"),
        ([None], "no file name"),
        ([3], "no file name"),
    ],
)
def test_file_names_that_cannot_be(tmp_path, filename, words):
    with Writer(tmp_path / "x.h5", "scan", (8, 9), "u2", level="fast") as w:
        with pytest.raises(InputError, match=words):
            w.append(STACK[0], filename=filename)
        w.append(STACK[0], filename="\udcff.tif")  # as the system gives what is no UTF-8
    assert tezip_h5.read(tmp_path / "x.h5").shape == (1, 8, 9)


def test_models_that_cannot_be_loaded():
    for model in (5, b"x", None):
        with pytest.raises(InputError, match="model"):
            tezip_h5.load_model(model)


@pytest.mark.parametrize(
    "options",
    [
        {"spatial": 5},
        {"spatial": "zz"},
        {"ranks": np.ones(2)},
        {"level": np.array(["fast"])},
        {"mse_threshold": "a"},
        {"mse_threshold": np.inf},
        *({"entropy": value} for value in ("no", 0, None, np.ones(2))),
        *({"warmup": value} for value in (1.0, True, "1", None, -1)),
        *({"window": value} for value in (3.0, True, "3", np.array([3]), 0)),
    ],
)
def test_settings_of_a_wrong_type(options):
    with pytest.raises(InputError, match=f"{next(iter(options))}="):
        Settings(**options)


def test_numpys_values_are_settings():
    given = Settings(window=np.uint8(3), warmup=np.int64(1), entropy=np.bool_(False))
    assert repr(given) == repr(Settings(window=3, warmup=1, entropy=False))


def test_chunks_that_are_none():
    limits = ErrorBound().of_frames(STACK)
    for frames in (STACK[0], STACK[None, ..., None]):
        with pytest.raises(InputError, match=r"expected \(g, h, w\) or \(g, h, w, C\)"):
            encode_chunk(frames, limits, Settings())
    for payload in ("text", None, 5):
        with pytest.raises(InputError, match=f"{type(payload).__name__} is no payload"):
            decode_chunk(payload)


@pytest.mark.parametrize("given", [{"dtype": "zz"}, {"tile": 5}, {"frame_shape": 5, "dtype": "u2"}])
def test_going_on_with_what_has_no_meaning(tmp_path, given):
    path = tmp_path / "a.h5"
    tezip_h5.write(np.zeros((4, 8, 9), "u2"), path, level="fast", model=None)
    with pytest.raises(InputError):
        tezip_h5.Writer(path, "scan", append=True, **given)
    assert tezip_h5.read(path).shape == (4, 8, 9)

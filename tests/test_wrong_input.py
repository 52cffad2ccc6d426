"""What callers get wrong: each is an `InputError` that says what was found, and no file is left."""

import numpy as np
import pytest
from conftest import require_package

import tezip_h5
from tezip_h5 import InputError
from tezip_h5.frames import open_stack

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


# --- lists ---


@pytest.mark.parametrize("kind", [list, tuple])
def test_lists_are_read_twice(tmp_path, kind):
    tezip_h5.write(kind(STACK), tmp_path / "x.h5", verify=True, level="fast", chunk_frames=4)
    np.testing.assert_array_equal(tezip_h5.read(tmp_path / "x.h5"), STACK)
    stack = open_stack(kind(STACK))
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate(list(stack.blocks(4))), STACK)
    np.testing.assert_array_equal(np.concatenate(list(stack.blocks(2, first=3))), STACK[3:])


def test_iterators_are_not():
    stack = open_stack(iter(STACK))
    assert sum(map(len, stack.blocks(4))) == 6
    with pytest.raises(InputError, match="only once"):
        list(stack.blocks(4))

"""The CUDA kernels against the obvious versions and the CPU's: on a GPU, or in the simulator.

Sizes are small, for the simulator is slow; so are its blocks, so that every kernel still meets
several, and ends that fill none.
"""

import re
import subprocess
import sys
from pathlib import Path

import naive
import numpy as np
import pytest
from conftest import require_package

require_package("numba", "numba.cuda")

from tezip_h5 import kernels  # noqa: E402
from tezip_h5.kernels import arrays  # noqa: E402
from tezip_h5.kernels.cuda import launch, memory  # noqa: E402

CPU, CUDA = kernels.load("cpu"), kernels.load("cuda")
SHAPES = [(1, 1), (1, 9), (11, 1), (5, 7), (9, 8)]
TOPS = [1, 255, 4095, 65535, 2**31 - 2]
REPEATS = 1 if launch.SIMULATED else 50  # for races, which show by chance


def width_of(top):
    return 1 if top < 256 else 2 if top < 65536 else 4


def there(array):
    return memory.to_device(np.ascontiguousarray(array, np.int32))


def back(array):
    return memory.to_host(array)


def both(name, inputs, sizes, outs):
    """The outputs of a kernel on the CPU and on the device, from the same start."""
    start = [np.full(shape, 7, dtype) for shape, dtype in outs]
    here = [a.copy() for a in start]
    far = [memory.to_device(a) for a in start]
    getattr(CPU, name)(*inputs, *sizes, *here)
    getattr(CUDA, name)(*map(memory.to_device, inputs), *sizes, *far)
    return here, [back(a) for a in far]


def frames(shape, top, rng, kind):
    """Levels and a prediction of them: noise, smooth, or nearly constant."""
    if kind == "noise":
        return rng.integers(0, top + 1, (2, *shape)).astype(np.int32)
    y, x = np.indices(shape)
    base = (3 * x + 2 * y) % (min(top, 40) + 1) if kind == "smooth" else np.full(shape, top // 2)
    levels = np.clip(base + rng.integers(-1, 2, shape), 0, top)
    return np.stack([levels, np.clip(base, 0, top)]).astype(np.int32)


@pytest.mark.parametrize("top", TOPS)
@pytest.mark.parametrize(
    ("shape", "kind"), [((1, 1), "noise"), ((5, 7), "noise"), ((3, 8), "smooth")]
)
def test_quantizers(shape, kind, top):
    mask = (1 << 8 * width_of(top)) - 1
    levels, guess = (a.reshape(-1) for a in frames(shape, top, np.random.default_rng(top), kind))
    outs = [(levels.size, np.int32)] * 2
    for tolerance in (0, min(5, top)):
        sizes = tolerance, top, mask
        for name in ("uniform_encode", "merge_encode"):
            here, far = both(name, (levels, guess), sizes, outs)
            np.testing.assert_array_equal(far, here, f"{name} {tolerance}")
            # Run merging sends residuals, which add up as at tolerance 0.
            sent = (0, top, mask) if name == "merge_encode" else sizes
            here, decoded = both("uniform_decode", (far[0], guess), sent, outs[:1])
            np.testing.assert_array_equal(decoded, here)
            np.testing.assert_array_equal(decoded[0], far[1])


@pytest.mark.parametrize("kind", ["noise", "smooth", "flat"])
def test_uniform_and_merged_are_the_obvious_ones(kind):
    levels, guess = frames((5, 5), 255, np.random.default_rng(3), kind)
    flat = levels.reshape(-1), guess.reshape(-1)
    for name, obvious in (("uniform_encode", naive.uniform), ("merge_encode", naive.merged)):
        _, far = both(name, flat, (4, 255, 255), [(levels.size, np.int32)] * 2)
        expected = obvious(levels, guess, 4, 255, 1)
        np.testing.assert_array_equal(far, [part.reshape(-1) for part in expected])


@pytest.mark.parametrize("runs", [[1], [8], [20], [2, 1, 17, 8, 1, 1]])
def test_runs_that_cross_blocks(runs):
    """Runs of given lengths, far apart; some span several blocks, one the whole frame."""
    residuals = np.concatenate([np.full(n, 100 * (i % 2)) for i, n in enumerate(runs)])
    residuals += np.random.default_rng(0).integers(-2, 3, residuals.size)
    guess = np.full(residuals.size, 1000, np.int32)
    levels = (guess + residuals).astype(np.int32)
    here, far = both(
        "merge_encode", (levels, guess), (2, 4095, 65535), [(levels.size, np.int32)] * 2
    )
    np.testing.assert_array_equal(far, here)
    assert len(np.unique(far[0])) <= 2 * len(runs)


def test_random_runs():
    rng = np.random.default_rng(5)
    for size in (8, 9, 41):
        residuals = np.cumsum(rng.integers(-2, 3, size))
        guess = rng.integers(200, 300, size).astype(np.int32)
        levels = np.clip(guess + residuals, 0, 4095).astype(np.int32)
        for tolerance in (1, 20):
            case = (levels, guess), (tolerance, 4095, 65535), [(size, np.int32)] * 2
            here, far = both("merge_encode", *case)
            np.testing.assert_array_equal(far, here)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("top", "tolerance"), [(1, 1), (255, 0), (255, 6), (65535, 1), (2**31 - 2, 9)]
)
def test_keyframes(shape, top, tolerance):
    width = width_of(top)
    sizes = tolerance, top, (1 << 8 * width) - 1
    frame = frames(shape, top, np.random.default_rng(1), "smooth" if top == 255 else "noise")[0]
    here, far = both("median_encode", (frame,), sizes, [(shape, np.int32)] * 2)
    np.testing.assert_array_equal(far, here)
    np.testing.assert_array_equal(far, naive.keyframe(frame, tolerance, top, width))
    _, (decoded,) = both("median_decode", (far[0],), sizes, [(shape, np.int32)])
    np.testing.assert_array_equal(decoded, far[1])


def test_wide_levels_wrap():
    """Bit patterns of floats use all 32 bits."""
    rng = np.random.default_rng(0)
    levels, guess = rng.integers(-(2**31), 2**31, (2, 5, 6)).astype(np.int32)
    sizes = 0, 2**32 - 1, 2**32 - 1
    flat = levels.reshape(-1), guess.reshape(-1)
    here, far = both("uniform_encode", flat, sizes, [(30, np.int32)] * 2)
    np.testing.assert_array_equal(far, here)
    _, (decoded,) = both("uniform_decode", (far[0], flat[1]), sizes, [(30, np.int32)])
    np.testing.assert_array_equal(decoded, flat[0])
    here, far = both("median_encode", (levels,), sizes, [((5, 6), np.int32)] * 2)
    np.testing.assert_array_equal(far, here)
    _, (decoded,) = both("median_decode", (far[0],), sizes, [((5, 6), np.int32)])
    np.testing.assert_array_equal(decoded, levels)


@pytest.mark.parametrize("size", [1, 24, 25, 200])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_differences(size, width):
    info = np.iinfo(f"i{width}")
    symbols = np.random.default_rng(size).integers(info.min, info.max + 1, size).astype(np.int32)
    mask = (1 << 8 * width) - 1
    here, far = both("difference_encode", (symbols,), (mask,), [(size, np.int32)])
    np.testing.assert_array_equal(far, here)
    assert far[0].tolist() == naive.differences(symbols.tolist(), width)
    array = memory.to_device(far[0])
    CUDA.difference_decode(array, mask, array)  # in place
    np.testing.assert_array_equal(back(array), symbols)


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 8, 29])
def test_packing(width, size):
    info = np.iinfo(f"i{width}")
    symbols = np.random.default_rng(width).integers(info.min, info.max + 1, size).astype(np.int32)
    symbols[0] = info.min
    positive = symbols & (info.max)
    for name, values in (("signed", symbols), ("unsigned", positive)):
        planes = [((width, size), np.uint8)]
        here, far = both(f"pack_{name}", (values,), (width,), planes)
        np.testing.assert_array_equal(far, here)
        _, (unpacked,) = both(f"unpack_{name}", (far[0],), (width,), [(size, np.int32)])
        np.testing.assert_array_equal(unpacked, values)


def test_counting_and_tables():
    rng = np.random.default_rng(2)
    symbols = np.concatenate([rng.integers(-3, 4, 50), [-128, 127, -9, 9, -8, 7, 8]])
    counts = memory.to_device(np.zeros(256, np.int64))
    for _ in range(2):
        CUDA.count(there(symbols), 128, counts)
    np.testing.assert_array_equal(back(counts), 2 * np.bincount(symbols + 128, minlength=256))
    table = rng.permutation(256).astype(np.int32)
    here, far = both("table_lookup", (symbols.astype(np.int32), table), (128,), [(57, np.int32)])
    np.testing.assert_array_equal(far, here)
    ordered = np.unique(rng.integers(-(2**31), 2**31, 33)).astype(np.int32)
    values = rng.permutation(ordered.size).astype(np.int32)
    chosen = rng.integers(0, ordered.size, 40)
    out = there(np.zeros(40))
    CUDA.table_search(there(ordered[chosen]), there(ordered), there(values), out)
    np.testing.assert_array_equal(back(out), values[chosen])


@pytest.mark.parametrize("size", [1, 7, 100])
def test_errors_and_extremes(size):
    rng = np.random.default_rng(size)
    a, b = rng.integers(0, 2**16, (2, size)).astype(np.int32)
    assert CUDA.largest_error(there(a), there(b)) == CPU.largest_error(a, b)
    assert CUDA.squared_error(there(a), there(b)) == CPU.squared_error(a, b)
    assert CUDA.extremes(there(a - b)) == ((a - b).min(), (a - b).max())
    wide, far = rng.integers(-(2**31), 2**31, (2, size)).astype(np.int32)
    assert CUDA.largest_error(there(wide), there(far)) == CPU.largest_error(wide, far)
    assert CUDA.squared_error(there(wide), there(far)) == CPU.squared_error(wide, far)


def test_beyond_exact_sums_the_order_is_the_cpus():
    """400 ones are lost one by one beside 2**60; added up first, they would not be."""
    a = np.concatenate([[1 << 30], np.ones(400)]).astype(np.int32)
    nothing = np.zeros_like(a)
    assert CPU.squared_error(a, nothing) == 2.0**60 != float((1 << 60) + 400)
    assert CUDA.squared_error(there(a), there(nothing)) == 2.0**60


def test_arrays_wherever_they_lie():
    array = np.arange(-4, 8, dtype=np.int32).reshape(3, 4)
    for like in (array, there(array)):
        device = arrays.device_of(like)
        assert device == ("cpu" if like is array else "cuda")
        assert arrays.at(like, device) is like
        assert kernels.of(like) is (CPU if like is array else CUDA)
        narrow = arrays.convert(like, np.int8)
        assert (narrow.dtype, tuple(narrow.shape)) == (np.int8, (3, 4))
        np.testing.assert_array_equal(arrays.at(arrays.convert(narrow, np.int32), "cpu"), array)
        copied = arrays.empty(device, (3, 4))
        arrays.copy(like, copied)
        np.testing.assert_array_equal(arrays.at(copied, "cpu"), array)
        assert arrays.extremes(like) == (-4, 7)


def test_pinned_buffers_are_lent_again():
    first = memory.Pinned((3, 5), np.int32)
    first.array[:] = np.arange(15).reshape(3, 5)
    device = memory.empty((3, 5), np.int32)
    first.send(device)
    first.wait()
    second = memory.Pinned((3, 5), np.int32)
    second.fetch(device)
    second.wait()
    np.testing.assert_array_equal(second.array, first.array)
    address = first.array.ctypes.data
    first.close()
    again = memory.Pinned((60,), np.uint8)
    assert again.array.ctypes.data == address
    again.close()
    second.close()


def test_repeated_runs_agree():
    """A race would show as a difference, sooner or later."""
    shape = (5, 9) if launch.SIMULATED else (700, 900)
    levels, guess = frames(shape, 4095, np.random.default_rng(9), "smooth")
    flat = levels.reshape(-1), guess.reshape(-1)
    outs = [(levels.size, np.int32)] * 2
    for _ in range(REPEATS):
        for name in ("uniform_encode", "merge_encode"):
            here, far = both(name, flat, (3, 4095, 65535), outs)
            np.testing.assert_array_equal(far, here)
        here, far = both("difference_decode", (far[0],), (65535,), outs[:1])
        np.testing.assert_array_equal(far, here)
        here, far = both("median_encode", (levels,), (3, 4095, 65535), [(shape, np.int32)] * 2)
        np.testing.assert_array_equal(far, here)
        here, far = both("median_decode", (far[0],), (3, 4095, 65535), [(shape, np.int32)])
        np.testing.assert_array_equal(far, here)
    assert CUDA.largest_error(there(flat[0]), there(flat[1])) == CPU.largest_error(*flat)


def test_a_kernel_refuses_other_types():
    if not launch.SIMULATED:
        pytest.skip("a device compiles what it gets")
    from tezip_h5 import InputError

    wrong = memory.to_device(np.zeros(4, np.int16))
    with pytest.raises(InputError, match="_difference_encode was called with"):
        CUDA.difference_encode(wrong, 255, wrong)


def test_every_kernel_compiles_for_a_device():
    """Not in the simulator, which types nothing."""
    script = Path(__file__).with_name("compile_cuda.py")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip(f"no NVVM: {done.stdout.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    # Not those of the benchmark, nor of the mixing coder, which take long: test_cuda_coder.
    of_others = re.compile(r"(?!cuda\.)|cuda\.mixing\.")
    expected = sum(
        kernel.signatures for name, kernel in launch.KERNELS.items() if not of_others.match(name)
    )
    assert len(done.stdout.splitlines()) >= expected > 25


def test_no_kernel_compiles_another_signature():
    for name, kernel in launch.KERNELS.items():
        assert kernel.compiled <= kernel.signatures, name


def test_kernels_are_kept_where_only_their_sources_are(in_fresh_process, tmp_path):
    """A folder for every state of them, as numba compares one file only."""
    require_package("numba_cuda")
    code = """
    from pathlib import Path
    from tezip_h5.kernels import cuda, sources
    from tezip_h5.kernels.cuda import launch

    places = set()
    for kernel in launch.KERNELS.values():
        cache = kernel._compiled._cache
        cache._impl.locator.ensure_cache_path()
        cache._cache_file.save("key", "kernel")
        assert cache._cache_file.load("key") == "kernel"
        assert list(Path(cache.cache_path).glob("*.nbc"))
        places.add(Path(cache.cache_path).parent)
    place, = places
    assert place.name == f"cuda-{sources.digest(cuda=True).hex()[:32]}"
    print(place)
    """
    where = {"NUMBA_ENABLE_CUDASIM": "0", "NUMBA_CACHE_DIR": str(tmp_path)}
    assert Path(in_fresh_process(code, **where).strip()).is_relative_to(tmp_path)

"""Measure a GPU: each kernel in relation to the limits of the device, and writing and reading.

    python benchmarks/gpu.py --out benchmarks/results/gpu.md

The data are simulated. Each result is compared with that of the CPU before it is timed; if they
differ, nothing is reported. Kernels are timed with CUDA events, and writing and reading with the
clock. Times are the shortest of a few runs. The limits of the device are measured, too: the speed
of copying its own memory, and of multiply-adds of 32-bit integers in registers.

Without a GPU, the page says that nothing was measured. `--tiny` tests this script with a few
pixels. It also runs in numba's simulator (NUMBA_ENABLE_CUDASIM=1), where times mean nothing, and
the network is left out because it is too slow there.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
from numba import cuda, int32
from provenance import made_by

import tezip_h5
from tezip_h5 import devices, gpu_arrays, kernels
from tezip_h5.hdf5.threads import default_threads
from tezip_h5.model import store
from tezip_h5.residual.linear import LinearDecoder, LinearEncoder
from tezip_h5.settings import Settings
from tezip_h5.simulate import detector_sequence

TOLERANCE, TOP, WIDTH = 2, 65535, 2
MASK = (1 << 8 * WIDTH) - 1
CHAINS, ROUNDS = 8, 512  # for the arithmetic peak: independent chains, multiply-adds in each


@dataclass(frozen=True)
class Sizes:
    """The sizes of all measurements."""

    rows: int = 2048
    columns: int = 2048
    frames: int = 16  # frames of the kernels' arrays, which have 64 Mi samples
    batch: int = 16  # chunks in a batch of the network
    network_side: int = 512
    chunks: int = 256  # chunks that the linear coder codes at a time
    linear_side: int = 512
    stack: tuple[int, int, int] = (512, 1024, 1024)
    slow_stack: tuple[int, int, int] = (256, 512, 512)  # the stack for `balanced`
    peak_blocks: int = 4096
    runs: int = 7


TINY = Sizes(5, 11, 3, 2, 8, 2, 6, (3, 6, 9), (3, 6, 9), 2, 1)


@dataclass(frozen=True)
class Row:
    """The result of a stage: its memory transfers, operations and time (None in the simulator)."""

    name: str
    samples: int
    moved: int  # bytes, if each array is read or written once
    operations: int  # a multiply-add of integers counts as two
    milliseconds: float | None


class Unequal(SystemExit):
    """A result of the GPU differs from that of the CPU."""


def require_equal(name: str, found, expected) -> None:
    """Raise `Unequal` if results differ."""
    if np.shape(found) != np.shape(expected) or not np.array_equal(found, expected):
        raise Unequal(f"{name}: the GPU computes something else than the CPU; nothing is reported")


class Clock:
    """Time kernels with events of the stream that they are launched on."""

    def __init__(self, runs: int):
        self._launch, self._runs = kernels.load("cuda.launch"), runs

    def __call__(self, work) -> float | None:
        """The shortest time of a few runs in milliseconds, after a first run for compilation."""
        work()
        self._launch.finish()
        if self._launch.SIMULATED:
            return None
        begin, end, times = cuda.event(), cuda.event(), []
        for _ in range(self._runs):
            begin.record(self._launch.stream())
            work()
            end.record(self._launch.stream())
            end.synchronize()
            times.append(begin.elapsed_time(end))
        return min(times)


# --- the device's limits ---


def copy_row(sizes: Sizes, clock: Clock) -> Row:
    """Measure copies within the memory of the device."""
    memory, gpu = kernels.load("cuda.memory"), kernels.load("cuda")
    samples = sizes.rows * sizes.columns * sizes.frames
    source = np.arange(samples, dtype=np.int32)
    here, there = memory.to_device(source), memory.empty((samples,), np.int32)
    taken = clock(lambda: gpu.convert(here, there))
    require_equal("copy", memory.to_host(there), source)
    return Row("copy in device memory", samples, 2 * source.nbytes, 0, taken)


def transfer_rows(sizes: Sizes, clock: Clock) -> list[Row]:
    """Measure copies between pinned host memory and the device."""
    memory = kernels.load("cuda.memory")
    samples = sizes.rows * sizes.columns * sizes.frames
    pinned = memory.Pinned((samples,), np.int32)
    pinned.array[:] = np.arange(samples)
    expected, there = pinned.array.copy(), memory.empty((samples,), np.int32)
    up = clock(lambda: pinned.send(there))
    pinned.wait()
    pinned.array[:] = 0
    down = clock(lambda: pinned.fetch(there))
    pinned.wait()
    require_equal("transfer", pinned.array, expected)
    pinned.close()
    return [
        Row("pinned host to device", samples, expected.nbytes, 0, up),
        Row("device to pinned host", samples, expected.nbytes, 0, down),
    ]


def peak_row(sizes: Sizes, clock: Clock) -> Row:
    """Measure multiply-adds of 32-bit integers in registers, in independent chains."""
    launch, memory = kernels.load("cuda.launch"), kernels.load("cuda.memory")
    rounds = 4 if launch.SIMULATED else ROUNDS

    @cuda.jit
    def chained(factor, count, out):
        i = cuda.grid(1)
        a, b, c, d = int32(i), int32(i + 1), int32(i + 2), int32(i + 3)
        e, f, g, h = int32(i + 4), int32(i + 5), int32(i + 6), int32(i + 7)
        step = int32(i)
        for _ in range(count):
            a, b = int32(a * factor + step), int32(b * factor + step)
            c, d = int32(c * factor + step), int32(d * factor + step)
            e, f = int32(e * factor + step), int32(f * factor + step)
            g, h = int32(g * factor + step), int32(h * factor + step)
        out[i] = a ^ b ^ c ^ d ^ e ^ f ^ g ^ h

    blocks, threads = sizes.peak_blocks, launch.THREADS
    out, factor = memory.empty((blocks * threads,), np.int32), np.int32(3)
    stream = () if launch.SIMULATED else (launch.stream(),)
    taken = clock(lambda: chained[(blocks, threads, *stream)](factor, rounds, out))
    first = np.arange(blocks * threads, dtype=np.int32)
    chains = [first + np.int32(k) for k in range(CHAINS)]
    for _ in range(rounds):
        chains = [chain * factor + first for chain in chains]
    require_equal("multiply-adds", memory.to_host(out), np.bitwise_xor.reduce(chains))
    operations = 2 * CHAINS * rounds * blocks * threads
    return Row("multiply-adds, int32", blocks * threads, 4 * blocks * threads, operations, taken)


# --- the stages ---


def stage_data(sizes: Sizes) -> dict[str, np.ndarray]:
    """Frames of a simulated detector, repeated to fill the size, and the results of the CPU.

    Later stages begin with these results.
    """
    small = (min(sizes.rows, 512), min(sizes.columns, 512))
    sequence = detector_sequence(4, *small).astype(np.int32)
    repeat = (1, -(-sizes.rows // small[0]), -(-sizes.columns // small[1]))
    sequence = np.tile(sequence, repeat)[:, : sizes.rows, : sizes.columns]
    levels = np.ascontiguousarray(sequence[np.arange(sizes.frames) % 3 + 1])
    guess = np.ascontiguousarray(sequence[np.arange(sizes.frames) % 3])
    return {"levels": levels.reshape(-1), "guess": guess.reshape(-1)}


def stage_calls(sizes: Sizes) -> list[tuple]:
    """List the stages: (name, kernel, names of inputs, scalars, names and dtypes of outputs).

    Outputs are inputs of later stages. Names that begin with "plane" are those of a single frame.
    """
    bounded = (TOLERANCE, TOP, MASK)
    exact = (0, TOP, MASK)
    low = 1 << (8 * WIDTH - 1)
    both = ["levels", "guess"]
    return [
        ("uniform, lossless", "uniform_encode", both, exact, ["wide", "same"]),
        ("uniform, bounded", "uniform_encode", both, bounded, ["symbols", "made"]),
        ("its inverse", "uniform_decode", ["symbols", "guess"], bounded, ["again"]),
        ("run merging", "merge_encode", both, bounded, ["merged", "kept"]),
        ("keyframe", "median_encode", ["plane"], bounded, ["plane_symbols", "plane_made"]),
        ("keyframe, lossless", "median_encode", ["plane"], exact, ["plane_exact", "plane_same"]),
        ("its inverse", "median_decode", ["plane_symbols"], bounded, ["plane_again"]),
        ("DBSE", "difference_encode", ["symbols"], (MASK,), ["differences"]),
        ("its inverse", "difference_decode", ["differences"], (MASK,), ["symbols_again"]),
        ("PEE, mapping", "table_lookup", ["differences", "ranks_of"], (low,), ["ranks"]),
        ("its inverse", "table_lookup", ["ranks", "symbols_of"], (0,), ["differences_again"]),
        ("packing", "pack_unsigned", ["ranks"], (WIDTH,), ["planes"]),
        ("its inverse", "unpack_unsigned", ["planes"], (WIDTH,), ["ranks_again"]),
        ("largest error", "largest_error", ["levels", "made"], (), []),
        ("squared error", "squared_error", both, (), []),
    ]


class Stages:
    """Run the stages on CPU and GPU, one after the other, each from results of the CPU."""

    def __init__(self, sizes: Sizes, clock: Clock):
        self._sizes, self._clock = sizes, clock
        self._host = stage_data(sizes)
        frame = sizes.rows * sizes.columns
        plane = self._host["levels"][:frame].reshape(sizes.rows, sizes.columns)
        self._host["plane"] = np.ascontiguousarray(plane)

    def rows(self) -> list[Row]:
        """One row for each stage, and one for those stages together that the speed goal is for."""
        rows = []
        for name, kernel, inputs, scalars, outputs in stage_calls(self._sizes):
            if "ranks_of" in inputs:
                rows.append(self._counted())
            rows.append(self._row(name, kernel, inputs, scalars, outputs))
        rows.append(self._together())
        return rows

    def _empty(self, name: str) -> np.ndarray:
        if name.startswith("plane_"):
            return np.zeros_like(self._host["plane"])
        if name == "planes":
            return np.zeros((WIDTH, self._host["levels"].size), np.uint8)
        return np.zeros_like(self._host["levels"])

    def _row(self, name, kernel, inputs, scalars, outputs) -> Row:
        memory = kernels.load("cuda.memory")
        here = [self._host[n] for n in inputs]
        made = [self._empty(n) for n in outputs]
        there = [memory.to_device(a) for a in here]
        out = [memory.to_device(a) for a in made]
        expected = getattr(kernels.load("cpu"), kernel)(*here, *scalars, *made)
        call = getattr(kernels.load("cuda"), kernel)
        found = call(*there, *scalars, *out)
        require_equal(f"{kernel} ({name})", found, expected)
        for far, near, output in zip(out, made, outputs, strict=True):
            require_equal(f"{kernel} ({name})", memory.to_host(far), near)
            self._host[output] = near
        taken = self._clock(lambda: call(*there, *scalars, *out))
        moved = sum(a.nbytes for a in (*here, *made))
        return Row(f"{name} (`{kernel}`)", here[0].size, moved, 0, taken)

    def _counted(self) -> Row:
        """Measure the histogram of PEE, and make the tables from it."""
        memory, gpu = kernels.load("cuda.memory"), kernels.load("cuda")
        symbols, low = self._host["differences"], 1 << (8 * WIDTH - 1)
        expected = np.bincount(symbols + low, minlength=MASK + 1)
        there, counts = memory.to_device(symbols), memory.to_device(np.zeros(MASK + 1, np.int64))
        gpu.count(there, low, counts)
        require_equal("count", memory.to_host(counts), expected)
        taken = self._clock(lambda: gpu.count(there, low, counts))
        order = np.argsort(-expected, kind="stable").astype(np.int32)
        ranks = np.empty(MASK + 1, np.int32)
        ranks[order] = np.arange(MASK + 1, dtype=np.int32)
        self._host["ranks_of"], self._host["symbols_of"] = ranks, order - np.int32(low)
        return Row("PEE, histogram (`count`)", symbols.size, symbols.nbytes, 0, taken)

    def _together(self) -> Row:
        """Measure quantization, DBSE and the mapping of PEE together, in device memory."""
        memory, gpu = kernels.load("cuda.memory"), kernels.load("cuda")
        host, low = self._host, 1 << (8 * WIDTH - 1)
        levels, guess, table = (memory.to_device(host[n]) for n in ("levels", "guess", "ranks_of"))
        one, two, three = (memory.to_device(np.zeros_like(host["levels"])) for _ in range(3))

        def work():
            gpu.uniform_encode(levels, guess, TOLERANCE, TOP, MASK, one, two)
            gpu.difference_encode(one, MASK, three)
            gpu.table_lookup(three, table, low, one)

        taken = self._clock(work)
        require_equal("quantise + DBSE + PEE", memory.to_host(one), host["ranks"])
        size = host["levels"].nbytes
        return Row("quantise + DBSE + PEE mapping", host["levels"].size, 8 * size, 0, taken)


# --- the network ---


def multiply_adds(architecture, side: int) -> int:
    """The number of multiply-adds of all convolutions for a frame of side x side pixels."""
    total = 0
    for name, (inputs, outputs) in architecture.convolutions().items():
        layer = int("".join(c for c in name if c.isdigit()))
        # `a` of a layer is computed at the size of the layer below, before pooling.
        at = side // architecture.patch >> (layer - 1 if name.startswith("a") and layer else layer)
        if name.startswith("ahat"):
            at = side // architecture.patch >> layer
        total += 9 * inputs * outputs * at * at
    return total


def network_row(sizes: Sizes, clock: Clock) -> Row:
    """Measure the shipped grey model on the next frame of many chunks."""
    from tezip_h5.prediction.prednet import PredNet
    from tezip_h5.prediction.prednet_cuda import PredNetBatch

    memory = kernels.load("cuda.memory")
    model, side, scale = store.default(1), sizes.network_side, (255, 0, 0)
    frames = detector_sequence(3, side, side, dtype="uint8").astype(np.int32)[:, None]
    cpu = PredNet(model, (1, side, side), *scale)
    batch = PredNetBatch(model, (1, side, side), [scale] * sizes.batch)
    there = [memory.to_device(np.stack([frame] * sizes.batch)) for frame in frames]
    for frame, copies in zip(frames, there, strict=True):
        cpu.observe(frame)
        batch.observe(copies)
    expected = np.stack([cpu.predict()] * sizes.batch)
    require_equal("the network", memory.to_host(batch.predict()), expected)
    taken = clock(lambda: batch.observe(there[-1]))
    operations = 2 * multiply_adds(model.architecture, side) * sizes.batch
    return Row("network, default grey", expected.size, 2 * expected.nbytes, operations, taken)


# --- the linear coder ---


class Linear:
    """Measure coding predicted planes of many chunks together, as level `fast` does."""

    def __init__(self, sizes: Sizes, clock: Clock):
        self._clock, self._count, side = clock, sizes.chunks, sizes.linear_side
        self._frames = detector_sequence(3, side, side).astype(np.int32)[:, None]
        self._chunks = kernels.load("cuda.linear.chunks")

    def rows(self) -> list[Row]:
        """One row for each kind of launch, lossless and with a tolerance."""
        return [row for tolerance in (0, TOLERANCE) for row in self._rows(tolerance)]

    def _encode(self, tolerance: int, device: str, end: bool = True):
        """The encoder, the reconstruction of the second frame, and the three sections if `end`."""
        encoder = LinearEncoder(
            self._frames.shape[1:], SimpleNamespace(top=TOP), Settings(level="fast")
        )
        encoder.device = device
        first = encoder.keyframe(self._frames[0], [tolerance])
        second = encoder.residual(self._frames[1], first, [tolerance])
        if not end:
            return encoder, second, None
        encoder.residual(self._frames[2], second, [tolerance])
        return encoder, second, encoder.finish()[0]

    def _decode(self, sections, tolerance: int):
        """The decoder and the second frame. After the last frame, a chunk leaves the device."""
        decoder = LinearDecoder(sections, self._frames.shape[1:], SimpleNamespace(top=TOP))
        decoder.device = "cuda"
        first = decoder.keyframe([tolerance])
        return decoder, decoder.residual(first, [tolerance])

    def _caught(self, work) -> tuple:
        """The result of `work`, its last launch, and the coder of its lane before that launch."""
        memory, pieces, code = kernels.load("cuda.memory"), [], self._chunks.Chunks.code

        def catching(chunks, works):
            for piece in works:
                coder = None
                if isinstance(piece, self._chunks.Decoding):
                    coder = memory.to_host(piece.lane.slab.coders[piece.lane.number])
                pieces.append((piece, coder))
            code(chunks, works)

        with mock.patch.object(self._chunks.Chunks, "code", catching):
            return (work(), *pieces[-1])

    def _time(self, caught: list[tuple]) -> float | None:
        """Time the launches of many chunks, joined to one for each slab, as in `gather.py`."""
        slabs: dict = {}
        for _, work, coder in caught:
            slabs.setdefault(id(work.lane.slab), []).append((work, coder))

        def launch():
            for pieces in slabs.values():
                for work, coder in pieces:
                    if coder is not None:  # restore the coder's state before the launch
                        work.lane.slab.coders[work.lane.number].copy_to_device(coder)
                pieces[0][0].launch([work for work, _ in pieces])

        return self._clock(launch)

    def _rows(self, tolerance: int):
        _, expected, sections = self._encode(tolerance, "cpu")
        name, many = f"linear, tolerance {tolerance}", range(self._count)
        samples, words = self._count * expected.size, sum(map(len, sections.values())) // 3
        caught = [self._caught(lambda: self._encode(tolerance, "cuda", False)) for _ in many]
        for (_, found, _), _, _ in caught:
            require_equal(name, found, expected)
        entries = caught[0][1].entries[0].dtype.itemsize
        moved = samples * (4 + entries)
        yield Row(f"{name}: symbols (`model`)", samples, moved, 0, self._time(caught))
        # Symbols are counted only once in these chunks; the launches above were repeated.
        caught = [self._caught(lambda: self._encode(tolerance, "cuda")) for _ in many]
        for (_, _, found), _, _ in caught:
            require_equal(name, found == sections, True)
        moved = 3 * (self._count * words + samples * entries)
        taken = self._time(caught)
        yield Row(f"{name}: rANS of three frames (`rans_encode`)", 3 * samples, moved, 0, taken)
        caught = [self._caught(lambda: self._decode(sections, tolerance)) for _ in many]
        for (_, found), _, _ in caught:
            require_equal(name, found, expected)
        moved = self._count * words + 4 * samples
        yield Row(f"{name}: samples (`decode`)", samples, moved, 0, self._time(caught))


# --- whole writes and reads ---


def end_to_end(sizes: Sizes, simulated: bool) -> list[str]:
    """The rows of the second table: writing a stack to a file in memory, and reading it."""
    rows = []
    shared = Path("/dev/shm")
    folder = shared if shared.is_dir() and os.access(shared, os.W_OK) else None
    for level, shape in (("fast", sizes.stack), ("balanced", sizes.slow_stack)):
        some = detector_sequence(min(16, shape[0]), *shape[1:])
        stack = np.ascontiguousarray(some[np.arange(shape[0]) % len(some)])
        options = {"absolute": TOLERANCE, "level": level, "model": None, "preview": False}
        taken, payloads, frames = {}, {}, {}
        with tempfile.TemporaryDirectory(dir=folder) as place:
            for device in ("cpu", "cuda"):
                path = Path(place) / f"{device}.h5"
                tezip_h5.write(stack, path, device=device, overwrite=True, **options)
                started = time.perf_counter()
                tezip_h5.write(stack, path, device=device, overwrite=True, **options)
                written = time.perf_counter() - started
                tezip_h5.read(path, device=device, cache_bytes=0)
                started = time.perf_counter()
                back = tezip_h5.read(path, device=device, cache_bytes=0)
                taken[device] = written, time.perf_counter() - started
                payloads[device] = payloads_of(path)
                frames[device] = gpu_arrays.to_host(back)
        require_equal(f"chunks at level {level}", payloads["cuda"] == payloads["cpu"], True)
        require_equal(f"frames at level {level}", frames["cuda"], frames["cpu"])
        for i, name in enumerate(("write", "read")):
            rates = [
                "-" if simulated else f"{stack.nbytes / 1e9 / taken[device][i]:.2f}"
                for device in ("cpu", "cuda")
            ]
            pixels = "-" if simulated else f"{stack.size / 1e6 / taken['cuda'][i]:.0f}"
            rows.append(
                f"| {name}, `{level}`, uint16 {shape} | {rates[0]} | {rates[1]} | {pixels} |"
            )
    return rows


def payloads_of(path: Path) -> list[bytes]:
    """The chunks of the stack in a file, in order."""
    import h5py

    with h5py.File(path) as file:
        data = file["scan/data"].id
        places = [data.get_chunk_info(i).chunk_offset for i in range(data.get_num_chunks())]
        return [data.read_direct_chunk(place)[1] for place in sorted(places)]


# --- the page ---


def table(rows: list[Row], bandwidth: Row, peak: Row) -> list[str]:
    """The rows as a markdown table, in relation to the limits of the device."""
    lines = [
        "| stage | samples | bytes moved | ms | Mpixel/s | GB/s | of copying | Gop/s | of peak |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    best = rate(bandwidth.moved, bandwidth), rate(peak.operations, peak)
    for row in rows:
        bytes_rate, op_rate = rate(row.moved, row), rate(row.operations, row)
        cells = [
            row.name,
            str(row.samples),
            str(row.moved),
            "-" if row.milliseconds is None else f"{row.milliseconds:.3f}",
            shown(rate(row.samples, row, 1e6), ".0f"),
            shown(bytes_rate, ".0f"),
            share(bytes_rate, best[0]),
            shown(op_rate if row.operations else None, ".0f"),
            share(op_rate if row.operations else None, best[1]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def rate(count: int, row: Row, unit: float = 1e9) -> float | None:
    """`count` per second, in units of `unit`."""
    return None if row.milliseconds is None else count / unit / (row.milliseconds / 1e3)


def shown(value: float | None, kind: str) -> str:
    return "-" if value is None else f"{value:{kind}}"


def share(value: float | None, best: float | None) -> str:
    return "-" if value is None or best is None else f"{value / best:.0%}"


def without_gpu(found: devices.Status) -> str:
    """The page for a machine on which nothing could be measured."""
    why = "numba's simulator is no GPU" if found.simulated else found.reason
    return (
        "# On a GPU\n\n"
        f"Not measured: no GPU was at hand ({why}). Nothing is claimed about speed.\n\n"
        "| stage | GB/s | of copying | Gop/s | of peak |\n"
        "|---|--:|--:|--:|--:|\n"
        "| all | not measured | not measured | not measured | not measured |\n\n"
        "With a GPU, `python benchmarks/gpu.py --out benchmarks/results/gpu.md` writes this page.\n"
    )


def page(sizes: Sizes) -> str:
    """Measure everything, and return the page."""
    found = devices.status()
    devices.choose("cuda")  # the error says what is missing
    clock = Clock(sizes.runs)
    bandwidth, peak = copy_row(sizes, clock), peak_row(sizes, clock)
    rows = [bandwidth, *transfer_rows(sizes, clock), peak]
    rows += Stages(sizes, clock).rows()
    rows += Linear(sizes, clock).rows()
    if not found.simulated:
        rows.append(network_row(sizes, clock))
    whole = (
        "Whole stacks, from an array of the host into a file in memory and back (`read`: to the\n"
        f"device); GB of samples a second, the CPU with {default_threads()} threads. Every chunk\n"
        "and every frame is the same as the CPU's."
    )
    lines = ["# On a GPU", "", about(found), *table(rows, bandwidth, peak), "", whole, ""]
    lines += ["| | CPU, GB/s | GPU, GB/s | GPU, Mpixel/s |", "|---|--:|--:|--:|"]
    return "\n".join([*lines, *end_to_end(sizes, found.simulated), ""])


def about(found: devices.Status) -> str:
    """The introduction of the page: what was measured, and on which device."""
    if found.simulated:
        machine = "Numba's simulator: a test of this script. No time was taken, no network run."
    else:
        capability = ".".join(map(str, found.compute_capability))
        machine = (
            f"{found.name}, compute capability {capability}, {found.memory_bytes / 2**30:.0f} GiB, "
            f"driver {found.driver}, compiled with CUDA {found.runtime}, numba-cuda "
            f"{found.numba_cuda}, {made_by()}."
        )
    return (
        f"{machine}\n\nEvery result was compared with the CPU's and is the same. Bytes moved: "
        "every array read or\nwritten once. Operations: a multiply-add counts as two.\n"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="the page to write (default: standard output)")
    parser.add_argument("--tiny", action="store_true", help="a few pixels: a test of this script")
    args = parser.parse_args(arguments)
    found = devices.status()
    if found.usable and (args.tiny or not found.simulated):
        text = page(TINY if args.tiny else Sizes())
    elif args.tiny:
        print(f"{found.reason}: {found.advice}", file=sys.stderr)
        return 1
    else:
        text = without_gpu(found)
    if args.out is None:
        print(text, end="")
    else:
        args.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Write frames at the rate of a detector while another process reads them.

It prints the rate, the length of the queue, and the ratio.
"""

import subprocess
import sys
import threading
import time

import tezip_h5
from tezip_h5.simulate import detector_sequence

READER = """
import sys, time, h5py, tezip_h5
with h5py.File(sys.argv[1], "r", swmr=True) as file:  # while the other process writes
    data, seen = file["entry/scan/data"], 0
    while seen < int(sys.argv[2]):
        data.refresh()
        if len(data) > seen:
            seen = len(data)
            mean = data[-1].mean()
        time.sleep(0.05)
    print(f"the reader has seen {seen} frames, the mean of the last is {mean:.1f}")
"""


def acquire(
    path="live.h5", rate=200.0, frames=192, level="fast", size=(512, 512), absolute=None, **options
):
    """Write `frames` 16-bit frames, `rate` per second; returns MB/s and the longest queue."""
    tezip_h5.prepare(
        "uint16", level=level, absolute=absolute
    )  # compiles the kernels, which takes a while the first time
    detector = detector_sequence(32, *size)  # takes the place of a camera, repeatedly
    writer = tezip_h5.Writer(
        path,
        "entry/scan",
        frame_shape=size,
        dtype="uint16",
        level=level,
        absolute=absolute,
        swmr=True,
        metadata={"data@units": "counts", "/entry/instrument/name": "simulated"},
        overwrite=True,
        **options,
    )
    reader = subprocess.Popen([sys.executable, "-c", READER, path, str(frames)])
    started, depth = time.perf_counter(), 0

    def camera():
        nonlocal depth
        for number in range(frames):
            time.sleep(max(0.0, started + number / rate - time.perf_counter()))
            writer.append(detector[number % len(detector)], filename=f"img_{number:05}.tif")
            depth = max(depth, writer.queued)

    thread = threading.Thread(target=camera)
    thread.start()
    while thread.is_alive():
        thread.join(0.5)
        taken = time.perf_counter() - started
        print(f"{taken:5.1f} s: {writer.queued} frames wait to be written")
    writer.flush()  # all frames are on disk now
    seconds = time.perf_counter() - started
    reader.wait(60)
    writer.close()
    summary = writer.summary
    speed = summary.raw_bytes / 1e6 / seconds
    print(f"{frames / seconds:.0f} frames a second, {speed:.0f} MB/s at level {level}")
    print(f"at most {depth} frames in the queue, ratio {summary.ratio:.2f}")
    return speed, depth, summary


if __name__ == "__main__":
    acquire()

"""Write frames as a camera delivers them; every finished chunk is safe on the disk."""

import time

import tezip_h5
from tezip_h5.simulate import detector_sequence

frames = detector_sequence(frames=96)  # stands for the camera

started = time.perf_counter()
with tezip_h5.Writer(
    "live.h5", "scan", frame_shape=frames.shape[1:], dtype="uint16", absolute=4, level="fast"
) as writer:
    for number, frame in enumerate(frames):
        writer.append(frame, filename=f"img_{number:05}.tif")
        if number % 32 == 31:
            writer.flush()  # every frame so far is on the disk now

print(writer.summary)
print(f"{len(frames) / (time.perf_counter() - started):.0f} frames per second")

"""Compress a stack, read it with plain h5py, and print the largest error."""

import h5py
import numpy as np

import tezip_h5
from tezip_h5.simulate import detector_sequence

stack = detector_sequence(frames=48)  # uint16 (T, H, W); put your own array here

for bound in (None, 4, 16):
    summary = tezip_h5.write(stack, "run.h5", absolute=bound, overwrite=True)
    print(summary)

with h5py.File("run.h5") as file:
    frames = file["scan/data"][10:20]

error = np.abs(frames.astype(int) - stack[10:20]).max()
print(f"frames 10 to 19 came back within {error} counts")

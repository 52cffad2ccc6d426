"""Read chunks of HDF5 files with zarr through references, and write a compressed zarr array.

This needs ``pip install "tezip_h5[zarr]"``.
"""

import json

import numpy as np
import zarr

import tezip_h5
from tezip_h5.simulate import detector_sequence
from tezip_h5.zarr.serializer import TEZipSerializer

stack = detector_sequence(frames=48)  # uint16 (T, H, W); put your own array here
tezip_h5.write(stack, "run.h5", absolute=2, level="fast", overwrite=True)

# List the position of each chunk in run.h5. For an object store, add url="s3://bucket/run.h5".
with open("run.json", "w") as file:
    json.dump(tezip_h5.references("run.h5"), file)

# zarr fetches the byte ranges that a selection needs, without HDF5.
group = zarr.open_group(
    "reference://",
    mode="r",
    zarr_format=2,
    storage_options={"fo": "run.json", "remote_protocol": "file"},
)
frames = group["scan/data"][10:20]
print(group["scan/data"].info)
print(f"within {np.abs(frames.astype(int) - stack[10:20]).max()} counts of the original")

# Write the same chunks to a zarr array.
array = zarr.create_array(
    "run.zarr",
    data=stack,
    chunks=(16, *stack.shape[1:]),
    serializer=TEZipSerializer(absolute=2, level="fast"),
    compressors=None,
    overwrite=True,
)
print(f"run.zarr has {array.nbytes_stored()} bytes, the stack {stack.nbytes}")

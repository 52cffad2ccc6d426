"""Train a network on your own recordings, and compress the next one with it.

This needs ``pip install "tezip_h5[train]"``. It only shows the steps; this training is far too
short for a good network. Without `architecture`, `epochs`, `steps` and `side`, training takes about
an hour on a laptop.
"""

import tezip_h5
from tezip_h5.prediction.architecture import Architecture
from tezip_h5.simulate import detector_sequence

# Earlier recordings: files with stacks, compressed or not, or folders of images.
for run in (1, 2):
    tezip_h5.write(detector_sequence(32, 96, 96, seed=run), f"run{run}.h5", overwrite=True)

model = tezip_h5.train(
    "MODEL",
    ["run1.h5", "run2.h5"],
    architecture=Architecture(1, (8,), (8, 16)),
    epochs=2,
    steps=40,
    side=32,
)
print(f"model {model.digest.hex()[:16]}… is in the folder MODEL")

# The next recording. The network is used for chunks that it makes smaller. In other chunks it
# costs nothing.
frames = detector_sequence(32, 96, 96, seed=3)
without = tezip_h5.write(frames, "without.h5", model=None, overwrite=True)
offered = tezip_h5.write(frames, "offered.h5", model="MODEL", overwrite=True)
pinned = tezip_h5.write(
    frames, "pinned.h5", model="MODEL", predictor="prednet", overwrite=True, verify=True
)
for name, made in {"without": without, "offered": offered, "pinned": pinned}.items():
    print(
        f"{name:8} {made.payload_bytes} bytes, the network predicts in {made.network_chunks} of "
        f"{made.chunks} chunks"
    )

# The file contains the model that was used, so any reader can decode it without the folder MODEL.
print(tezip_h5.inspect("pinned.h5"))

"""Choose an error bound: compare ratio, error and noise at several bounds.

This needs ``pip install "tezip_h5[plot]"``. It draws bounds.png.
"""

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot

import tezip_h5
from tezip_h5.simulate import detector_sequence

stack = detector_sequence(frames=24, height=192, width=192)  # put your own array here
BOUNDS = (0, 1, 2, 4, 8, 16, 32)

# Estimate the noise from differences of neighbouring frames. Objects that move hardly change the
# median.
changes = np.abs(np.diff(stack.astype(float), axis=0))
noise = np.median(changes) / 0.6745 / np.sqrt(2)

ratios, errors, lost = [], [], []
print(f"the noise has a standard deviation of about {noise:.1f} counts")
print("bound   ratio   error (rms)   of the noise   mean shift")
for bound in BOUNDS:
    made = tezip_h5.write(stack, "bounds.h5", absolute=bound, level="fast", overwrite=True)
    error = tezip_h5.read("bounds.h5").astype(float) - stack
    assert np.abs(error).max() <= bound  # this is guaranteed
    ratios.append(made.ratio)
    errors.append(np.sqrt(np.mean(error**2)))
    lost.append(error[12])
    share, shift = errors[-1] / noise, error.mean()
    print(f"{bound:5}   {made.ratio:5.2f}   {errors[-1]:11.2f}   {share:12.0%}   {shift:+10.3f}")

figure, axes = pyplot.subplots(2, 4, figsize=(13, 6.6), layout="constrained")
figure.suptitle("What a bound saves, and what it loses")
labels = [str(bound) for bound in BOUNDS]
axes[0, 0].bar(labels, ratios, color="#3f74d1")
axes[0, 0].set(title="ratio", xlabel="absolute bound, counts")
axes[0, 1].plot(labels, errors, "o-", color="#c8476a", label="error, rms")
axes[0, 1].axhline(noise, color="#1c1e21", linestyle="--", label="noise")
axes[0, 1].set(title="error beside the noise", xlabel="absolute bound, counts")
axes[0, 1].legend(frameon=False)
low, high = np.percentile(stack[12], (1, 99.5))
axes[0, 2].imshow(stack[12], cmap="gray", vmin=low, vmax=high)
axes[0, 2].set_title("frame 12, as recorded")
axes[0, 3].imshow(stack[12] + lost[-1], cmap="gray", vmin=low, vmax=high)
axes[0, 3].set_title(f"at a bound of {BOUNDS[-1]}")
# The error should look like noise. If it shows the objects, the bound is too large.
for axis, bound in zip(axes[1], (2, 8, 16, 32), strict=True):
    axis.imshow(lost[BOUNDS.index(bound)], cmap="RdBu_r", vmin=-bound, vmax=bound)
    axis.set_title(f"lost at {bound}")
for axis in (*axes[0, 2:], *axes[1]):
    axis.set_axis_off()
figure.savefig("bounds.png", dpi=80)
print("drawn: bounds.png")

"""The integer PredNet on a foreign engine: TensorFlow, everything between frames in float32.

FORMAT.md, 6.1, once more, written for a package that knows nothing of integers. Why the
result is exact all the same: an activation is an integer of at most 255, and a model is refused
unless every accumulator, the half that rounds it included, stays below 2**24. So all partial
sums, in whatever order the engine adds them and with or without FMA, are integers that float32
holds. Dividing by a power of two only changes the exponent, and floor is exact. The products of
the LSTM stay below 2**20. What a frame is brought to the network's scale with, and back, has up
to 31 bits and is int64 here too.

This holds for direct and GEMM convolutions, which engines use for float32 on CPUs; not for
Winograd or FFT, which multiply other numbers than those of the model.
"""

import numpy as np
import tensorflow as tf

from tezip_h5.prediction.architecture import to_patches, to_pixels
from tezip_h5.prediction.integer import ACTIVATION, CELL, GATE, PREACTIVATION, IntegerModel
from tezip_h5.prediction.reference import CHANGE_BITS, rescale

__all__ = ["Foreign"]


class Foreign:
    """As `prediction.reference.Reference`, with the network in float32 by TensorFlow.

    Parameters
    ----------
    model, shape, top, offset, shift
        As there.
    compiled : bool
        Whether XLA makes one program of the network, which fuses and reorders as it likes.
    """

    def __init__(self, model: IntegerModel, shape, top, offset, shift, *, compiled=False):
        arch = model.architecture
        self._model, self._arch, self._shape = model, arch, shape
        self._top, self._offset, self._shift = top, offset, shift
        self._padding = ((0, 0), *((0, -side % arch.multiple) for side in shape[1:]))
        h, w = (-(-side // arch.multiple) * arch.multiple // arch.patch for side in shape[1:])
        self._state = {}
        for l, states in enumerate(arch.states):
            size = (1, h >> l, w >> l)
            self._state[f"r{l}"] = self._state[f"c{l}"] = tf.zeros((*size, states))
            self._state[f"ahat{l}"] = tf.zeros((*size, arch.target(l)))
        self._step = tf.function(self._network, jit_compile=True) if compiled else self._network
        self._last = None
        self._prediction = np.zeros(shape, np.int32)

    def predict(self):
        """Prediction of the next frame, int32 (C, h, w)."""
        return self._prediction

    def observe(self, frame):
        """Take the frame that followed, int32 (C, h, w)."""
        arch = self._arch
        x = self._patches(frame)
        inputs = [np.clip(rescale(x - self._offset, self._shift), 0, ACTIVATION)]
        if arch.skip:
            bits = self._shift - CHANGE_BITS
            last, predicted = x, x
            if self._last is not None:
                last, predicted = self._last, self._patches(self._prediction)
            inputs.append(np.clip(rescale(x - last, bits), -ACTIVATION, ACTIVATION))
            # Clipped here: beyond +-255 the network sees no difference, float32 might.
            inputs.append(np.clip(rescale(x - predicted, bits), -ACTIVATION, ACTIVATION))
        inputs = [tf.constant(np.moveaxis(i, 0, -1)[None], tf.float32) for i in inputs]
        accumulators, self._state = self._step(self._state, inputs)
        y = np.moveaxis(accumulators.numpy()[0], -1, 0).astype(np.int64)
        bits = self._model.convolutions["ahat0"].shift.astype(np.int64)[:, None, None]
        change = rescale(y, bits - self._shift)
        pixels = to_pixels((x if arch.skip else self._offset) + change, arch.patch)
        _, h, w = self._shape
        self._prediction = np.clip(pixels[:, :h, :w], 0, self._top).astype(np.int32)
        self._last = x

    def _patches(self, frame):
        padded = np.pad(frame.astype(np.int64), self._padding, mode="edge")
        return to_patches(padded, self._arch.patch)

    # --- all that follows is float32, (1, H, W, channels) ------------------------------------

    def _network(self, state, inputs):
        """One step: the accumulators of the prediction, and the new state."""
        arch, new = self._arch, {}
        shown, *changes = inputs
        seen = [shown, changes[0]] if arch.skip else []
        error = changes[1] if arch.skip else shown - state["ahat0"]
        errors = [_halves(error)]
        for l in range(1, arch.layers):
            a = self._activation(f"a{l}", errors[-1])
            errors.append(_halves(tf.nn.max_pool2d(a, 2, 2, "VALID") - state[f"ahat{l}"]))
        above = []
        for l in reversed(range(arch.layers)):
            x = tf.concat([state[f"r{l}"], *(seen if l == 0 else ()), errors[l], *above], -1)
            new[f"r{l}"], new[f"c{l}"] = self._lstm(l, x, state[f"c{l}"])
            above = [tf.repeat(tf.repeat(new[f"r{l}"], 2, 1), 2, 2)]
        for l in range(1, arch.layers):
            new[f"ahat{l}"] = self._activation(f"ahat{l}", new[f"r{l}"])
        y = self._convolve("ahat0", tf.concat([new["r0"], *seen], -1))
        new["ahat0"] = tf.clip_by_value(self._rescaled("ahat0", y), 0, ACTIVATION)
        return y, new

    def _lstm(self, l, x, cell):
        i, f, g, o = tf.split(self._rescaled(f"gates{l}", self._convolve(f"gates{l}", x)), 4, -1)
        i, f, o = (tf.clip_by_value(gate, 0, GATE) for gate in (i, f, o))
        g = tf.clip_by_value(g, -PREACTIVATION, PREACTIVATION)
        g = self._look_up("tanh_input", g + PREACTIVATION)
        cell = tf.clip_by_value(_shift(f * cell + i * g, 8.0), -CELL, CELL)
        return _shift(o * self._look_up("tanh_cell", cell + CELL), 8.0), cell

    def _look_up(self, name, index):
        table = tf.constant(self._model.tables[name], tf.float32)
        return tf.gather(table, tf.cast(index, tf.int32))

    def _activation(self, name, x):
        return tf.clip_by_value(self._rescaled(name, self._convolve(name, x)), 0, ACTIVATION)

    def _convolve(self, name, x):
        conv = self._model.convolutions[name]
        kernel, bias = (tf.constant(array, tf.float32) for array in (conv.kernel, conv.bias))
        return tf.nn.conv2d(x, kernel, 1, "SAME") + bias

    def _rescaled(self, name, accumulators):
        return _shift(accumulators, self._model.convolutions[name].shift.astype(np.float32))


def _halves(error):
    """The two halves of E: what is above the prediction, what is below."""
    return tf.clip_by_value(tf.concat([error, -error], -1), 0, ACTIVATION)


def _shift(values, bits):
    """values / 2**bits, rounded half up."""
    unit = 2.0**bits
    return tf.floor((values + np.floor(unit / 2)) / unit)

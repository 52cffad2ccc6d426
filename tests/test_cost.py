"""How many bits symbols are said to take."""

import numpy as np
import pytest

from tezip_h5.cost import estimate


def test_what_is_always_the_same_costs_nothing():
    assert estimate(np.zeros((2, 9, 12), np.int32)) == 0


@pytest.mark.parametrize("most", [1, 3, 127, 2**20 - 1])
def test_symbols_without_any_order_cost_their_entropy(most):
    symbols = np.random.default_rng(0).integers(-most, most + 1, (256, 256)).astype(np.int32)
    assert estimate(symbols) == pytest.approx(symbols.size * np.log2(2 * most + 1), rel=0.01)


@pytest.mark.parametrize("shape", [(1, 4000), (4000, 1)])
def test_zeros_beside_zeros_cost_little(shape):
    """Along a row as down a column; where they are scattered, each says that it is one."""
    noise = np.random.default_rng(0).integers(4, 8, 2000)
    region, scattered = np.append(0 * noise, noise), np.append(0 * noise, noise)
    np.random.default_rng(1).shuffle(scattered)
    assert estimate(region.reshape(shape)) < estimate(noise.reshape(1, -1)) + 40
    assert estimate(scattered.reshape(shape)) > estimate(noise.reshape(1, -1)) + 3900


def test_what_is_left_of_a_symbol_is_not_taken_for_what_is_above():
    stripes = np.tile(np.array([0, 4], np.int32), (200, 100))
    assert estimate(stripes) < 2.1 * np.count_nonzero(stripes)  # which of 4, 5, 6, 7 it is

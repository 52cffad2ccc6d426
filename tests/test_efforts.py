"""What levels do: the table, and that it is what the encoder goes by."""

from dataclasses import replace

import numpy as np
import pytest

from tezip_h5 import ErrorBound, Settings, codec
from tezip_h5.efforts import EFFORTS
from tezip_h5.residual import entropy, streams
from tezip_h5.settings import LEVELS


def test_places_of_levels_are_numbers_on_the_wire():
    assert LEVELS == ("fast", "balanced", "best")


@pytest.mark.parametrize("level", LEVELS)
def test_what_the_table_names_is_there(level):
    effort = EFFORTS[level]
    assert Settings(level=level).effort is effort
    assert effort.coder in ("linear", "mixing")
    assert effort.mixing_model in streams.MODELS
    assert set(effort.zstd) <= set(entropy.SEARCHES)
    assert effort.blosc
    assert set(effort.blosc) <= set(range(10))


@pytest.mark.parametrize(("coder", "level"), [(None, "fast"), ("fallback", "best")])
def test_a_level_is_what_the_table_says(monkeypatch, coder, level):
    frames = np.random.default_rng(0).poisson(20, (4, 48, 64)).astype("u2")
    bound = ErrorBound().of_frames(frames[..., None])
    expected = codec.encode_chunk(frames, bound, Settings(level=level, coder=coder)).payload
    settings = Settings(coder=coder)
    assert codec.encode_chunk(frames, bound, settings).payload != expected
    monkeypatch.setitem(EFFORTS, "balanced", replace(EFFORTS[level]))
    assert codec.encode_chunk(frames, bound, settings).payload == expected

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonolens.dsp.segments import place


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 50),
    st.integers(10, 30),
    st.sampled_from(["start", "centre", "random"]),
    st.floats(0, 0.999),
)
def test_offset_says_where_the_recording_lies(length, n_samples, placement, draw):
    waveform = np.arange(1, length + 1, dtype=np.float32)
    window, offset = place(waveform, n_samples, placement, draw)
    assert window.shape == (n_samples,)
    for position, value in enumerate(window):
        origin = position - offset
        assert value == (waveform[origin] if 0 <= origin < length else 0)


def test_a_long_recording_keeps_its_loudest_stretch():
    waveform = np.zeros(100, np.float32)
    waveform[60:70] = 1
    window, offset = place(waveform, 10, "start", 0.0)
    assert window.sum() == 10
    assert offset == -60


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999])
def test_random_stays_inside(draw):
    window, _ = place(np.ones(4, np.float32), 10, "random", draw)
    assert window.sum() == 4

"""Groups of cells have labels without gaps and the shape of the inputs."""

import numpy as np
import pytest
import torch

from sonolens.explain import segments
from sonolens.explain.contract import ExplainError
from toys import SCALE

AXES: dict = {}
SOUND = {"scale": SCALE, "frequencies_hz": np.linspace(50, 1250, 16).tolist()}


def test_cells_are_no_groups():
    assert segments.make("cells", torch.zeros(2, 1, 4, 4), AXES) is None


@pytest.mark.parametrize("shape", [(1, 16, 24), (3, 5, 40), (7,)])
def test_patches_cover_every_cell_once_and_channels_share_them(shape):
    labels = segments.make("patches", torch.zeros(2, *shape), AXES)
    assert labels.shape == shape
    n_parts = [min(segments.N_PATCHES, size) for size in shape[-2:]]
    assert labels.unique().tolist() == list(range(int(torch.tensor(n_parts).prod())))
    if len(shape) == 3:
        assert (labels == labels[:1]).all()


def test_patches_of_a_plane_are_rectangles():
    labels = segments.patches(torch.zeros(1, 4, 4), n_patches=2)
    assert labels.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_an_unknown_kind_is_named():
    with pytest.raises(ExplainError, match="'octavos'"):
        segments.make("octavos", torch.zeros(2, 1, 4, 4), AXES)


FILMS = torch.zeros(2, 1, 5, 6, 8)


@pytest.mark.parametrize(
    ("kind", "axis", "n_groups"), [("bands", -2, 6), ("slices", -1, 8), ("frames", -3, 5)]
)
def test_groups_along_one_axis_of_a_film(kind, axis, n_groups):
    labels = segments.make(kind, FILMS, AXES)
    assert labels.shape == FILMS.shape[1:] and labels.dtype == torch.int64
    along = labels.transpose(0, axis).flatten(1)
    assert (along == along[:, :1]).all()
    assert along[:, 0].tolist() == list(range(n_groups))


def test_bands_times_slices_are_the_patches():
    plane = torch.zeros(1, 1, 20, 30)
    bands, slices = (segments.make(kind, plane, AXES) for kind in ("bands", "slices"))
    assert torch.equal(segments.patches(plane), bands * segments.N_PATCHES + slices)
    assert segments.bands(plane, 3).unique(return_counts=True)[1].tolist() == [210, 210, 180]


def test_a_waveform_has_slices_but_no_bands_and_no_frames():
    wave = torch.zeros(2, 1, 40)
    assert torch.equal(segments.make("slices", wave, AXES), segments.make("patches", wave, AXES))
    for kind in ("bands", "frames"):
        with pytest.raises(ExplainError, match=f"segmentation '{kind}': inputs \\(2, 1, 40\\)"):
            segments.make(kind, wave, AXES)
    with pytest.raises(ExplainError, match="segmentation 'frames'"):
        segments.make("frames", torch.zeros(2, 1, 4, 4), AXES)


def test_bark_bands_have_zwickers_edges_and_no_gaps():
    wide = {"frequencies_hz": [50, 99, 100, 250, 1000, 1081, 12500, 15000]}
    labels = segments.make("bark", torch.zeros(2, 1, 8, 3), wide)
    assert labels.shape == (1, 8, 3)
    assert labels[0, :, 0].tolist() == [0, 0, 1, 2, 3, 4, 5, 5]
    every = {"frequencies_hz": np.arange(20, 15500, 20).tolist()}
    labels = segments.make("bark", torch.zeros(1, 774, 2), every)
    assert labels.unique().tolist() == list(range(24))


def test_octaves_lie_around_1_khz():
    rows = {"frequencies_hz": [0, 15, 700, 720, 1400, 1420, 2900]}
    labels = segments.make("octave", torch.zeros(1, 7, 2), rows)
    assert labels[:, 1].tolist() == [0, 0, 1, 2, 2, 3, 4]


def test_harmonics_are_combs_of_the_items_own_pitch():
    frequencies_hz = np.arange(0.0, 2000.0, 10.0)
    axes = {"scale": SCALE, "frequencies_hz": frequencies_hz.tolist()}
    inputs = torch.full((2, 1, 200, 9), 0.2)
    for item, f0_hz in enumerate((200, 150)):
        inputs[item, 0, f0_hz // 10 :: f0_hz // 10, 2:] = 1.0
    labels = segments.make("harmonic", inputs, axes)
    assert labels.shape == inputs.shape
    assert (labels[..., :2] == 0).all()  # no voice
    for item, f0_hz in enumerate((200, 150)):
        column = labels[item, 0, :, 5].numpy()
        assert column[0] == 1 and column[f0_hz // 20] == 1  # between harmonics
        for k in (1, 2, 5):
            near = np.abs(frequencies_hz - k * f0_hz) <= 0.2 * f0_hz
            assert (column[near] == k + 1).all()
    assert labels[1].max() == 12 and (labels[1, 0, frequencies_hz > 1720, 5] <= 12).all()
    alone = segments.make("harmonic", inputs[[1]], axes)
    assert torch.equal(alone[0], labels[1])


def test_sounds_have_an_onset_a_steady_part_and_a_decay():
    level_db = np.array([-80, -25, -12, -2, 0, -3, -15, -70, -80, -5, -4, -20])
    inputs = torch.from_numpy((level_db + 80) / 80).expand(2, 1, 16, 12).clone()
    inputs[1] = inputs[1].flip(-1)
    labels = segments.make("onset_steady_decay", inputs, SOUND)
    expected = [0, 1, 1, 2, 2, 2, 3, 0, 0, 2, 2, 3]
    assert (labels[0, 0] == torch.tensor(expected)).all()
    backwards = [{0: 0, 1: 3, 2: 2, 3: 1}[part] for part in reversed(expected)]
    assert (labels[1, 0] == torch.tensor(backwards)).all()


@pytest.mark.parametrize("kind", ["bark", "octave", "harmonic"])
def test_kinds_in_hz_need_the_axis(kind):
    for axes in ({"scale": SCALE}, {"scale": SCALE, "frequencies_hz": [100.0, 200.0]}):
        with pytest.raises(ExplainError, match=r"frequencies_hz for inputs \(2, 1, 4, 4\)"):
            segments.make(kind, torch.zeros(2, 1, 4, 4), axes)


def test_kinds_of_levels_need_their_scale_and_bands_that_resolve_harmonics():
    axes = {"frequencies_hz": [100.0, 200.0, 300.0, 400.0]}
    for kind in ("harmonic", "onset_steady_decay"):
        with pytest.raises(ExplainError, match="need 'range_db'"):
            segments.make(kind, torch.zeros(2, 1, 4, 4), axes)
    axes = {"scale": SCALE, "frequencies_hz": np.linspace(100, 4000, 16).tolist()}
    with pytest.raises(ExplainError, match="resolve no harmonics"):
        segments.make("harmonic", torch.zeros(2, 1, 16, 4), axes)

"""Groups of cells have labels without gaps and the shape of the inputs."""

import pytest
import torch

from sonolens.explain import segments
from sonolens.explain.contract import ExplainError

AXES: dict = {}


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

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
    with pytest.raises(ExplainError, match="'octaves'"):
        segments.make("octaves", torch.zeros(2, 1, 4, 4), AXES)

import pytest
import torch

import toys
from sonolens import rng
from sonolens.explain import baselines
from sonolens.explain.contract import ExplainError

AXES = {"scale": toys.SCALE}


def clips():
    return torch.rand(3, 1, 8, 50, generator=rng.torch_generator("clips"))


def test_silence_is_the_lowest_and_legacy_zero_the_loudest_value():
    assert baselines.make("silence", clips(), AXES).unique().tolist() == [0.0]
    assert baselines.make("legacy_zero", clips(), AXES).unique().tolist() == [1.0]
    assert baselines.make("silence", clips(), AXES).shape == (1, 1, 1, 8, 50)


def test_noise_floor_lies_three_db_around_the_quiet_tenth_of_each_band():
    inputs = clips() * 0.5 + 0.3
    draws = baselines.make("noise_floor", inputs, AXES, item_seeds=[1, 2, 3], n_draws=20)
    assert draws.shape == (3, 20, 1, 8, 50)
    floor = torch.quantile(inputs, 0.1, dim=-1)
    torch.testing.assert_close(draws.mean((1, 4)), floor, rtol=0, atol=0.01)
    assert draws.std((1, 4)).mean().item() == pytest.approx(3 / 80, rel=0.05)
    alone = baselines.make("noise_floor", inputs[[2]], AXES, item_seeds=[3], n_draws=20)
    assert torch.equal(alone[0], draws[2])
    baselines.check_loudness(inputs, draws, "noise_floor", AXES)


def test_noise_floor_stays_inside_the_scale():
    draws = baselines.make("noise_floor", torch.zeros(1, 1, 8, 50), AXES, item_seeds=[0], n_draws=3)
    assert draws.min() == 0 and draws.max() < 0.3


def test_train_mean_and_errors():
    mean = clips()[0]
    assert torch.equal(baselines.make("train_mean", clips(), AXES, train_mean=mean)[0, 0], mean)
    with pytest.raises(ExplainError, match="train_mean: found None"):
        baselines.make("train_mean", clips(), AXES)
    with pytest.raises(ExplainError, match="'pink': unknown"):
        baselines.make("pink", clips(), AXES)
    with pytest.raises(ExplainError, match="need 'silence'"):
        baselines.make("silence", clips(), {})
    with pytest.raises(ExplainError, match="no item_seeds"):
        baselines.make("noise_floor", clips(), AXES)


def test_a_baseline_louder_than_the_input_is_refused_unless_asked_for():
    loud = baselines.legacy_zero(clips(), AXES)
    with pytest.raises(
        ExplainError, match="louder than the input in 100.0% of the cells with sound"
    ):
        baselines.check_loudness(clips(), loud, "train_mean", AXES)
    baselines.check_loudness(clips(), loud, "legacy_zero", AXES)
    baselines.check_loudness(clips(), loud, "zero", {})
    baselines.check_loudness(torch.zeros_like(clips()), loud, "train_mean", AXES)


def test_only_cells_with_sound_count():
    inputs = torch.zeros(1, 1, 10, 10)
    inputs[..., 0] = 0.9
    baselines.check_loudness(inputs, torch.full((1, 1, 1, 10, 10), 0.5), "train_mean", AXES)


GREY = {"scale": {"unit": "grey level", "min": 0.0, "max": 1.0, "black": 0.0}}


def test_pictures_are_compared_with_black():
    assert baselines.make("black", clips(), GREY).unique().tolist() == [0.0]


@pytest.mark.parametrize(
    ("kind", "axes"), [("silence", GREY), ("legacy_zero", GREY), ("black", AXES)]
)
def test_each_scale_has_its_own_baselines(kind, axes):
    with pytest.raises(ExplainError, match="scale has"):
        baselines.make(kind, clips(), axes)


def test_no_picture_is_louder_than_another():
    white = torch.ones_like(clips())[:, None]
    baselines.check_loudness(clips(), white, "train_mean", GREY)

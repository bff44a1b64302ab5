import pytest
import torch

import toys
from sonolens import rng
from sonolens.dsp.scale import WAVEFORM_SCALE
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


def test_train_mean_map_is_the_mean_and_train_mean_has_no_shape():
    mean = clips()[0]
    found = baselines.make("train_mean_map", clips(), AXES, train_mean=mean)
    assert found.shape == (1, 1, 1, 8, 50) and torch.equal(found[0, 0], mean)
    bands = baselines.make("train_mean", clips(), AXES, train_mean=mean)
    torch.testing.assert_close(bands[0, 0, 0, :, 7], mean[0].mean(1))
    assert (bands == bands[..., :1]).all() and len(bands.unique()) == 8
    grey = baselines.make("train_mean", clips(), GREY, train_mean=mean)
    assert grey.shape == found.shape and grey.unique().item() == pytest.approx(mean.mean().item())


def test_low_energy_keeps_the_quietest_fifth_of_each_item():
    inputs = clips()
    inputs[0] *= 0.5
    found = baselines.make("low_energy", inputs, AXES)
    assert found.shape == (3, 1, 1, 8, 50) and (found[:, 0] <= inputs).all()
    kept = (found[:, 0] == inputs).flatten(1).double().mean(1)
    torch.testing.assert_close(kept, torch.full((3,), 0.2).double(), rtol=0, atol=0.01)


def test_missing_parts_and_unknown_kinds_are_named():
    for kind in baselines.OF_TRAINING:
        with pytest.raises(ExplainError, match=f"{kind}: found None"):
            baselines.make(kind, clips(), AXES)
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


@pytest.mark.parametrize("kind", sorted(set(baselines.KINDS) - {"legacy_zero"}))
def test_every_other_kind_is_refused_when_it_is_louder(kind):
    loud = torch.ones(1, 1, 1, 8, 50)
    with pytest.raises(ExplainError, match=f"{kind}'.*ask for legacy_zero"):
        baselines.check_loudness(clips(), loud, kind, AXES)


@pytest.mark.parametrize("kind", ["silence", "noise_floor", "low_energy", "train_mean"])
def test_kinds_for_sound_are_never_refused(kind):
    inputs = clips()
    found = baselines.make(
        kind, inputs, AXES, item_seeds=[1, 2, 3], n_draws=4, train_mean=inputs.mean(0)
    )
    baselines.check_loudness(inputs, found, kind, AXES)


WAVEFORM = {"scale": WAVEFORM_SCALE}


def test_waveforms_are_compared_with_zero_whatever_their_sign():
    waveforms = clips().flatten(1) - 0.5
    silence = baselines.make("silence", waveforms, WAVEFORM)
    assert silence.shape == (1, 1, 400) and not silence.any()
    baselines.check_loudness(waveforms, silence + 1, "silence", WAVEFORM)
    for kind in ("legacy_zero", "noise_floor", "low_energy"):
        with pytest.raises(ExplainError, match="need 'range_db'"):
            baselines.make(kind, waveforms, WAVEFORM, item_seeds=[0, 1, 2])


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

"""Integrated gradients for sound: complete, and equal to slow references."""

import numpy as np
import pytest
import torch
from torch import nn

import toys
from sonolens import rng
from sonolens.dsp.blur import gaussian_matrix, spread
from sonolens.explain import baselines, paths, registry, segments, targets
from sonolens.explain.cells import call_options, n_draws
from sonolens.explain.contract import ExplainError, evaluate, gradient, seed_array
from sonolens.explain.expected_gradients import draw_positions
from sonolens.explain.ig_gain import fade_in
from sonolens.explain.ig_guided import attribute as guided
from sonolens.explain.ig_snr import wiener_gain
from sonolens.explain.ig_tf import frames_of, relevance
from sonolens.models.audionet import AudioNet

AXES = {"scale": toys.SCALE, "frequencies_hz": np.linspace(50, 1250, 16).tolist()}
SOUND = [name for name, info in registry.METHODS.items() if name.startswith("ig_")]
ON_MAPS = [name for name in SOUND if name != "ig_tf"]
FROM_BASELINE = [one for one in ON_MAPS if not one.startswith("ig_blur") and one != "ig_snr"]


def clips(n=4, dtype=torch.float64):
    generator = rng.torch_generator("sounds")
    inputs = torch.rand(n, *toys.SHAPE, generator=generator, dtype=dtype)
    return (inputs - 0.3).clamp_min(0)  # silence in a third of the cells


def waveforms(n=3, n_samples=200):
    return torch.randn(n, n_samples, generator=rng.torch_generator("w"), dtype=torch.float64)


def baseline_of(info, inputs, options=None, axes=AXES):
    if not info.needs_baseline:
        return None
    kind = info.baselines[0] if info.baselines else "silence"
    n = n_draws(info, options or {})
    return baselines.make(kind, inputs, axes, item_seeds=range(len(inputs)), n_draws=n)


def explain(name, model, inputs, target=None, axes=AXES, **options):
    info = registry.info(name)
    target = target or targets.predicted(model, inputs)
    return info.load()(
        model,
        inputs,
        target,
        baseline=baseline_of(info, inputs, options, axes),
        item_seeds=seed_array(range(len(inputs))),
        **call_options(info, info.options | options, inputs, axes),
    )


@pytest.fixture(scope="module")
def cnn():
    """A small net that has learnt which quarter of the bands is the loudest, as sounds go."""
    model = toys.SmallCNN().double()
    inputs = torch.cat([clips(32), clips(64)[32:]])
    labels = inputs.view(len(inputs), 4, -1).sum(2).argmax(1)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    model.eval()
    for _ in range(40):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimiser.step()
    return model.requires_grad_(False)


class WaveformNet(nn.Module):
    """Smooth and far from linear, so that a path matters."""

    def __init__(self, n_samples=200):
        super().__init__()
        draw = torch.randn(2, 6, n_samples, generator=rng.torch_generator("net"))
        self.weights = nn.Parameter(draw.double() / n_samples**0.5)

    def forward(self, inputs):
        flat = inputs.flatten(1)
        return torch.stack([(torch.tanh(flat @ one.T) ** 2).sum(1) for one in self.weights], 1)


@pytest.mark.parametrize("name", FROM_BASELINE)
@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_linear_model_is_explained_exactly_with_any_number_of_steps(name, n_steps):
    info, inputs, target = registry.info(name), clips(), targets.ClassLogit((0, 1, 2, 0))
    options = {"n_steps": n_steps} if "n_steps" in info.options else {"n_baseline_draws": n_steps}
    model = toys.Linear()
    baseline = baseline_of(info, inputs, options)
    expected = (model.weights[[0, 1, 2, 0]] * (inputs - baseline.mean(1))).detach()
    fixed = {key: value for key, value in options.items() if key in info.options}
    result = info.load()(
        model, inputs, target, baseline=baseline, item_seeds=seed_array(range(4)),
        **call_options(info, info.options | fixed, inputs, AXES),
    )  # fmt: skip
    if name.startswith("ig_smooth"):
        expected = spread(expected, 1.0)
    if name == "ig_band":
        labels = segments.make("bark", inputs, AXES)
        for label in labels.unique():
            expected[:, labels == label] = expected[:, labels == label].mean(1, keepdim=True)
    torch.testing.assert_close(result.values, expected, rtol=0, atol=1e-8)
    assert result.completeness_error.max() < 1e-6


@pytest.mark.parametrize("name", SOUND)
def test_every_variant_leaves_no_trace_and_ignores_order_company_and_chunks(name, cnn):
    model, inputs = (WaveformNet(), waveforms()) if name == "ig_tf" else (cnn, clips(3))
    axes = {"scale": {"silence": 0.0}} if name == "ig_tf" else AXES
    target = targets.ClassLogit((0, 1, 0))
    info = registry.info(name)
    baseline, seeds = baseline_of(info, inputs, axes=axes), seed_array(range(3))

    def call(rows, chunk_size):
        options = call_options(info, info.options | {"chunk_size": chunk_size}, inputs[rows], axes)
        own = baseline if baseline is None or len(baseline) == 1 else baseline[rows]
        return info.load()(model, inputs[rows], target.select(rows), baseline=own,
                           item_seeds=seeds[rows], **options)  # fmt: skip

    whole = toys.unchanged(model, lambda: call([0, 1, 2], 32))
    some = call([2, 0], 5)
    torch.testing.assert_close(some.values, whole.values[[2, 0]], rtol=1e-9, atol=1e-9)
    assert whole.completeness_error.shape == (3,) and whole.completeness_error.isfinite().all()
    assert not whole.values.requires_grad


def test_maps_are_complete(cnn):
    inputs = clips(16)
    for name in ("ig_silence", "ig_gain", "ig_band", "ig_smooth"):
        assert explain(name, cnn, inputs, n_steps=64).completeness_error.median() < 0.01, name
    waveform_net, sounds = WaveformNet(), waveforms(16)
    axes = {"scale": {"silence": 0.0}}
    assert explain("ig_tf", waveform_net, sounds, axes=axes).completeness_error.median() < 0.01


def test_completeness_errors_are_those_of_the_maps(cnn):
    inputs, target = clips(), targets.predicted(cnn, clips())
    for name in ON_MAPS:
        result = explain(name, cnn, inputs, target)
        if name.startswith("ig_blur"):
            along = registry.info(name).fixed["along"]
            starts = blurred(inputs, along)[:, None]
        else:
            starts = baseline_of(registry.info(name), inputs).expand(4, -1, *toys.SHAPE)
        before = torch.stack(
            [evaluate(cnn, starts[:, k], target) for k in range(starts.shape[1])]
        ).mean(0)
        change = evaluate(cnn, inputs, target) - before
        expected = (result.values.sum((1, 2, 3)) - change).abs() / change.abs()
        torch.testing.assert_close(result.completeness_error, expected, rtol=1e-6, atol=1e-9)


def test_nothing_changes_no_error_is_defined():
    assert paths.completeness_error(torch.zeros(1, 3), torch.zeros(1)).isnan().all()


def test_fade_in_starts_silent_and_ends_with_the_recording():
    item, floor = clips(1)[0], torch.zeros(toys.SHAPE).double()
    curve = fade_in(item, floor)
    points = curve(torch.linspace(0, 1, 11, dtype=torch.float64))
    assert torch.equal(points[0], floor) and torch.equal(points[-1], item)
    steps = points.diff(dim=0)
    assert (steps >= 0).all() and (steps <= item.max() / 10 + 1e-12).all()
    # a cell emerges when the gain reaches its distance from the loudest
    quiet = (item == 0.0) | (item < item.max() / 2)
    assert (points[5][quiet] == 0).all() and (points[6][item == item.max()] > 0).all()


def test_fade_in_is_the_front_end_of_a_softer_waveform():
    from sonolens.dsp.spectrogram import LogMel

    front_end = LogMel(8000, 256, 125, 16, 16, 50.0, 4000.0, "full_scale")
    generator = rng.torch_generator("voice")
    waveform = torch.randn(1, front_end.n_samples, generator=generator, dtype=torch.float64)
    waveform *= 0.02 * torch.linspace(0.01, 1, front_end.n_samples, dtype=torch.float64)
    loud = front_end(waveform)
    silence = front_end(torch.zeros_like(waveform))
    assert not silence.any() and (silence <= loud).all()
    curve = fade_in(loud[0], silence[0])
    for position in (0.3, 0.75, 1.0):
        softer_db = 80 * float(loud.max()) * (1 - position)
        expected = front_end(waveform * 10 ** (-softer_db / 20))[0]
        found = curve(torch.tensor([position], dtype=torch.float64))[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_gain_in_equal_steps_of_db_is_complete_and_cells_below_the_floor_get_nothing(cnn):
    inputs = clips(16)
    result = explain("ig_gain", cnn, inputs, n_steps=64)
    assert result.completeness_error.median() < 0.01
    assert not result.values[inputs == 0].any()
    below = inputs.clone()
    below[:, :, 0, 0] = -0.1
    assert not explain("ig_gain", cnn, below).values[:, :, 0, 0].any()


def test_gain_of_a_product_is_the_integral_along_its_own_path():
    """F = product of two cells: the quiet cell moves only in the last part of the fade-in."""

    class Product(nn.Module):
        def forward(self, inputs):
            return (inputs[:, 0] * inputs[:, 1])[:, None]

    inputs = torch.tensor([[1.0, 0.4]], dtype=torch.float64)
    axes = {"scale": toys.SCALE}
    found = explain("ig_gain", Product(), inputs, axes=axes, n_steps=400).values
    # cell 0 runs over u in [0, 1], cell 1 is max(u - 0.6, 0): integrals of u - 0.6 and of u
    expected = torch.tensor([[0.5 * 0.4**2, 0.5 * (1 - 0.6**2)]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    straight = explain("ig_silence", Product(), inputs, axes=axes).values
    torch.testing.assert_close(straight, torch.full((1, 2), 0.2, dtype=torch.float64))


def through_istft(model, inputs, baseline, target, win_length, n_steps):
    """The virtual layer built out: leaves are the real and imaginary parts of every bin."""
    from numpy.polynomial.legendre import leggauss

    hop, n_samples = win_length // 2, inputs.shape[-1]
    window = torch.hann_window(win_length, dtype=torch.float64).sqrt()

    def analyse(sound):
        return torch.view_as_real(torch.fft.rfft(frames_of(sound, win_length), dim=2))

    def synthesise(parts):
        frames = torch.fft.irfft(torch.view_as_complex(parts), n=win_length, dim=2) * window
        sound = torch.zeros(len(parts), hop * (frames.shape[1] + 1), dtype=torch.float64)
        for number in range(frames.shape[1]):
            sound[:, number * hop : number * hop + win_length] += frames[:, number]
        return sound[:, hop : hop + n_samples]

    torch.testing.assert_close(synthesise(analyse(inputs)), inputs, rtol=0, atol=1e-12)
    difference = analyse(inputs) - analyse(baseline)
    total = torch.zeros_like(difference)
    for node, weight in zip(*leggauss(n_steps), strict=True):
        parts = (analyse(baseline) + (1 + node) / 2 * difference).requires_grad_()
        values = target(model(synthesise(parts)), torch.arange(len(inputs)))
        total += weight / 2 * torch.autograd.grad(values.sum(), parts)[0]
    return (difference * total).sum(3).transpose(1, 2)


@pytest.mark.parametrize("win_length", [16, 64])
def test_closed_form_equals_autograd_through_an_inverse_stft(win_length):
    model, inputs, target = WaveformNet(), waveforms(), targets.ClassLogit((0, 1, 1))
    baseline = 0.1 * waveforms(6)[3:]
    result = registry.load("ig_tf")(
        model, inputs, target, baseline=baseline[:, None], item_seeds=seed_array(range(3)),
        n_steps=8, win_length=win_length,
    )  # fmt: skip
    expected = through_istft(model, inputs, baseline, target, win_length, 8)
    assert result.axes == ("freq", "time") and result.values.shape == expected.shape
    torch.testing.assert_close(result.values, expected, rtol=0, atol=1e-9)
    usual = registry.load("integrated_gradients")(
        model, inputs, target, baseline=baseline[:, None], item_seeds=seed_array(range(3)),
        n_steps=8,
    )  # fmt: skip
    torch.testing.assert_close(result.values.sum((1, 2)), usual.values.sum(1), rtol=0, atol=1e-9)
    change = evaluate(model, inputs, target) - evaluate(model, baseline, target)
    torch.testing.assert_close(
        result.completeness_error, (usual.values.sum(1) - change).abs() / change.abs()
    )


def test_a_tone_is_found_in_its_bin():
    time = torch.arange(256, dtype=torch.float64)
    tone = torch.sin(2 * torch.pi * 8 / 64 * time)
    found = relevance(tone, tone, 64)
    assert found.shape == (33, 9) and found.sum(1).argmax() == 8
    assert found.sum().item() == pytest.approx(float(tone @ tone), abs=1e-9)
    assert found[7:10, 1:-1].sum() / found[:, 1:-1].sum() > 0.99


def test_time_frequency_maps_read_audionet():
    with rng.forked(0, "audionet"):
        model = AudioNet(3, width=0.05, n_samples=512).double().eval()
    inputs = waveforms(3, 512)[:, None]
    axes = {"scale": {"silence": 0.0}}
    result = explain("ig_tf", model, inputs, axes=axes, n_steps=64, win_length=64)
    assert result.values.shape == (3, 33, 17) and result.completeness_error.median() < 0.01


def test_waveform_maps_say_what_they_need(cnn):
    with pytest.raises(ExplainError, match="need waveforms"):
        explain("ig_tf", cnn, clips())
    axes = {"scale": {"silence": 0.0}}
    with pytest.raises(ExplainError, match="even number"):
        explain("ig_tf", WaveformNet(), waveforms(), axes=axes, win_length=33)
    with pytest.raises(ExplainError, match="map is on frequency and time"):
        registry.load("ig_tf")(
            WaveformNet(), waveforms(), targets.ClassLogit((0,) * 3),
            baseline=torch.zeros(1, 1, 200), item_seeds=seed_array(range(3)),
            segments=torch.zeros(200, dtype=torch.int64),
        )  # fmt: skip


def blurred(inputs, along, sigma=12.0):
    """Written out: every cell the mean of its neighbours, weighted by the distance."""
    result = inputs.clone()
    for axis in {"freq": [2], "time": [3], "both": [2, 3]}[along]:
        source = result.clone()
        size = inputs.shape[axis]
        for cell in range(size):
            weights = torch.exp(-0.5 * ((torch.arange(size).double() - cell) / sigma) ** 2)
            mean = torch.tensordot(source, weights / weights.sum(), ([axis], [0]))
            result.select(axis, cell).copy_(mean)
    return result


@pytest.mark.parametrize(
    ("name", "along"), [("ig_blur_f", "freq"), ("ig_blur_t", "time"), ("ig_blur_ft", "both")]
)
def test_blur_sums_to_the_change_from_the_blurred_input(name, along, cnn):
    inputs, target = clips(16), targets.predicted(cnn, clips(16))
    result = explain(name, cnn, inputs, target, n_steps=128)
    change = evaluate(cnn, inputs, target) - evaluate(cnn, blurred(inputs, along), target)
    missing = (result.values.sum((1, 2, 3)) - change).abs() / change.abs()
    torch.testing.assert_close(result.completeness_error, missing, rtol=1e-6, atol=1e-9)
    assert missing.median() < 0.01
    model = toys.Linear()
    found = explain(name, model, inputs[:3], targets.ClassLogit((0, 1, 2)), n_steps=2).values
    expected = model.weights.detach() * (inputs - blurred(inputs, along))[:3]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_gaussian_matrix_agrees_with_scipy_away_from_the_borders():
    from scipy.ndimage import gaussian_filter1d

    values = np.zeros(64)
    values[28:36] = np.random.default_rng(0).normal(size=8)
    found = gaussian_matrix(64, torch.tensor([0.0, 2.0]))
    assert torch.equal(found[0], torch.eye(64).double())
    expected = gaussian_filter1d(values, 2.0, truncate=10)
    np.testing.assert_allclose(found[1].numpy() @ values, expected, atol=1e-9)


def test_smoothing_keeps_the_sum_and_blunts_single_cells(cnn):
    inputs = clips()
    for name, rough in (("ig_smooth", "ig_silence"), ("ig_smooth_noisefloor", "ig_noisefloor")):
        smooth, sharp = (explain(one, cnn, inputs) for one in (name, rough))
        torch.testing.assert_close(smooth.values.sum((1, 2, 3)), sharp.values.sum((1, 2, 3)))
        torch.testing.assert_close(smooth.completeness_error, sharp.completeness_error)
        torch.testing.assert_close(smooth.values, spread(sharp.values, 1.0))
        assert (smooth.values.flatten(1).norm(dim=1) < sharp.values.flatten(1).norm(dim=1)).all()
    same = explain("ig_smooth", cnn, inputs, smoothing_bins=0.0).values
    torch.testing.assert_close(same, explain("ig_silence", cnn, inputs).values)


def test_noise_floor_map_is_one_gradient_for_each_draw(cnn):
    inputs, target = clips(2), targets.ClassLogit((1, 2))
    draws = baseline_of(registry.info("ig_noisefloor"), inputs)
    assert draws.shape[1] == 32
    found = explain("ig_noisefloor", cnn, inputs, target)
    for item in range(2):
        order, alphas = draw_positions(item, 32, 32, stratified=True)
        assert ((alphas * 32).floor() == torch.arange(32)).all()
        assert sorted(order.tolist()) == list(range(32))
        total = 0
        for draw, alpha in zip(draws[item][order], alphas, strict=True):
            point = draw + alpha * (inputs[item] - draw)
            grad, _ = gradient(cnn, point[None], target, torch.tensor([item]))
            total = total + (inputs[item] - draw) * grad[0] / 32
        torch.testing.assert_close(found.values[item], total, rtol=0, atol=1e-12)
    exact = registry.load("integrated_gradients")(
        cnn, inputs, target, baseline=draws, item_seeds=seed_array(range(2)), n_steps=32
    ).values  # fmt: skip
    closeness = torch.nn.functional.cosine_similarity(exact.flatten(1), found.values.flatten(1))
    assert closeness.min() > 0.95


def test_number_of_draws_is_the_users_then_the_rows_then_the_engines():
    assert n_draws(registry.info("ig_noisefloor"), {"n_baseline_draws": 5}) == 5
    assert n_draws(registry.info("ig_noisefloor"), {}) == 32
    assert n_draws(registry.info("integrated_gradients"), {}) == 8


def test_wiener_gain_is_that_of_the_powers_and_lost_mass_is_reported(cnn):
    inputs = clips(16)
    gain = wiener_gain(inputs, 80.0)
    power = 10 ** (inputs * 8)
    noise = 10 ** (torch.quantile(inputs, 0.1, dim=-1, keepdim=True) * 8)
    torch.testing.assert_close(gain, (1 - noise / power).clamp_min(0))
    weighted, whole = (explain(name, cnn, inputs) for name in ("ig_snr", "ig_silence"))
    torch.testing.assert_close(weighted.values, whole.values * gain)
    soft = inputs * 0.1 + 0.5  # 6 dB between the quietest and the loudest cell
    errors = [explain(name, cnn, soft).completeness_error for name in ("ig_silence", "ig_snr")]
    assert errors[1].median() > 0.1 > 2 * errors[0].median()


def guided_reference(x, start, grad_of, n_steps, fraction, max_dist):
    """Algorithm of the paper as in the authors' library, in NumPy."""
    point, total = start.copy(), np.zeros_like(x)
    whole = np.abs(x - start).sum()
    for step in range(n_steps):
        actual = grad_of(point)
        grad = actual.copy()
        alpha = (step + 1) / n_steps
        low = start + (x - start) * max(alpha - max_dist, 0)
        high = start + (x - start) * min(alpha + max_dist, 1)
        wanted = whole * (1 - alpha)
        gamma = np.inf
        while gamma > 1:
            before = point.copy()
            with np.errstate(divide="ignore", invalid="ignore"):
                reached = np.where(x != start, (point - start) / (x - start), 1.0)
            late = reached < max(alpha - max_dist, 0)
            point[late] = low[late]
            distance = np.abs(x - point).sum()
            if np.isclose(wanted, distance, rtol=1e-9, atol=1e-9):
                total += (point - before) * actual
                break
            grad[point == high] = np.inf
            threshold = np.quantile(np.abs(grad), fraction, method="lower")
            chosen = (np.abs(grad) <= threshold) & (grad != np.inf)
            reach = (np.abs(point - high) * chosen).sum()
            gamma = (distance - wanted) / reach if reach > 0 else np.inf
            moved = high if gamma > 1 else point + (high - point) * gamma
            point[chosen] = moved[chosen]
            total += (point - before) * actual
    return total


@pytest.mark.parametrize(("fraction", "max_deviation"), [(0.25, 0.02), (0.1, 0.3), (0.5, 1.0)])
def test_guided_equals_the_authors_algorithm(fraction, max_deviation, cnn):
    inputs, target = clips(2), targets.ClassLogit((1, 2))
    found = guided(
        cnn, inputs, target, baseline=torch.zeros(1, 1, *toys.SHAPE), item_seeds=seed_array([0, 1]),
        n_steps=12, fraction=fraction, max_deviation=max_deviation,
    )  # fmt: skip
    for item in range(2):

        def grad_of(point, item=item):
            grads, _ = gradient(cnn, torch.from_numpy(point)[None], target, torch.tensor([item]))
            return grads[0].numpy()

        x = inputs[item].numpy()
        expected = guided_reference(x, np.zeros_like(x), grad_of, 12, fraction, max_deviation)
        np.testing.assert_allclose(found.values[item].numpy(), expected, rtol=0, atol=1e-9)


def test_guided_nears_completeness_and_without_deviation_the_straight_line(cnn):
    inputs = clips(8)
    errors = [
        explain("ig_guided", cnn, inputs, n_steps=n).completeness_error.median() for n in (8, 128)
    ]
    assert errors[1] < errors[0] and errors[1] < 0.02
    straight = explain("ig_guided", cnn, inputs, n_steps=256, max_deviation=0.0).values
    expected = explain("ig_silence", cnn, inputs).values
    torch.testing.assert_close(straight, expected, rtol=0, atol=0.02 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", ["bark", "octave", "harmonic", "onset_steady_decay"])
def test_groups_keep_the_sum(kind, cnn):
    inputs = clips(8)
    grouped = explain("ig_band", cnn, inputs, segmentation=kind)
    whole = explain("ig_silence", cnn, inputs)
    torch.testing.assert_close(
        grouped.values.sum((1, 2, 3)), whole.values.sum((1, 2, 3)), rtol=0, atol=1e-9
    )
    torch.testing.assert_close(grouped.completeness_error, whole.completeness_error)
    labels = segments.make(kind, inputs, AXES).expand(inputs.shape)
    for item_labels, sums, values in zip(labels, whole.values, grouped.values, strict=True):
        for label in item_labels.unique():
            assert values[item_labels == label].std(correction=0) < 1e-12
            torch.testing.assert_close(
                values[item_labels == label].sum(), sums[item_labels == label].sum()
            )


def test_bad_numbers_are_refused(cnn):
    for name in ("ig_gain", "ig_blur_ft", "ig_guided"):
        with pytest.raises(ExplainError, match=r"n_steps 0.*at least 1"):
            explain(name, cnn, clips(), n_steps=0)
    with pytest.raises(ExplainError, match="need shares"):
        explain("ig_guided", cnn, clips(), fraction=1.5)
    with pytest.raises(ExplainError, match="db_per_unit 0"):
        explain("ig_snr", cnn, clips(), db_per_unit=0)
    for name in ("ig_blur_t", "ig_smooth"):
        with pytest.raises(ExplainError, match="freq, time"):
            explain(name, WaveformNet(), waveforms(), axes={"scale": {"silence": 0.0}})

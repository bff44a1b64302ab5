"""Training: exact resume after a kill, randomness by item, early stop, jobs side by side."""

import signal
import subprocess
import sys
import textwrap
import threading
from functools import partial
from pathlib import Path

import pytest
import torch

from sonolens import fit, rng
from sonolens.models import checkpoint
from sonolens.params import Runtime, Tracking
from sonolens.pipeline import owned

CONFIG = fit.FitConfig(
    epochs=3, batch_size=8, learning_rate=0.01, weight_decay=0.0, patience=3,
    augment=fit.Augment(time_shift=0.1, freq_mask=0.1, time_mask=0.1, freq_shift=0.05),
)  # fmt: skip
CPU = torch.device("cpu")


def part(name: str, n_items: int = 26) -> fit.Part:
    draw = rng.torch_generator(name)
    labels = torch.arange(n_items) % 2
    inputs = torch.rand(n_items, 1, 32, 32, generator=draw)
    inputs[labels == 1, :, :16] += 0.5
    return fit.Part(inputs, labels, tuple(f"{name}{index}" for index in range(n_items)))


def prepared(name: str = "seed0") -> fit.Prepared:
    with rng.forked(name):
        model = checkpoint.build("alexnet_small", n_classes=2, width=4)
    return fit.Prepared(model, part("train"), part("val", 10), CONFIG, rng.seed_for(name))


def train(folder: Path, config: fit.FitConfig = CONFIG, on_epoch=lambda row: None) -> fit.Fitted:
    job = prepared()
    return fit.fit(
        job.model,
        job.train,
        job.val,
        config,
        seed=job.seed,
        folder=folder,
        device=CPU,
        on_epoch=on_epoch,
    )


def equal(a: fit.Fitted, b: fit.Fitted) -> bool:
    return a.history == b.history and all(
        torch.equal(a.state[name], b.state[name]) for name in a.state
    )


def runtime(engine: str, workers: int = 2) -> Runtime:
    return Runtime(
        threads=1, workers=workers, engine=engine, dask_address=None, device="cpu",
        tracking=Tracking(enabled=False, system_metrics_interval_s=1),
    )  # fmt: skip


def test_learns_and_reports_each_epoch(tmp_path):
    rows = []
    result = train(tmp_path, on_epoch=rows.append)
    assert rows == result.history
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert result.history[result.best_epoch]["val_loss"] == min(row["val_loss"] for row in rows)


def test_global_randomness_is_untouched(tmp_path):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = train(tmp_path / "a")
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(77)
    assert equal(first, train(tmp_path / "b"))


class Killed(BaseException):
    pass


def test_resume_gives_the_same_weights_and_history(tmp_path):
    def stop(row):
        if row["epoch"] == 1:
            raise Killed

    undisturbed = train(tmp_path / "a")
    with pytest.raises(Killed):
        train(tmp_path / "b", on_epoch=stop)
    seen = []
    resumed = train(tmp_path / "b", on_epoch=seen.append)
    assert equal(undisturbed, resumed)
    assert [row["epoch"] for row in seen] == [0, 1, 2]


def test_sigkill_in_an_epoch_then_retry(tmp_path):
    code = """
        import os, signal, sys
        from pathlib import Path
        sys.path[:0] = sys.argv[2:]
        from test_fit import train
        def stop(row):
            if row["epoch"] == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        train(Path(sys.argv[1]), on_epoch=stop)
    """
    here = [str(Path(__file__).parent), str(Path(fit.__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "b"), *here], check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "b" / "last.ckpt").exists()
    assert equal(train(tmp_path / "a"), train(tmp_path / "b"))


def test_early_stop_keeps_the_best_epoch(tmp_path):
    job = prepared()
    hopeless = fit.Part(job.val.inputs, 1 - job.val.labels, job.val.ids)
    config = fit.FitConfig(12, 8, 0.02, 0.0, 2)
    result = fit.fit(job.model, job.train, hopeless, config, seed=1, folder=tmp_path, device=CPU)
    assert len(result.history) < 12
    assert result.best_epoch == len(result.history) - 1 - config.patience


def test_jobs_are_the_same_under_every_engine_and_are_not_trained_twice(tmp_path, eager_workers):
    names = ["seed0", "seed1", "seed2"]
    rows = []
    results = {}
    for engine in ("serial", "loky"):
        results[engine] = fit.fit_jobs(
            prepared, names, folder=tmp_path / engine, runtime=runtime(engine),
            device=checkpoint.device, on_epoch=lambda name, row: rows.append((name, row["epoch"])),
        )  # fmt: skip
    assert all(equal(results["serial"][name], results["loky"][name]) for name in names)
    assert sorted(rows) == sorted(
        (name, epoch) for name in names for epoch in range(3) for _ in range(2)
    )
    again = fit.fit_jobs(
        partial(pytest.fail), names, folder=tmp_path / "serial", runtime=runtime("serial"),
        device=checkpoint.device, on_epoch=lambda name, row: None,
    )  # fmt: skip
    assert all(equal(again[name], results["serial"][name]) for name in names)


def test_a_second_training_of_the_same_waits_for_the_first(tmp_path, caplog):
    caplog.set_level("INFO")
    folder, rows = tmp_path / "shared", []
    second = threading.Thread(
        target=partial(
            fit.fit_jobs, prepared, ["seed0"], folder=folder, runtime=runtime("serial"),
            device=checkpoint.device, on_epoch=lambda name, row: rows.append(row["epoch"]),
        )
    )  # fmt: skip
    with owned(folder):
        second.start()
        while "shared.lock is held by another process; waiting for its end" not in caplog.text:
            assert second.is_alive()
            second.join(0.05)
        assert rows == []
    second.join()
    assert rows == [0, 1, 2]


def test_an_interrupt_in_an_epoch_stays_an_interrupt(tmp_path):
    def interrupt(row):
        raise KeyboardInterrupt("SIGINT")

    with pytest.raises(KeyboardInterrupt, match="SIGINT"):  # Lightning exits instead
        train(tmp_path, on_epoch=interrupt)


def test_too_few_items_and_infinite_loss_are_named(tmp_path):
    job = prepared()
    one = fit.Part(job.val.inputs[:1], job.val.labels[:1], job.val.ids[:1])
    with pytest.raises(ValueError, match="1 validation items"):
        fit.fit(job.model, job.train, one, CONFIG, seed=0, folder=tmp_path, device=CPU)
    broken = fit.Part(job.train.inputs * torch.nan, job.train.labels, job.train.ids)
    with pytest.raises(ValueError, match="not finite in epoch 0"):
        fit.fit(job.model, broken, job.val, CONFIG, seed=0, folder=tmp_path, device=CPU)


def test_augmentation_depends_on_the_item_alone():
    augment = CONFIG.augment
    inputs = part("train", 6).inputs
    draws = rng.numpy_generator("draws").random((6, 6))
    whole = augment(inputs, draws)
    assert torch.equal(whole[2:4], augment(inputs[2:4], draws[2:4]))
    assert whole.shape == inputs.shape
    assert not torch.equal(whole, inputs)
    assert torch.equal(fit.Augment()(inputs, draws), inputs)


def test_shift_moves_and_fills_with_silence():
    inputs = torch.ones(1, 1, 10, 10)
    moved = fit.Augment(time_shift=0.3)(inputs, torch.tensor([[0.0, 0, 0, 0.999, 0, 0]]).numpy())
    assert moved[0, 0, 0].tolist() == [0, 0, 0] + [1] * 7

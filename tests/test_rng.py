"""Randomness is a function of named parts and leaves the global generators alone."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonolens import rng

PARTS = st.lists(st.integers() | st.text(st.characters(codec="utf-8"), max_size=6), max_size=4)


def test_known_values_never_change():
    assert rng.seed_for(0, "a") == 7199636621922560063


@settings(max_examples=100)
@given(PARTS, PARTS)
def test_equal_parts_and_only_they_give_equal_seeds(a, b):
    assert (rng.seed_for(*a) == rng.seed_for(*b)) == (a == b)
    assert 0 <= rng.seed_for(*a) < 2**63


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((1,), ("1",)),
        ((1, 2), (2, 1)),
        ((12,), (1, 2)),
        (("ab",), ("a", "b")),
        (("a\x1fstr:b",), ("a", "b")),
        (("a\x1f", "b"), ("a", "\x1fb")),
        (("",), ()),
        (("int:1",), (1,)),
    ],
)
def test_parts_are_not_confused(a, b):
    assert rng.seed_for(*a) != rng.seed_for(*b)


@pytest.mark.parametrize("number", [np.int64(3), np.int32(3), np.uint8(3)])
def test_a_number_from_a_table_counts_as_the_number(number):
    assert rng.seed_for(number, np.str_("a")) == rng.seed_for(3, "a")


@pytest.mark.parametrize("part", [1.0, None, True, b"a", (1,), np.bool_(True)])
def test_other_types_are_refused(part):
    with pytest.raises(TypeError, match="need integers and strings"):
        rng.seed_for(0, part)


def test_a_seed_is_the_same_in_every_process():
    code = "from sonolens import rng; print(rng.seed_for(5, 'é', 'epoch', 2))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert int(answer.stdout) == rng.seed_for(5, "é", "epoch", 2)


def test_draws_do_not_depend_on_order_or_on_global_state():
    items = [f"item{number}" for number in range(5)]
    forward = {item: rng.numpy_generator(1, item).random(3).tolist() for item in items}
    np.random.seed(9)  # noqa: NPY002
    torch.manual_seed(9)
    backward = {item: rng.numpy_generator(1, item).random(3).tolist() for item in reversed(items)}
    assert forward == backward
    assert len({tuple(draw) for draw in forward.values()}) == len(items)
    first = torch.rand(4, generator=rng.torch_generator(1, "a"))
    assert torch.equal(first, torch.rand(4, generator=rng.torch_generator(1, "a")))
    assert not torch.equal(first, torch.rand(4, generator=rng.torch_generator(1, "b")))


def state() -> tuple:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return random.getstate(), kind, keys.tolist(), tuple(rest), torch.get_rng_state().tolist()


def global_draws() -> tuple:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_forked_seeds_all_three_and_restores_them():
    before = state()
    with rng.forked(1, "init"):
        first = global_draws()
    assert state() == before
    global_draws()
    with rng.forked(1, "init"):
        assert global_draws() == first
    with rng.forked(2, "init"):
        second = global_draws()
    assert all(a != b for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_forked_restores_after_an_exception(error):
    before = state()
    with pytest.raises(error), rng.forked(3):  # noqa: PT012
        global_draws()
        raise error
    assert state() == before


def test_forked_nests():
    with rng.forked("outer"):
        expected = [global_draws(), global_draws()]
    with rng.forked("outer"):
        first = global_draws()
        with rng.forked("inner"):
            global_draws()
        assert [first, global_draws()] == expected

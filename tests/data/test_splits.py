from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonolens.data import splits
from sonolens.data.corpora import audiomnist
from sonolens.data.splits import Fold, SplitError
from sonolens.store import StoreError


def table(n_persons=6, n_classes=4, n_items=5, label_of_person=None):
    """Every person says every class n_items times, or has one label if label_of_person says so."""
    rows = [
        (f"c/{label}_p{person:02d}_{index}", f"p{person:02d}", label, f"L{label}")
        for person in range(n_persons)
        for label in (range(n_classes) if label_of_person is None else [label_of_person(person)])
        for index in range(n_items)
    ]
    frame = pd.DataFrame(rows, columns=["item_id", "person_id", "class_index", "label"]).assign(
        kept=True
    )
    return frame.sort_values("item_id", ignore_index=True)


def persons_in(ids):
    return {item_id.split("_")[1] for item_id in ids}


MAKERS = {
    "grouped": lambda frame: splits.grouped_folds(frame, 3, 0, "person"),
    "grouped_item": lambda frame: splits.grouped_folds(frame, 3, 0, "item"),
    "lopo": lambda frame: splits.grouped_folds(frame, 99, 0, "person"),
    "leaky": lambda frame: splits.leaky_folds(frame, 3, 0),
}


def test_an_official_test_part_is_the_test_part():
    frame = table()
    is_test = frame["person_id"].isin(["p01", "p04"])
    fold = splits.held_out_fold(frame, is_test, 0)
    assert set(fold.test) == set(frame.loc[is_test, "item_id"])
    assert not {"p01", "p04"} & (persons_in(fold.train) | persons_in(fold.val))
    assert len(fold.val) == pytest.approx(0.15 * len(frame[~is_test]), abs=4)
    order = frame.sample(frac=1, random_state=1)
    assert splits.held_out_fold(order, is_test.loc[order.index], 0) == fold


@pytest.mark.parametrize("name", MAKERS)
def test_folds_cover_everything_once_and_ignore_the_order_of_rows(name):
    frame = table()
    folds = MAKERS[name](frame)
    assert Counter(item_id for fold in folds for item_id in fold.test) == Counter(frame["item_id"])
    for fold in folds:
        assert sorted(fold.train + fold.val + fold.test) == list(frame["item_id"])
        assert all(list(part) == sorted(part) for part in fold)
    assert MAKERS[name](frame.sample(frac=1, random_state=3)) == folds
    assert (
        MAKERS[name](frame.iloc[::-1].set_index("item_id", drop=False).rename_axis(None)) == folds
    )


@pytest.mark.parametrize("name", ["grouped_item", "leaky"])
def test_another_seed_deals_otherwise(name):
    again = {
        "grouped_item": splits.grouped_folds(table(), 3, 1, "item"),
        "leaky": splits.leaky_folds(table(), 3, 1),
    }
    assert again[name] != MAKERS[name](table())


def test_validation_persons_are_the_next_block():
    folds = splits.grouped_folds(table(), 3, 0, "person")
    for index, fold in enumerate(folds):
        assert fold.val == folds[(index + 1) % 3].test
        assert not persons_in(fold.train) & (persons_in(fold.val) | persons_in(fold.test))
    splits.check(folds, table(), "person")


def test_validation_items_are_a_stratified_share_of_the_training_persons():
    frame = table(n_items=20)
    folds = splits.grouped_folds(frame, 3, 0, "item")
    for fold in folds:
        assert not (persons_in(fold.train) | persons_in(fold.val)) & persons_in(fold.test)
        assert set(Counter(item_id.split("_")[0] for item_id in fold.val).values()) == {
            12
        }  # 15 % of 4 * 20
    splits.check(folds, frame, "test_person")
    with pytest.raises(SplitError, match=r"fold 0: person p\d\d is in train and val"):
        splits.check(folds, frame, "person")


def test_leave_one_person_out_goes_by_name():
    folds = splits.grouped_folds(table(n_persons=4), 4, 0, "person")
    assert [persons_in(fold.test) for fold in folds] == [{"p00"}, {"p01"}, {"p02"}, {"p03"}]
    assert [persons_in(fold.val) for fold in folds] == [{"p01"}, {"p02"}, {"p03"}, {"p00"}]


def test_persons_are_dealt_evenly_by_size():
    sizes = [40, 30, 20, 10, 5, 5, 5, 5]
    rows = [(f"c/x_p{p}_{i}", f"p{p}", i % 2) for p, size in enumerate(sizes) for i in range(size)]
    frame = pd.DataFrame(rows, columns=["item_id", "person_id", "class_index"]).assign(kept=True)
    folds = splits.grouped_folds(frame, 4, 0, "item")
    assert {len(persons_in(fold.test)) for fold in folds} == {2}
    assert [len(fold.test) for fold in folds] == [45, 35, 25, 15]


def test_person_labels_are_dealt_for_themselves():
    frame = table(n_persons=30, label_of_person=lambda person: int(person % 3 == 0))
    for fold in splits.grouped_folds(frame, 5, 0, "person"):
        assert Counter(item_id[2] for item_id in fold.test) == {"0": 20, "1": 10}


def test_leaky_folds_are_even_and_stratified_and_leak():
    frame = table(n_persons=5, n_items=7)
    folds = splits.leaky_folds(frame, 4, 0)
    assert {len(fold.test) for fold in folds} == {35}
    for fold in folds:
        assert (
            max(Counter(i[2] for i in fold.test).values())
            - min(Counter(i[2] for i in fold.test).values())
            <= 1
        )
    splits.check(folds, frame, "item")
    with pytest.raises(SplitError, match="leaky, fold 0: person p00 is in train and"):
        splits.check(folds, frame, "person", "leaky")


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(3, 12), min_size=3, max_size=9),
    n_folds=st.integers(3, 12),
    val_unit=st.sampled_from(["person", "item"]),
    seed=st.integers(0, 5),
)
def test_no_person_is_ever_tested_and_trained_on(sizes, n_folds, val_unit, seed):
    rows = [
        (f"c/{i % 2}_p{p}_{i}", f"p{p}", i % 2) for p, size in enumerate(sizes) for i in range(size)
    ]
    frame = pd.DataFrame(rows, columns=["item_id", "person_id", "class_index"]).assign(kept=True)
    folds = splits.grouped_folds(frame, n_folds, seed, val_unit)
    assert len(folds) == min(n_folds, len(sizes))
    splits.check(folds, frame, "person" if val_unit == "person" else "test_person")
    per_fold = [len(persons_in(fold.test)) for fold in folds]
    assert max(per_fold) - min(per_fold) <= 1


def test_skipped_items_take_part_in_nothing():
    frame = table()
    frame.loc[frame["person_id"] == "p03", "kept"] = False
    for make in MAKERS.values():
        assert "p03" not in persons_in(
            item_id for fold in make(frame) for part in fold for item_id in part
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: splits.grouped_folds(table(1), 3, 0, "item"), r"1 person\(s\) \(p00\), need 2"),
        (
            lambda: splits.grouped_folds(table(2), 3, 0, "person"),
            r"2 person\(s\) \(p00, p01\), need 3",
        ),
        (lambda: splits.grouped_folds(table(6), 2, 0, "person"), "n_folds: 2, need at least 3"),
        (lambda: splits.leaky_folds(table(6), 2, 0), "n_folds: 2, need at least 3"),
        (
            lambda: splits.leaky_folds(table(2, n_items=1), 3, 0),
            r"class L0 has 2 example\(s\), need 3",
        ),
        (lambda: splits.leaky_folds(table().assign(kept=False), 3, 0), "no kept items"),
        (
            lambda: splits.leaky_folds(pd.concat([table(), table()]), 3, 0),
            "is twice in the manifest",
        ),
    ],
)
def test_impossible_splits_say_why(make, message):
    with pytest.raises(SplitError, match=message):
        make()


def test_a_class_with_one_example_is_named():
    frame = table(3)
    extra = pd.DataFrame(
        {
            "item_id": ["c/9_p00_0"],
            "person_id": "p00",
            "class_index": 9,
            "label": "L9",
            "kept": True,
        }
    )
    frame = pd.concat([frame, extra])
    with pytest.raises(SplitError, match=r"class L9 has 1 example\(s\)"):
        splits.leaky_folds(frame, 3, 0)
    with pytest.raises(SplitError, match=r"class L9 has 1 example\(s\)"):
        splits.grouped_folds(frame, 3, 0, "item")
    with pytest.raises(SplitError, match="class L9 is in no training item"):
        splits.check(splits.grouped_folds(frame, 3, 0, "person"), frame, "person")


FOLD = Fold(("c/0_p00_0", "c/1_p00_0"), ("c/0_p01_0",), ("c/0_p02_0",))


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        (FOLD._replace(val=()), "split, fold 0, val: empty"),
        (FOLD._replace(val=("c/0_p00_0",)), "item c/0_p00_0 is in train and val"),
        (FOLD._replace(test=("c/0_p01_1",)), "person p01 is in val and test"),
        (FOLD._replace(test=("c/nobody",)), "item c/nobody is not among the kept items"),
        (FOLD._replace(test=("c/0_p02_0",) * 2), "item c/0_p02_0 is in it twice"),
        (FOLD._replace(test=("c/3_p02_0",)), "class L3 is in no training item"),
    ],
)
def test_check_names_what_is_wrong(fold, message):
    splits.check([FOLD], table(), "person")
    with pytest.raises(SplitError, match=message):
        splits.check([fold], table(), "person")
    with pytest.raises(SplitError, match="no folds"):
        splits.check([], table(), "item")


def test_splits_json_round_trip_and_damage(tmp_path):
    protocols = {name: make(table()) for name, make in MAKERS.items()}
    splits.write(tmp_path / "splits.json", protocols)
    assert splits.read(tmp_path / "splits.json") == protocols
    (tmp_path / "splits.json").write_text('{"speaker": [{"train": []}]}')
    with pytest.raises(StoreError, match="splits.json: not a file of splits"):
        splits.read(tmp_path / "splits.json")


@pytest.fixture(scope="module")
def sixty():
    """A manifest of the shape of AudioMNIST: 60 persons x 10 digits x 50."""
    rows = [
        (f"a/{d}_{p:02d}_{i}", f"{p:02d}", d)
        for p in range(1, 61)
        for d in range(10)
        for i in range(50)
    ]
    return pd.DataFrame(rows, columns=["item_id", "person_id", "class_index"]).assign(kept=True)


@pytest.mark.parametrize(("task", "sizes"), [("digit", (36, 12, 12)), ("sex", (12, 6, 6))])
def test_published_folds_have_the_published_sizes_and_share_no_person(sixty, task, sizes):
    folds = splits.published_folds(sixty, audiomnist.published_blocks(task))
    assert len(folds) == {"digit": 5, "sex": 4}[task]
    for fold in folds:
        assert tuple(len(part) for part in fold) == tuple(500 * size for size in sizes)
    splits.check(folds, sixty, "person")
    tested = Counter(item_id.split("_")[1] for fold in folds for item_id in fold.test)
    assert set(tested.values()) == {500}
    assert len(tested) == {"digit": 60, "sex": 24}[task]


def test_published_folds_of_a_partial_corpus(sixty):
    few = sixty[sixty["person_id"].isin(["26", "12", "43", "36", "28"])]
    assert len(splits.published_folds(few, audiomnist.published_blocks("digit"))) == 5
    with pytest.raises(
        SplitError, match="published fold 0: no recording of the val persons .*grouped"
    ):
        splits.published_folds(few[few["person_id"] != "12"], audiomnist.published_blocks("digit"))


def test_thirty_thousand_items_take_seconds(sixty):
    start = time.process_time()
    grouped = splits.grouped_folds(sixty, 5, 0, "item")
    leaky = splits.leaky_folds(sixty, 5, 0)
    splits.check(grouped, sixty, "test_person")
    splits.check(leaky, sixty, "item")
    assert time.process_time() - start < 5
    assert {len(fold.test) for fold in grouped} == {6000} == {len(fold.test) for fold in leaky}


def test_dealing_is_pinned():
    """Folds of published numbers must not move under anyone."""
    folds = splits.grouped_folds(table(), 3, 0, "person")
    assert [sorted(persons_in(fold.test)) for fold in folds] == PINNED
    assert np.array([len(fold.train) for fold in folds]).tolist() == [40, 40, 40]


PINNED = [["p04", "p05"], ["p01", "p02"], ["p00", "p03"]]

"""Train, validation and test parts as functions of (seed, item ids), never of the order of rows.

`grouped_folds` keeps persons apart; `leaky_folds` does not and exists to show what that is worth.
Rows with `kept` False take part in nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from sonolens import rng
from sonolens.store import CURE, StoreError, read_json, write_json

PARTS = ("train", "val", "test")
VAL_SHARE = 0.15

ValUnit = Literal["person", "item"]
CheckUnit = Literal["person", "test_person", "item"]
PersonBlocks = Mapping[str, Sequence[str]]


class SplitError(ValueError):
    """A split that cannot be made, or leaks; the message names the person, item or class."""


class Fold(NamedTuple):
    """Item ids of the three parts, each sorted."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


def grouped_folds(manifest: pd.DataFrame, n_folds: int, seed: int, val_unit: ValUnit) -> list[Fold]:
    """Folds whose test persons are in no other part; each person is tested exactly once.

    Persons are dealt so that blocks are equal in persons, then in items; where each person has one
    label (diagnosis, sex) every label is dealt for itself. `n_folds` at or above the number of
    persons means leave one person out, in the order of person ids.

    Parameters
    ----------
    manifest
        Columns item_id, person_id, class_index, kept.
    n_folds
        Number of blocks of persons.
    seed
        Breaks ties between persons of equal size, and draws the validation items.
    val_unit
        ``person``: the next block of persons; ``item``: 15 % of the other persons' items, by class.

    Returns
    -------
    list of Fold
        One per block.

    Raises
    ------
    SplitError
        If there are too few persons or folds, or a class with fewer than two training items for
        ``item``.
    """
    table = _kept(manifest)
    persons = sorted(table["person_id"].unique())
    least = 3 if val_unit == "person" else 2
    if len(persons) < least:
        raise SplitError(
            f"{len(persons)} person(s) ({', '.join(persons[:3])}), need {least} to keep train, "
            f"validation and test apart by person (val_unit: {val_unit}); add recordings of "
            "other persons"
        )
    if n_folds < least:
        raise SplitError(f"n_folds: {n_folds}, need at least {least} with val_unit: {val_unit}")
    if n_folds >= len(persons):
        block_of = {person: index for index, person in enumerate(persons)}
    else:
        block_of = _deal_persons(table, n_folds, seed)
    n_blocks = min(n_folds, len(persons))
    blocks = table["person_id"].map(block_of).to_numpy()
    if val_unit == "person":
        return _rotate(table, blocks, n_blocks)
    keys = _keys(table["item_id"], seed, "val")
    return [_with_val_items(table, blocks == index, keys) for index in range(n_blocks)]


def leaky_folds(manifest: pd.DataFrame, n_folds: int, seed: int) -> list[Fold]:
    """Folds dealt item by item within each class, whoever speaks; the next block validates.

    Raises
    ------
    SplitError
        If `n_folds` is below 3, or a class has fewer than 3 items: one of its parts would lack it.
    """
    table = _kept(manifest)
    if n_folds < 3:
        raise SplitError(
            f"n_folds: {n_folds}, need at least 3: one to test, one to validate, one to train"
        )
    _refuse_rare_classes(table, 3, "a part would lack it")
    keys = _keys(table["item_id"], seed, "leaky")
    order = np.lexsort((keys, table["class_index"].to_numpy()))
    blocks = np.empty(len(table), np.int64)
    # Dealing goes on from class to class, so that blocks differ by one item at most.
    blocks[order] = np.arange(len(table)) % n_folds
    return _rotate(table, blocks, n_folds)


def held_out_fold(manifest: pd.DataFrame, is_test: pd.Series, seed: int) -> Fold:
    """The one fold of a corpus with an official test part; 15 % of the other items validate.

    Parameters
    ----------
    manifest
        As for `grouped_folds`.
    is_test
        Boolean, by row of the manifest.
    seed
        Draws the validation items, by class.

    Raises
    ------
    SplitError
        If a class has fewer than two training items.
    """
    table = _kept(manifest.assign(_is_test=is_test))
    keys = _keys(table["item_id"], seed, "val")
    return _with_val_items(table, table["_is_test"].to_numpy(bool), keys)


def published_folds(manifest: pd.DataFrame, blocks: Sequence[PersonBlocks]) -> list[Fold]:
    """Folds of a publication.

    Parameters
    ----------
    manifest
        As for `grouped_folds`. Persons in no block are left out; persons that lack recordings too.
    blocks
        One mapping per fold from train, val, test to person ids.

    Raises
    ------
    SplitError
        If a part has no recording left.
    """
    table = _kept(manifest)
    person = table["person_id"]
    ids = table["item_id"].to_numpy(object)
    folds = []
    for index, block in enumerate(blocks):
        parts = {part: tuple(ids[person.isin(list(block[part])).to_numpy()]) for part in PARTS}
        empty = [part for part in PARTS if not parts[part]]
        if empty:
            raise SplitError(
                f"published fold {index}: no recording of the {empty[0]} persons "
                f"{', '.join(block[empty[0]])}; add them, or set speaker_folds: grouped"
            )
        folds.append(Fold(**parts))
    return folds


def check(
    folds: Sequence[Fold], manifest: pd.DataFrame, unit: CheckUnit, name: str = "split"
) -> None:
    """Refuse folds that leak or cannot be learned from.

    Parameters
    ----------
    folds, manifest
        What was split, and into what.
    unit
        ``person``: no person in two parts; ``test_person``: no test person in another part
        (validation by item); ``item``: no item in two parts, which always holds.
    name
        Of the protocol, for messages.

    Raises
    ------
    SplitError
        That names fold, parts and person, item or class. Also for empty parts, unknown items, items
        twice in a part, and classes of a fold that its training part lacks.
    """
    if not folds:
        raise SplitError(f"{name}: no folds")
    table = _kept(manifest)
    rows_of = pd.Index(table["item_id"].to_numpy(object))
    persons, person_names = pd.factorize(table["person_id"])
    classes = table["class_index"].to_numpy(np.int64)
    ids = table["item_id"].to_numpy(object)
    for index, fold in enumerate(folds):
        where = f"{name}, fold {index}"
        rows = {part: _rows(rows_of, getattr(fold, part), f"{where}, {part}") for part in PARTS}
        for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
            shared = np.intersect1d(rows[first], rows[second])
            if len(shared):
                raise SplitError(f"{where}: item {ids[shared[0]]} is in {first} and {second}")
            if unit == "item" or (unit == "test_person" and second == "val"):
                continue
            shared = np.intersect1d(persons[rows[first]], persons[rows[second]])
            if len(shared):
                who = person_names[shared[0]]
                raise SplitError(f"{where}: person {who} is in {first} and {second}")
        everything = np.concatenate([rows[part] for part in PARTS])
        missing = np.setdiff1d(classes[everything], classes[rows["train"]])
        if len(missing):
            raise SplitError(
                f"{where}: class {_label(table, missing[0])} is in no training item, though val or "
                "test have it; add recordings of it by more persons, or set another n_folds"
            )


def write(path: Path, protocols: Mapping[str, Sequence[Fold]]) -> None:
    """splits.json: protocol to list of {train, val, test}."""
    write_json(
        path, {name: [fold._asdict() for fold in folds] for name, folds in protocols.items()}
    )


def read(path: Path) -> dict[str, list[Fold]]:
    """Inverse of `write`. Raises StoreError that names the file."""
    values = read_json(path)
    try:
        return {name: [_fold(parts) for parts in folds] for name, folds in values.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: not a file of splits ({error!r}); {CURE}") from error


def _fold(parts: Mapping[str, Iterable[str]]) -> Fold:
    return Fold(*(tuple(parts[part]) for part in PARTS))


def _kept(manifest: pd.DataFrame) -> pd.DataFrame:
    """Kept rows in the order of item_id, whatever the order and index of the manifest."""
    table = manifest[manifest["kept"].astype(bool)] if "kept" in manifest else manifest
    if table.empty:
        raise SplitError("the manifest has no kept items")
    table = table.sort_values("item_id", ignore_index=True, kind="stable")
    twice = table["item_id"].duplicated()
    if twice.any():
        raise SplitError(f"item {table['item_id'][twice].iloc[0]} is twice in the manifest")
    return table


def _keys(names: Iterable[str], seed: int, purpose: str) -> np.ndarray:
    """A number per name, random as a function of (seed, purpose, name); shape=(names,), int64."""
    return np.array([rng.seed_for(seed, "splits", purpose, str(name)) for name in names], np.int64)


def _deal_persons(table: pd.DataFrame, n_folds: int, seed: int) -> dict[str, int]:
    groups = table.groupby("person_id", sort=True)
    persons = pd.DataFrame({"n_items": groups.size(), "n_labels": groups["class_index"].nunique()})
    persons["label"] = groups["class_index"].first() if (persons["n_labels"] == 1).all() else 0
    persons["key"] = _keys(persons.index, seed, "person")
    persons = persons.sort_values(["label", "n_items", "key"], ascending=[True, False, True])
    total_persons, total_items = np.zeros(n_folds, np.int64), np.zeros(n_folds, np.int64)
    block_of: dict[str, int] = {}
    for _, stratum in persons.groupby("label", sort=True):
        stratum_persons = np.zeros(n_folds, np.int64)
        for person, n_items in zip(stratum.index, stratum["n_items"], strict=True):
            block = int(np.lexsort((total_items, total_persons, stratum_persons))[0])
            block_of[str(person)] = block
            stratum_persons[block] += 1
            total_persons[block] += 1
            total_items[block] += n_items
    return block_of


def _rotate(table: pd.DataFrame, blocks: np.ndarray, n_blocks: int) -> list[Fold]:
    """Fold k tests block k, validates on block k + 1 and trains on the rest."""
    ids = table["item_id"].to_numpy(object)
    folds = []
    for index in range(n_blocks):
        test, val = blocks == index, blocks == (index + 1) % n_blocks
        folds.append(Fold(tuple(ids[~(test | val)]), tuple(ids[val]), tuple(ids[test])))
    return folds


def _with_val_items(table: pd.DataFrame, test: np.ndarray, keys: np.ndarray) -> Fold:
    ids, classes = table["item_id"].to_numpy(object), table["class_index"].to_numpy()
    _refuse_rare_classes(table[~test], 2, "validation would take its only training item")
    val = np.zeros(len(table), bool)
    for label in np.unique(classes[~test]):
        rows = np.flatnonzero(~test & (classes == label))
        n_val = max(1, round(VAL_SHARE * len(rows)))
        val[rows[np.argsort(keys[rows], kind="stable")[:n_val]]] = True
    return Fold(tuple(ids[~(test | val)]), tuple(ids[val]), tuple(ids[test]))


def _refuse_rare_classes(table: pd.DataFrame, least: int, why: str) -> None:
    counts = table.groupby("class_index").size()
    rare = counts[counts < least]
    if len(rare):
        label = _label(table, rare.index[0])
        raise SplitError(
            f"class {label} has {rare.iloc[0]} example(s), need {least}: {why}; add recordings "
            "or drop the class"
        )


def _label(table: pd.DataFrame, class_index: Any) -> str:
    if "label" not in table:
        return str(class_index)
    return str(table.loc[table["class_index"] == class_index, "label"].iloc[0])


def _rows(rows_of: pd.Index, ids: Sequence[str], where: str) -> np.ndarray:
    if not ids:
        raise SplitError(f"{where}: empty")
    rows = rows_of.get_indexer(pd.Index(np.asarray(ids, dtype=object)))
    if (rows < 0).any():
        raise SplitError(
            f"{where}: item {ids[int(np.argmin(rows))]} is not among the kept items of the manifest"
        )
    values, counts = np.unique(rows, return_counts=True)
    if (counts > 1).any():
        raise SplitError(f"{where}: item {rows_of[values[counts > 1][0]]} is in it twice")
    return np.asarray(rows)

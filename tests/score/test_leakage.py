"""The leakage report on data sets where one cue alone tells the class."""

import numpy as np
import pandas as pd
import pytest

from sonolens import rng
from sonolens.score import leakage

N_PERSON, N_ITEM, N_CLASSES = 24, 8, 2
OPTIONS = {"seed": 0, "n_permutations": 12, "n_resamples": 200}


def manifest(classes: np.ndarray, durations_s: np.ndarray | float = 1.0) -> pd.DataFrame:
    persons = np.repeat(np.arange(N_PERSON), N_ITEM)
    return pd.DataFrame(
        {
            "item_id": [f"i{row:03}" for row in range(len(persons))],
            "person_id": [f"p{who:02}" for who in persons],
            "class_index": classes,
            "duration_s": durations_s,
            "sample_rate_native": 8000,
            "n_channels_native": 1,
            "corpus": "toy",
        }
    )


def person_classes() -> np.ndarray:
    """One class per person, as with a diagnosis."""
    return np.repeat(
        rng.numpy_generator("classes").permutation(np.arange(N_PERSON) % N_CLASSES), N_ITEM
    )


def item_classes() -> np.ndarray:
    """Both classes from every person."""
    return np.tile(np.arange(N_ITEM) % N_CLASSES, N_PERSON)


def folds(groups: np.ndarray, n: int = 4) -> list[leakage.RowFold]:
    fold = groups % n
    return [(np.flatnonzero(fold != part), np.flatnonzero(fold == part)) for part in range(n)]


ROWS = np.arange(N_PERSON * N_ITEM)
BY_PERSON = folds(ROWS // N_ITEM)
LEAKY = folds(ROWS // N_CLASSES)  # two following items, one of each class, fall into a fold


def voices(classes: np.ndarray, identity: float, cue: float, n_columns: int = 40) -> np.ndarray:
    """Features with a voice per person and a cue to the class, in units of the noise."""
    draw = rng.numpy_generator("voices", n_columns)
    person = draw.standard_normal((N_PERSON, n_columns))[ROWS // N_ITEM]
    direction = draw.standard_normal(n_columns) / np.sqrt(n_columns)
    noise = draw.standard_normal((len(ROWS), n_columns))
    return identity * person + cue * np.outer(2 * classes - 1, direction) + noise


def report(
    classes: np.ndarray, features: np.ndarray, durations_s: np.ndarray | float = 1.0
) -> dict[str, float]:
    rows = manifest(classes, durations_s)
    found = leakage.leakage_report(rows, features, LEAKY, BY_PERSON, **OPTIONS)
    assert list(found) == ["leaky", "person", "metadata", "permuted", "identity"]
    assert all(interval.n_person == N_PERSON for interval in found.values())
    return {name: interval.value for name, interval in found.items()}


def test_knowing_the_person_is_worth_much_where_persons_are_in_both_parts_and_nothing_elsewhere():
    classes = person_classes()
    found = report(classes, voices(classes, identity=3, cue=0))
    assert found["leaky"] > 0.95
    assert abs(found["person"] - 0.5) < 0.2
    assert found["leaky"] - found["person"] > 0.3
    assert found["identity"] > 0.95
    assert abs(found["permuted"] - 0.5) < 0.1
    assert abs(found["metadata"] - 0.5) < 0.2


def test_a_cue_in_the_sound_is_found_under_both_splits():
    classes = item_classes()
    found = report(classes, voices(classes, identity=1, cue=4))
    assert found["leaky"] > 0.9
    assert found["person"] > 0.9
    assert abs(found["permuted"] - 0.5) < 0.1
    assert abs(found["metadata"] - 0.5) < 0.1


def test_persons_without_a_voice_cannot_be_told_apart():
    classes = item_classes()
    assert report(classes, voices(classes, identity=0, cue=4))["identity"] < 3 / N_PERSON


def test_a_cue_in_the_duration_is_found_without_listening():
    classes = person_classes()
    durations_s = (
        1 + 0.5 * classes + 0.05 * rng.numpy_generator("durations").standard_normal(len(classes))
    )
    found = report(classes, voices(classes, identity=0, cue=0), durations_s)
    assert found["metadata"] > 0.95
    assert abs(found["person"] - 0.5) < 0.15


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("corpus", ["north", "south"]),
        ("sample_rate_native", [8000, 44100]),
        ("n_channels_native", [1, 2]),
    ],
)
def test_a_cue_in_the_way_of_recording_is_found_without_listening(column, values):
    classes = person_classes()
    rows = manifest(classes).assign(**{column: np.array(values)[classes]})
    predicted = leakage.reference_predictions(leakage.metadata_features(rows), classes, BY_PERSON)
    assert (predicted == classes).all()


def test_the_report_does_not_depend_on_global_state():
    classes = item_classes()
    features = voices(classes, identity=1, cue=1)
    first = leakage.leakage_report(manifest(classes), features, LEAKY, BY_PERSON, **OPTIONS)
    np.random.seed(3)  # noqa: NPY002
    assert leakage.leakage_report(manifest(classes), features, LEAKY, BY_PERSON, **OPTIONS) == first
    other = leakage.leakage_report(
        manifest(classes), features, LEAKY, BY_PERSON, **OPTIONS | {"seed": 1}
    )
    assert other["permuted"].value != first["permuted"].value
    assert other["leaky"].value == first["leaky"].value


def test_items_that_no_fold_tests_are_counted_as_not_tested():
    classes = item_classes()
    found = leakage.leakage_report(
        manifest(classes), voices(classes, 1, 4), LEAKY[:1], BY_PERSON[:1], **OPTIONS
    )
    for name, test in (
        ("leaky", LEAKY[0][1]),
        ("person", BY_PERSON[0][1]),
        ("permuted", BY_PERSON[0][1]),
    ):
        assert found[name].n_item == len(test)
        assert found[name].n_nan == len(ROWS) - len(test)
    assert found["person"].n_person == N_PERSON // 4


def test_reference_predictions_are_out_of_fold():
    labels = np.array([0, 1, 0, 1, 0, 1])
    features = np.array([[0.0], [1], [0], [1], [0], [1]])
    train, test = np.array([0, 1, 2, 3]), np.array([4])
    assert leakage.reference_predictions(features, labels, [(train, test)]).tolist() == [
        -1,
        -1,
        -1,
        -1,
        0,
        -1,
    ]


def test_a_training_part_of_one_class_predicts_that_class():
    predicted = leakage.reference_predictions(
        np.arange(4.0)[:, None],
        np.array([1, 1, 0, 1]),
        [
            (np.array([0, 1]), np.array([2, 3])),
        ],
    )
    assert predicted.tolist() == [-1, -1, 1, 1]


def test_a_constant_column_does_no_harm():
    rows = manifest(item_classes())
    features = leakage.metadata_features(rows)
    assert features.shape == (len(rows), 4)
    assert np.isin(leakage.reference_predictions(features, item_classes(), BY_PERSON), [0, 1]).all()


def test_summary_features_are_mean_and_deviation_over_time(generator):
    maps = generator.random((5, 2, 3, 7)).astype(np.float32)
    found = leakage.summary_features(maps)
    assert found.shape == (5, 12)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[:, :6].reshape(5, 2, 3), maps.mean(3), rtol=1e-6)
    np.testing.assert_allclose(found[:, 6:].reshape(5, 2, 3), maps.std(3), rtol=1e-5)

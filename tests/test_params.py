"""params.yaml: every wrong key is named with what to do; all profiles fit it."""

import copy
from pathlib import Path

import pytest
import yaml
from pydantic import Field

from sonolens import params, stages

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))


def check(values: dict):
    return params.validate(values, stages.params_model(), "params.yaml")


def message(values: dict) -> str:
    with pytest.raises(params.ParamsError) as caught:
        check(values)
    return str(caught.value)


@pytest.fixture
def values() -> dict:
    return copy.deepcopy(DEFAULT)


def merged(base: dict, over: dict) -> dict:
    both = {
        key: merged(base[key], value) if isinstance(value, dict) and key in base else value
        for key, value in over.items()
    }
    return base | both


def test_the_committed_file_is_valid_and_frozen(values):
    checked = check(values)
    assert (
        checked.digits.train.augment.time_shift
        == values["digits"]["train"]["augment"]["time_shift"]
    )
    with pytest.raises(ValueError, match="frozen"):
        checked.common.seed = 1
    assert stages.load_params(ROOT).model_dump() == checked.model_dump()


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_profiles_override_known_keys_alone_and_fit(path, values):
    profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = set(params.flatten(values))
    assert set(params.flatten(profile)) <= known
    check(merged(values, profile))


def test_there_are_the_three_named_profiles():
    assert [path.stem for path in PROFILES] == ["full", "published", "tiny"]


@pytest.mark.parametrize(
    ("place", "wrong", "right"),
    [
        ((), "runtim", "runtime"),
        (("digits",), "sorce", "source"),
        (("digits", "train"), "epoch", "epochs"),
        (("digits", "train", "augment"), "time_shfit", "time_shift"),
        (("runtime", "tracking"), "enable", "enabled"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(values, place, wrong, right):
    section = values
    for part in place:
        section = section[part]
    section[wrong] = 1
    key = ".".join([*place, wrong])
    assert message(values) == f"params.yaml: {key}: unknown key; did you mean {right}?"


def test_an_unknown_key_like_no_other_is_to_be_removed(values):
    values["digits"]["train"]["zzz"] = 1
    assert message(values) == "params.yaml: digits.train.zzz: unknown key; remove it"


@pytest.mark.parametrize(
    "place", [(), ("digits", "explain"), ("digits", "prepare", "formant_words"), ("runtime",)]
)
def test_each_missing_key_is_named(values, place):
    section = values
    for part in place:
        section = section[part]
    for name in list(section):
        kept = section.pop(name)
        key = ".".join([*place, name])
        assert (
            message(values) == f"params.yaml: {key}: missing; "
            "`git checkout params.yaml` brings the default back"
        )
        section[name] = kept


@pytest.mark.parametrize(
    ("key", "wrong", "words"),
    [
        ("digits.train.epochs", "many", "valid integer"),
        ("digits.train.epochs", 2.5, "valid integer"),
        ("digits.train.epochs", 0, "greater than or equal to 1"),
        ("digits.train.learning_rate", -1, "greater than 0"),
        ("digits.train.augment.time_shift", 0.5, "less than 0.5"),
        ("digits.train.folds", 0, "valid list"),
        ("digits.train.folds", [], "at least 1 item"),
        ("digits.prepare.task", "colour", "'digit' or 'sex'"),
        ("digits.report.level", 1, "less than 1"),
        ("runtime.engine", "threads", "'serial', 'loky' or 'dask'"),
        ("runtime.workers", 0, "greater than or equal to 1"),
        ("runtime.tracking", None, "valid dictionary"),
        ("common.seed", -1, "greater than or equal to 0"),
    ],
)
def test_a_wrong_type_or_range_names_key_value_and_need(values, key, wrong, words):
    section = values
    *place, last = key.split(".")
    for part in place:
        section = section[part]
    section[last] = wrong
    found = message(values)
    assert found.startswith(f"params.yaml: {key}: found {wrong!r}; ")
    assert words in found


def test_a_wrong_entry_of_a_list_is_named_by_its_place(values):
    values["digits"]["train"]["folds"] = [0, -3]
    assert message(values).startswith("params.yaml: digits.train.folds.1: found -3; ")


def test_a_mel_band_above_nyquist_is_refused_in_plain_words(values):
    values["digits"]["features"]["f_max"] = 4000.5
    assert message(values) == (
        "params.yaml: digits: features.f_max 4000.5 Hz lies above half of "
        "prepare.sample_rate 8000; lower it"
    )


def test_several_errors_take_a_line_each(values):
    del values["common"]["seed"]
    values["digits"]["train"]["epoch"] = values["digits"]["train"].pop("epochs")
    assert [line.split(": ")[1] for line in message(values).splitlines()] == [
        "common.seed",
        "digits.train.epochs",
        "digits.train.epoch",
    ]


def test_a_key_that_is_no_text_is_refused(values):
    values["digits"][1] = 2
    assert message(values).startswith("params.yaml: digits.1")


def test_a_validator_of_one_key_shows_its_value():
    from pydantic import field_validator

    class Toy(params.Section):
        level: int = Field(ge=0)

        @field_validator("level")
        @classmethod
        def _odd(cls, level: int) -> int:
            if level % 2 == 0:
                raise ValueError("need an odd number")
            return level

    with pytest.raises(params.ParamsError, match=r"^toy: level: found 2; need an odd number$"):
        params.validate({"level": 2}, Toy, "toy")


def test_a_missing_file_says_where_to_stand(tmp_path):
    with pytest.raises(
        params.ParamsError,
        match=r"params\.yaml: not found; run from the folder that holds",
    ):
        params.load_yaml(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "content", [b"a: [1, 2", b"a:\n\tb: 1", b"a: \xff\xfe", b"{a: 1}}", b"a: \x00"]
)
def test_what_is_no_yaml_names_the_file(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(params.ParamsError, match=r"params\.yaml: not valid YAML"):
        params.load_yaml(path)


def test_a_syntax_error_names_the_line(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("common:\n  seed: 0\n  seed2: [0\nnext: 1\n")
    with pytest.raises(params.ParamsError, match=r"line 4"):
        params.load_yaml(path)


@pytest.mark.parametrize(("content", "found"), [("", "NoneType"), ("- 1", "list"), ("word", "str")])
def test_what_is_no_mapping_is_refused(tmp_path, content, found):
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(params.ParamsError, match=f"found {found}, need a mapping of sections"):
        params.load_yaml(path)


def test_flatten_joins_names_and_keeps_lists():
    assert params.flatten({"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": None}) == {
        "a.b.c": 1,
        "a.d": [1, {"e": 2}],
        "f": None,
    }

"""params.yaml as typed, frozen sections: every key is known, every value is in range."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator


class ParamsError(ValueError):
    """A key of params.yaml is unknown, missing or out of range; the message names it."""


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values cannot be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and annotation in (int, float):
            raise ValueError("need a number")
        return value


class Common(Section):
    """What all studies share."""

    seed: int = Field(ge=0, description="root of all randomness")


class Tracking(Section):
    """The record in MLflow."""

    enabled: bool
    system_metrics_interval_s: float = Field(
        gt=0, description="sampling of CPU and memory by MLflow"
    )


class Runtime(Section):
    """Where and how fast, never what: exempt from the dependencies of the stages."""

    threads: int = Field(ge=1, description="threads of one worker")
    workers: int = Field(ge=1)
    engine: Literal["serial", "loky", "dask"]
    dask_address: str | None = Field(description="scheduler, for the engine dask")
    device: Literal["auto", "cpu", "cuda"]
    tracking: Tracking


StudySection = TypeVar("StudySection", bound=Section)


@dataclass(frozen=True)
class StageParams(Generic[StudySection]):
    """What a stage may read: its study's section, `common` and `runtime`."""

    study: StudySection
    common: Common
    runtime: Runtime


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe, and strict about keys that occur twice: the later one would win unseen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key, _ in node.value:
            if names.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value} is there twice", key.start_mark
                )
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises ParamsError that names the file and line."""
    if not path.is_file():
        raise ParamsError(
            f"{path}: not found; run from the folder that holds dvc.yaml and params.yaml"
        )
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ParamsError(f"{path}: not valid YAML: {line}{error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ParamsError(f"{path}: found {type(values).__name__}, need a mapping of sections")
    return values


def validate(values: dict[str, Any], model: type[BaseModel], source: str) -> Any:
    """Check `values` against `model`. Raises ParamsError with one line per wrong key."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain_error(item, model) for item in error.errors()]
        raise ParamsError("\n".join(f"{source}: {line}" for line in lines)) from error


def _explain_error(error: Any, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(
            str(error["loc"][-1]), _names_beside(error["loc"], model), n=1
        )
        hint = f"; did you mean {close[0]}?" if close else "; remove it"
        return f"{key}: unknown key{hint}"
    if error["type"] == "missing":
        return f"{key}: missing; `git checkout params.yaml` brings the default back"
    if error["type"] == "value_error":  # raised by a validator of ours: its words are the message
        message = str(error["ctx"]["error"])
        found = "" if isinstance(error["input"], dict) else f"found {error['input']!r}; "
        return f"{key}: {found}{message}"
    return f"{key}: found {error['input']!r}; {error['msg'][0].lower()}{error['msg'][1:]}"


def _names_beside(location: tuple[Any, ...], model: type[BaseModel]) -> list[str]:
    current: Any = model
    for part in location[:-1]:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        current = field.annotation
    return list(getattr(current, "model_fields", {}))


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping to dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat

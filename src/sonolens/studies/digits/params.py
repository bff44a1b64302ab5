"""Section `digits` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sonolens.data.corpora import registry
from sonolens.params import Section

MIN_ALEXNET_SIZE = 63  # sonolens.models.alexnet.MIN_SIZE, without importing torch

Protocol = Literal["person", "leaky"]
TrainedVariant = Literal["trained", "permuted"]
Variant = Literal["trained", "permuted", "random_weights"]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]


class FormantWords(Section):
    """Size and noise of the computed corpus."""

    n_speakers: int = Field(ge=3)
    n_repetitions: Positive
    snr_db: tuple[float, float] = Field(
        description="range of the noise level below the word's peak"
    )


class Prepare(Section):
    """Which recordings are taken, and how they are split."""

    task: Literal["digit", "sex"]
    partial: bool
    on_bad_file: Literal["stop", "skip"]
    sample_rate: int = Field(ge=2000)
    speaker_folds: Literal["published", "grouped"]
    n_folds: int = Field(ge=2)
    val_unit: Literal["person", "item"]
    formant_words: FormantWords


class PrepareImage(Section):
    """Which pictures are taken, and how they are split."""

    partial: bool
    n_folds: int = Field(ge=3)


Sizes = list[Annotated[int, Field(ge=16)]]


class CellSizes(Section):
    """Sizes of the cells of each modality; none leaves it out."""

    audio: Sizes
    image: Sizes


class Features(Section):
    """The log-mel front end and the size of pictures; one store per cell."""

    sizes: CellSizes
    duration_s: float = Field(gt=0)
    placement: Literal["start", "centre", "random"]
    n_fft: int = Field(ge=32)
    f_min: float = Field(ge=0)
    f_max: float = Field(gt=0)
    reference: Literal["clip_max", "full_scale"]


Share = Annotated[float, Field(ge=0, lt=0.5)]


class Augment(Section):
    """Shares of the axis; see sonolens.fit.Augment."""

    time_shift: Share
    freq_shift: Share
    time_mask: Share
    freq_mask: Share


class Train(Section):
    """Which models are trained, and how."""

    architecture: Literal["resnet18_narrow", "alexnet_small", "alexnet"]
    width: int = Field(
        ge=4, description="channels of the first ResNet stage, or of of AlexNet's first convolution"
    )
    protocols: list[Protocol] = Field(min_length=1)
    folds: list[NonNegative] = Field(min_length=1)
    model_seeds: list[NonNegative] = Field(min_length=1)
    variants: list[TrainedVariant] = Field(min_length=1)
    epochs: Positive
    batch_size: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    patience: Positive
    schedule: Literal["one_cycle", "constant"]
    augment: Augment


class Evaluate(Section):
    """The leakage report."""

    n_permutations: Positive


class Names(Section):
    """Names for each modality."""

    audio: list[str] = Field(min_length=1)
    image: list[str] = Field(min_length=1)


class Explain(Section):
    """Which models are explained, by what and on how many items."""

    methods: Names
    baselines: Names
    variants: list[Variant] = Field(min_length=1)
    protocols: list[Protocol] = Field(min_length=1)
    n_items: Positive
    n_steps: int = Field(ge=2)
    chunk_size: Positive


class Score(Section):
    """Metrics and their numbers of draws."""

    metrics: list[str] = Field(min_length=1)
    fills: Names
    n_coalitions: int = Field(ge=3)
    n_noise_draws: Positive
    noise_radius: float = Field(gt=0, lt=1)
    n_items_costly: Positive


class Report(Section):
    """Intervals and pictures."""

    n_resamples: int = Field(ge=100)
    level: float = Field(gt=0.5, lt=1)
    n_examples: Positive


class Params(Section):
    """All of `digits`."""

    source: str
    image_source: str
    prepare: Prepare
    prepare_image: PrepareImage
    features: Features
    train: Train
    evaluate: Evaluate
    explain: Explain
    score: Score
    report: Report

    @model_validator(mode="after")
    def _fits(self) -> Params:
        for key, modality in (("source", "audio"), ("image_source", "image")):
            name = getattr(self, key)
            info = registry.info(name)
            if (info.modality if info else "audio") != modality:
                raise ValueError(
                    f"{key}: {name!r} is no corpus of the modality {modality}; need one of "
                    f"{', '.join(registry.names(modality))}"
                )
        if not (self.features.sizes.audio or self.features.sizes.image):
            raise ValueError("features.sizes: no size for audio nor image, need at least one")
        small = [size for size in (*self.features.sizes.audio, *self.features.sizes.image)
                 if size < MIN_ALEXNET_SIZE]  # fmt: skip
        if self.train.architecture == "alexnet" and small:
            raise ValueError(
                f"train.architecture: alexnet reads maps of at least {MIN_ALEXNET_SIZE} bands and "
                f"frames, but features.sizes has {small[0]}; take larger ones, or alexnet_small"
            )
        if self.features.f_max > self.prepare.sample_rate / 2:
            raise ValueError(
                f"features.f_max {self.features.f_max} Hz lies above half of prepare.sample_rate "
                f"{self.prepare.sample_rate}; lower it"
            )
        for name in ("protocols", "variants"):
            asked, trained = getattr(self.explain, name), getattr(self.train, name)
            absent = [value for value in asked if value not in (*trained, "random_weights")]
            if absent:
                raise ValueError(
                    f"explain.{name}: {absent[0]} is not among train.{name} {list(trained)}; "
                    "add it there"
                )
        return self

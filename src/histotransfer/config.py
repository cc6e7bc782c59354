"""Every parameter of a run: typed, bounded, documented, with its value in each of the three profiles.

* `phantom`: synthetic tissue, the real network with ImageNet weights, minutes on two cores; the default.
* `lite`: real images on a CPU, hours.
* `paper`: the stated recipe (batch 32, rate 0.01, 200 epochs); for a GPU. What it does not state is documented below.
"""

import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from platformdirs import user_cache_path
from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from histotransfer.errors import HistotransferError

ProfileName = Literal["phantom", "lite", "paper"]
"""Name of a profile."""
Stage = Literal["head", "block4", "block3", "block2", "block1", "all"]
"""A stage of training, by the lowest group of weights that it trains."""
Position = Literal["layer", "block", "transition"]
Baseline = Literal["majority", "frozen-probe"]
"""A baseline that runs on the same split as a network."""
Method = Literal["ladder"] | Baseline
"""How a run predicts."""
Magnification = Annotated[int, Field(ge=1, le=1000)]
Model = TypeVar("Model", bound=BaseModel)
LARGEST_SEED = 2**31 - 1  # the smallest bound among the libraries that take it

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def _parse_schedule(value: Any) -> Any:
    """`head:4,block4:4` as typed on a command line to a list of pairs."""
    if not isinstance(value, str):
        return value
    return [tuple(part.split(":")) for part in value.split(",") if part]


def _parse_list(value: Any) -> Any:
    """`block,transition` as typed on a command line to a list."""
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


Epochs = Annotated[int, Field(ge=1, le=1000)]
Schedule = Annotated[tuple[tuple[Stage, Epochs], ...], BeforeValidator(_parse_schedule), Field(min_length=1)]


class LadderConfig(BaseModel):
    """Settings of one run of the ladder ImageNet -> LC25000 -> BreakHis."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: ProfileName = Field(description="phantom, lite or paper; every number of the book carries it")
    size: int = Field(ge=32, le=1024, description="pixels per side of the square that the network sees")
    batch_size: int = Field(ge=2, le=512, description="images per step (paper: 32)")
    learning_rate: float = Field(gt=0, le=1, description="peak rate of the head (paper: 0.01)")
    rate_decay: float = Field(gt=0, le=1, description="each group further from the head learns this much slower")
    weight_decay: float = Field(ge=0, le=1, description="decoupled weight decay (not stated in the paper)")
    start: Literal["imagenet", "scratch"] = Field(
        default="imagenet", description="what the network starts from: published weights, or random ones"
    )
    source: Literal["lc25000", "phantom", "none"] = Field(
        default="lc25000",
        description="what is learned before the target task: LC25000 (lung), synthetic tissue, or none",
    )
    optimiser: Literal["adam", "sgd"] = Field(
        default="adam", description="Adam, or stochastic gradient descent with momentum (not stated in the paper)"
    )
    lc25000_schedule: Schedule = Field(description="stages of the source task with their epochs")
    breakhis_schedule: Schedule = Field(
        description="stages of the target task (BreakHis, or your own data) with their epochs"
    )
    lc25000_copies: int = Field(ge=0, le=1000, description="images of each duplicate group used for training; 0: all")
    target: Literal["label", "subtype"] = Field(
        default="label", description="what the target task is about: benign or malignant, or the tumour type"
    )
    external: bool = Field(default=False, description="also predict UCSB, which nothing was trained or chosen on")
    rehearsal: bool = Field(
        default=False,
        description="predict validation patients only: settings are chosen without looking at the test",
    )
    record_stages: bool = Field(default=True, description="also record the network as of each stage but the last")
    record_training: bool = Field(default=False, description="also predict the training part, to measure overfitting")
    record_losses: bool = Field(default=False, description="also record the log-loss of every image in every epoch")
    record_views: Annotated[tuple[Annotated[int, Field(ge=1, le=1000)], ...], BeforeValidator(_parse_list)] = Field(
        default=(),
        max_length=20,
        description="numbers of views: also record the predictions that average only so many, the upright one first",
    )
    train_magnifications: Annotated[tuple[Magnification, ...], BeforeValidator(_parse_list)] = Field(
        default=(),
        max_length=20,
        description="magnifications of the target task that are trained and validated on; empty: all",
    )
    se_positions: Annotated[tuple[Position, ...], BeforeValidator(_parse_list)] = Field(
        default=("block", "transition"), description="where SE gates sit; empty: plain DenseNet"
    )
    se_gate: Literal["identity", "standard"] = Field(
        default="identity", description="exactly 1 until trained, or initialised as in the SE paper"
    )
    se_first_block: int = Field(
        default=1, ge=1, le=4, description="gates sit in this block and those after it, with their transitions"
    )
    gate_rate: float = Field(
        default=1, ge=0, le=100, description="rate of the SE gates, relative to the head's; 0: they stay as they start"
    )
    se_reduction: int = Field(default=16, ge=1, le=256, description="r of the SE gates (not stated in the paper)")
    normaliser: Literal["none", "macenko", "reinhard", "vahadane"] = Field(
        default="macenko", description="colour normalisation (method not stated in the paper)"
    )
    normaliser_reference: Literal["published", "training"] = Field(
        default="published",
        description="colours to normalise to: published ones, or the median of the training images (source=none only)",
    )
    augmentation: Literal["none", "views", "views+stain"] = Field(
        default="views",
        description="training sees symmetric views, these with stain jitter, or images upright",
    )
    mixup: float = Field(
        default=0, ge=0, le=10, description="alpha of mixup between the inputs of the groups that train; 0: none"
    )
    average_weights: float = Field(
        default=0, ge=0, lt=1, description="decay of a moving average of the weights, taken at a stage's end; 0: none"
    )
    balanced_sampling: bool = Field(
        default=False, description="draw every class equally often in training; set class_weights=false with it"
    )
    average_views: bool = Field(
        default=False, description="predict by the mean logits of all views that training draws from, stain jitter too"
    )
    class_weights: bool = Field(default=True, description="weigh the loss by inverse class frequency in training")
    unfreeze: Literal["all", "batchnorm"] = Field(
        default="all",
        validation_alias=AliasChoices("unfreeze", "thaw"),  # records of version 0.1 have the second
        description="what of an unfrozen group trains: everything, or its BatchNorm only",
    )
    patience: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="stop a stage after this many epochs without a better validation loss; 0: never",
    )
    split: Literal["patient", "image", "official", "none"] = Field(
        default="patient",
        description="what the target's split keeps apart; `image` and `official` leak; `none` trains on everything",
    )
    allow_leakage: bool = Field(default=False, description="train even on a split that leaks; the record says so")
    folds: int = Field(default=5, ge=3, le=20, description="patient-disjoint folds")
    fold: int = Field(default=0, ge=0, le=19, description="which fold is the test part")
    validation_offset: int = Field(
        default=1, ge=1, le=19, description="how many folds after the test part validation comes"
    )
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="folds, initialisation, order and views")
    device: Literal["cpu", "cuda", "mps"] = Field(default="cpu", description="where the network runs")
    threads: int = Field(
        default=0, ge=0, le=1024, description="CPU threads; 0: as many as there are. Bits may depend on it"
    )
    cache: bool = Field(default=True, description="keep the outputs of frozen groups on disk and train from them")
    weights: str = Field(default="", description="ImageNet weights: a file, `random`, or empty for cache then network")


_PHANTOM = {
    "profile": "phantom",
    "size": 112,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "rate_decay": 0.1,
    "weight_decay": 0.01,
    "lc25000_schedule": "head:2,block4:1,block3:1",
    "breakhis_schedule": "head:2,block4:2,block3:2",
    "lc25000_copies": 2,
}
_LITE = {
    "profile": "lite",
    "size": 224,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "rate_decay": 0.1,
    "weight_decay": 0.01,
    "lc25000_schedule": "head:3,block4:3,block3:2",
    "breakhis_schedule": "head:3,block4:3,block3:2",
    "lc25000_copies": 1,
}
# The paper states 200 epochs but not how they are spread over stages, nor the optimiser: an even spread, and ours.
_PAPER = {
    **_LITE,
    "profile": "paper",
    "learning_rate": 0.01,
    "lc25000_schedule": "head:40,block4:40,block3:40,block2:40,all:40",
    "breakhis_schedule": "head:40,block4:40,block3:40,block2:40,all:40",
    "lc25000_copies": 0,
    "cache": False,  # the epochs that train everything outweigh what a cache would save, and a GPU needs none
}
PROFILES: dict[str, dict] = {"phantom": _PHANTOM, "lite": _LITE, "paper": _PAPER}


def ladder_config(profile: ProfileName, overrides: Mapping[str, Any] | None = None) -> LadderConfig:
    """The configuration of a profile with some values replaced.

    Raises:
        HistotransferError: an unknown profile or name, or a value of the wrong type or out of bounds.
    """
    if profile not in PROFILES:
        raise HistotransferError(f"profile: {profile!r} is not one of {', '.join(PROFILES)}")
    if "profile" in (overrides or {}):
        raise HistotransferError("profile: choose it with --profile, not with --set")
    config = validated(LadderConfig, {**PROFILES[profile], **(overrides or {})})
    if config.normaliser_reference == "training" and config.source != "none":
        raise HistotransferError(
            "normaliser_reference: `training` needs source=none; the source task would be seen in other colours"
        )
    if config.fold >= config.folds:
        raise HistotransferError(
            f"fold: {config.fold} is too large; with folds={config.folds} they are numbered from 0"
        )
    if config.validation_offset >= config.folds:
        raise HistotransferError(
            f"validation_offset: {config.validation_offset} is too large; it is below folds={config.folds}"
        )
    return config


class ChapterParameters(BaseModel):
    """What papermill may set in a chapter; a chapter's `parameters` cell holds some of these names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    profile: ProfileName = Field(default="phantom", description="phantom, lite or paper")
    data_root: str = Field(default="", description="folder with the data sets; empty: phantom data are simulated")
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="seed of everything random in the chapter")
    device: Literal["cpu", "cuda", "mps"] = Field(default="cpu", description="where the network runs")
    weights: str = Field(default="", description="ImageNet weights: a file, `random`, or empty for cache then network")
    images: str = Field(default="", description="your own images: a CSV, or a folder per class; empty: phantom images")
    pattern: str = Field(default="", description="for a folder of images, how a file's path says whose image it is")


def cache_dir() -> Path:
    """Where weights and phantom data are kept: `$HISTOTRANSFER_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("HISTOTRANSFER_CACHE") or user_cache_path("histotransfer"))


def validated(model: type[Model], values: Any) -> Model:
    """`model(**values)`; a validation error becomes one line that a user can act on.

    Raises:
        HistotransferError: an unknown name, or a value that is missing or refused.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise HistotransferError(_complaint(model, error.errors()[0])) from error


def _complaint(model: type[BaseModel], error: ErrorDetails) -> str:
    """What is wrong, in one line: values may come from a file of anyone, so they are cut short."""
    path = [_SHORT.repr(part)[1:-1] for part in error["loc"] if isinstance(part, str)]
    if not path:
        return error["msg"].removeprefix("Value error, ")
    name, field = ".".join(path), model.model_fields.get(path[0])
    if error["type"] == "extra_forbidden":
        known = f"; choose from {', '.join(model.model_fields)}" if len(path) == 1 else ""
        return f"{name}: unknown{known}"
    about = f" ({field.description})" if field and field.description else ""
    if error["type"] == "missing":
        return f"{name}: is missing{about}"
    return f"{name}: {_SHORT.repr(error['input'])} refused: {error['msg'].removeprefix('Value error, ')}{about}"

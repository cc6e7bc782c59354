"""The description in a weights file: how its network is built, how to prepare pictures for it, what its logits mean.

The file may come from anyone, so nothing in it is believed before these schemas have passed it.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Required

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator, with_config
from typing_extensions import TypedDict  # pydantic takes typing's from Python 3.12 on

from histotransfer.config import Position, ProfileName, validated
from histotransfer.errors import HistotransferError
from histotransfer.stain import Normaliser, normaliser

Label = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,100}$")]


@with_config(ConfigDict(extra="forbid", strict=True))
class Architecture(TypedDict, total=False):
    """Arguments of `SEDenseNet`; what is missing has its default there."""

    num_classes: Required[Annotated[int, Field(ge=2, le=1000)]]
    block_config: Annotated[list[Annotated[int, Field(ge=1, le=64)]], Field(min_length=1, max_length=8)]
    growth_rate: Annotated[int, Field(ge=1, le=256)]
    bottleneck: Annotated[int, Field(ge=1, le=16)] | None
    compression: Annotated[float, Field(gt=0, le=1)]
    stem: Literal["imagenet", "cifar"]
    stem_features: Annotated[int, Field(ge=1, le=1024)]
    positions: Annotated[list[Position], Field(max_length=3)]
    first_gated_block: Annotated[int, Field(ge=1, le=8)]
    reduction: Annotated[int, Field(ge=1, le=256)]
    gate: Literal["identity", "standard"]


class Built(BaseModel):
    """What it takes to build a network."""

    model_config = ConfigDict(frozen=True, strict=True)

    architecture: Architecture = Field(description="the layers of the network")


class Views(BaseModel):
    """Views of a picture that logits are averaged over; `views`, `augmentation` as for `tiles.augmented_source`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    views: int = Field(ge=1, le=8)
    augmentation: Literal["none", "views", "views+stain"]
    averaged: int | None = Field(default=None, ge=1, description="how many of them, the upright one first; None: all")


class Images(BaseModel):
    """The images that a network was trained on."""

    model_config = ConfigDict(frozen=True, strict=True)

    name: str
    images: int = Field(ge=1)
    patients: int = Field(ge=1)
    fingerprint: str


class Description(Built):
    """How to prepare pictures for a network and read its logits."""

    classes: list[Label] = Field(min_length=2, max_length=1000, description="labels in the order of the logits")
    size: int = Field(ge=32, le=1024, description="pixels per side of the tiles that it sees")
    profile: ProfileName = Field(description="what it was trained under; a phantom network knows no tissue")
    views: Views = Field(description="the views over which logits are averaged")
    normaliser: Literal["none", "macenko", "reinhard", "vahadane"] = Field(description="method for colours")
    reference: list[list[FiniteFloat | list[FiniteFloat]]] = Field(
        default=[], max_length=8, description="colours to normalise to; empty: published ones"
    )
    imagenet: str = Field(description="where its first weights come from")
    config: dict[str, Any] | None = Field(default=None, description="settings of its training")
    data: Images | None = Field(default=None, description="the images that it was trained on")
    temperature: FiniteFloat | None = Field(default=None, gt=0, description="what its logits were divided by")

    sets: dict[Literal["picture", "patient"], Annotated[float, Field(ge=0, le=1)]] = Field(
        default={}, description="limits of `evaluation.sets`; empty: none"
    )

    @model_validator(mode="after")
    def _fits(self) -> "Description":
        logits = self.architecture["num_classes"]
        if not len(set(self.classes)) == len(self.classes) == logits:
            raise ValueError(f"classes: {logits} different names are needed, one for each logit")
        return self

    @cached_property
    def colours(self) -> Normaliser:
        """The normaliser of pictures, with its reference."""
        return normaliser(self.normaliser, self.reference)


def describe(metadata: Mapping[str, Any], weights: Path) -> Description:
    """The description in the metadata of a weights file.

    Raises:
        HistotransferError: something is missing there, or makes no sense.
    """
    try:
        described = validated(Description, metadata)
        _ = described.colours  # here, so that a wrong reference is refused before any picture is read
    except HistotransferError as error:
        raise HistotransferError(f"{weights}: not a description by `ladder`: {error}") from error
    return described

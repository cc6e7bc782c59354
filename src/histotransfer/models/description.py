"""The description in a weights file: how to prepare pictures for its network, and what the logits mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histotransfer.errors import HistotransferError
from histotransfer.stain import Normaliser, normaliser


@dataclass(frozen=True)
class Description:
    """How to prepare pictures for a network and read its logits.

    Attributes:
        classes: labels in the order of the logits.
        size: pixels per side of the tiles that it sees.
        profile: the profile it was trained under; a phantom network knows no tissue.
        views: the views of a picture over which logits are averaged, as arguments of `tiles.augmented_source`.
        normaliser: of colours, with its reference.
    """

    classes: list[str]
    size: int
    profile: str
    views: dict[str, Any]
    normaliser: Normaliser


def describe(metadata: Mapping[str, Any], weights: Path) -> Description:
    """The description in the metadata of a weights file.

    Raises:
        HistotransferError: something is missing there.
    """
    try:
        method = normaliser(metadata["normaliser"], metadata.get("reference", ()))
        return Description(metadata["classes"], metadata["size"], metadata["profile"], metadata["views"], method)
    except KeyError as error:
        raise HistotransferError(f"{weights}: its description lacks {error}; train it with `ladder`") from error

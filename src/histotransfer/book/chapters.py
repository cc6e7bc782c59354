"""What chapters have in common: how they begin, and the settings of what they train themselves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histotransfer.config import ChapterParameters, LadderConfig, ProfileName, ladder_config, validated
from histotransfer.datasets.roots import resolve_root
from histotransfer.figures import use_style

# On two cores chapter 04 took about 20 minutes of `lite` at 224 pixels, and 13 at 160 beside another chapter.
LIVE_PIXELS = 128


def project_root() -> Path:
    """The root of the repository that the working folder is in; outside of one the working folder itself.

    A notebook is opened in `notebooks/`, or as a course's copy elsewhere; the records of the study are in the root.
    """
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "_toc.yml").is_file()), here)


def begin(**parameters: Any) -> Path:
    """Check a chapter's parameters, set the style of its figures, and find its images.

    Args:
        parameters: the names of the chapter's `parameters` cell with their values.

    Returns:
        The folder with the data sets; phantom data are made where none is given.

    Raises:
        HistotransferError: an ill-typed value, or real images asked for and no folder given.
    """
    checked = validated(ChapterParameters, parameters)
    use_style()
    return resolve_root(checked.profile, checked.data_root, seed=checked.seed)


def live_config(profile: ProfileName, settings: Mapping[str, Any]) -> LadderConfig:
    """Settings of what a chapter trains while it runs: `ladder_config`, but `lite` with pictures of `LIVE_PIXELS`.

    The records, and the commands that made them, have the profile's own size.

    Args:
        profile: phantom, lite or paper.
        settings: what replaces the profile's values; a `size` among them is kept.

    Raises:
        HistotransferError: as `ladder_config`.
    """
    smaller = {"size": LIVE_PIXELS} if profile == "lite" else {}
    return ladder_config(profile, {**smaller, **settings})

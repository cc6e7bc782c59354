"""What chapters share: how they begin, and the settings of what they train while they run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histotransfer.config import ChapterParameters, LadderConfig, ProfileName, ladder_config, validated
from histotransfer.datasets.roots import resolve_root
from histotransfer.figures import use_style

# With `lite` on two cores chapter 04 took about 20 minutes at 224 pixels, and 13 at 160 beside another chapter.
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
        The folder with the data sets; phantom data are generated if none is given.

    Raises:
        HistotransferError: a value has the wrong type, or real images are wanted and no folder is given.
    """
    checked = validated(ChapterParameters, parameters)
    use_style()
    return resolve_root(checked.profile, checked.data_root, seed=checked.seed)


def live_config(profile: ProfileName, settings: Mapping[str, Any]) -> LadderConfig:
    """Settings of what a chapter trains while it runs: `ladder_config`, but `lite` with pictures of `LIVE_PIXELS`.

    The records were made with the profile's own size.

    Args:
        profile: phantom, lite or paper.
        settings: replacements of the profile's values; a `size` among them is kept.

    Raises:
        HistotransferError: as `ladder_config`.
    """
    smaller = {"size": LIVE_PIXELS} if profile == "lite" else {}
    return ladder_config(profile, {**smaller, **settings})

"""What every chapter does first."""

import os
from pathlib import Path
from typing import Any

from histotransfer.config import ChapterParameters, validated
from histotransfer.datasets.roots import resolve_root
from histotransfer.figures import use_style


def begin(**parameters: Any) -> Path:
    """Check a chapter's parameters, set the style of its figures, and find its images.

    A notebook that is opened in a folder below the repository's root goes on in that root: chapters name records from
    there.

    Args:
        parameters: the names of the chapter's `parameters` cell with their values.

    Returns:
        The folder with the data sets; phantom data are made where none is given.

    Raises:
        HistotransferError: an ill-typed value, or real images asked for and no folder given.
    """
    checked = validated(ChapterParameters, parameters)
    use_style()
    here = Path.cwd()
    os.chdir(next((folder for folder in (here, *here.parents) if (folder / "_toc.yml").is_file()), here))
    return resolve_root(checked.profile, checked.data_root, seed=checked.seed)

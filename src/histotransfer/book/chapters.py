"""What chapters share: how they begin, and the settings of what they train while they run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from IPython import get_ipython
from IPython.core.pylabtools import print_figure, retina_figure
from IPython.display import HTML
from matplotlib.figure import Figure

from histotransfer.config import ChapterParameters, LadderConfig, ProfileName, ladder_config, validated
from histotransfer.datasets.roots import resolve_root
from histotransfer.errors import HistotransferError
from histotransfer.figures import use_style

# With `lite` on two cores chapter 04 took about 20 minutes at 224 pixels, and 13 at 160 beside another chapter.
LIVE_PIXELS = 128

COLUMNS = 5  # of a table on a page, with its index: what a phone shows, and a reader takes in


def project_root() -> Path:
    """The root of the repository that the working folder is in; outside of one, of that which the package runs from.

    A notebook is opened in `notebooks/`, or as a course's copy elsewhere; the records of the study are in the root.

    Raises:
        HistotransferError: there is no repository in either place.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, *Path(__file__).parents):
        if (folder / "_toc.yml").is_file():
            return folder
    raise HistotransferError(
        f"{here}: is in no copy of the repository, where the records of the study are; start the chapter in one"
        " (papermill: --cwd), or install the package from one with `pip install --editable`"
    )


def begin(**parameters: Any) -> Path:
    """Check a chapter's parameters, set style and format of its figures, and find its images.

    Plots are shown as SVG; figures that hold pictures as PNG, with two pixels for each of the page's.

    Args:
        parameters: the names of the chapter's `parameters` cell with their values.

    Returns:
        The folder with the data sets; phantom data are generated if none is given.

    Raises:
        HistotransferError: a value has the wrong type, or real images are wanted and no folder is given.
    """
    checked = validated(ChapterParameters, parameters)
    use_style()
    _choose_formats()
    return resolve_root(checked.profile, checked.data_root, seed=checked.seed)


def _choose_formats() -> None:
    if (shell := get_ipython()) is None:
        return
    # With the first figure this backend would set the formats for all of them; it does so only once.
    import matplotlib_inline.backend_inline  # noqa: F401

    formatters = shell.display_formatter.formatters
    formatters["image/svg+xml"].for_type(Figure, _plot)
    formatters["image/png"].for_type(Figure, _pictures)


def _plot(figure: Figure) -> tuple[str, dict[str, Any]] | None:
    """SVG and its metadata; None: the figure holds pictures, or nothing."""
    if _holds_pictures(figure):
        return None
    drawn = print_figure(figure, "svg", dpi=2 * figure.dpi, metadata={"Date": None})  # dpi: of what is rasterised in it
    return drawn and (drawn, _alt(figure))


def _pictures(figure: Figure) -> tuple[str, dict[str, Any]] | None:
    """PNG, as base64, and its metadata; None: the figure holds no pictures."""
    if not _holds_pictures(figure):
        return None
    drawn, sizes = retina_figure(figure, base64=True)
    return drawn, {"width": sizes["width"], **_alt(figure)}  # without the height, which a phone reduces


def _holds_pictures(figure: Figure) -> bool:
    return any(axes.images for axes in figure.axes)


def _alt(figure: Figure) -> dict[str, str]:
    return {"alt": figure.alt} if hasattr(figure, "alt") else {}  # set by `figures.described`


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


def brief(table: pd.DataFrame, columns: Sequence[Any] | None = None) -> HTML:
    """A wide table for a page: at most `COLUMNS` columns of it and, folded below them, all.

    Args:
        table: as wide as it is; each level of its index counts as a column.
        columns: the names of those to show; None: the first ones that fit beside the index.

    Raises:
        HistotransferError: the columns to show are too many.
    """
    room = COLUMNS - table.index.nlevels
    shown = table.iloc[:, :room] if columns is None else table[list(columns)]
    if shown.shape[1] > room:
        raise HistotransferError(f"{shown.shape[1]} columns beside the index are too many: a page has room for {room}")
    text = shown.to_html(notebook=True)
    if shown.shape[1] < table.shape[1]:
        # The theme lets the keyboard scroll what is wide, but finds no width in what is folded.
        whole = f'<div class="pst-scrollable-table-container" tabindex="0">{table.to_html(notebook=True)}</div>'
        text += f"<details><summary>All {table.shape[1]} columns</summary>{whole}</details>"
    return HTML(text)

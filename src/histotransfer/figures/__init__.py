"""Every plot of the book, in one style: colour-blind safe, axes with units, readable on light and dark pages.

Each function returns a matplotlib figure. Where it draws numbers, it also describes them in words: the picture's alt
text, in a notebook and on the page.
"""

from histotransfer.figures.comparisons import forest, means_with_intervals, pareto
from histotransfer.figures.data import (
    colour_clusters,
    colour_per_patient,
    gallery,
    images_per_patient,
    picture_table,
    stain_plane,
)
from histotransfer.figures.networks import dense_block_with_gate, gate_profile, overlays
from histotransfer.figures.predictions import confusion, patients, precision_recall, reliability_diagram, roc
from histotransfer.figures.style import CLASS_COLOURS, PALETTE, RUN_COLOURS, WIDTH, described, use_style
from histotransfer.figures.training import by_seed, compared_curves, failure_signatures, learning_curves

__all__ = [
    "CLASS_COLOURS",
    "PALETTE",
    "RUN_COLOURS",
    "WIDTH",
    "by_seed",
    "colour_clusters",
    "colour_per_patient",
    "compared_curves",
    "confusion",
    "dense_block_with_gate",
    "described",
    "failure_signatures",
    "forest",
    "gallery",
    "gate_profile",
    "images_per_patient",
    "learning_curves",
    "means_with_intervals",
    "overlays",
    "pareto",
    "patients",
    "picture_table",
    "precision_recall",
    "reliability_diagram",
    "roc",
    "stain_plane",
    "use_style",
]

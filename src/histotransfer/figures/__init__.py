"""Every plot of the book, in one style: colour-blind safe, axes with units, readable on light and dark pages.

Each function returns a matplotlib figure. Where it draws numbers, it also describes them in words: the picture's alt
text, in a notebook and on the page.
"""

from histotransfer.figures.claims import claims
from histotransfer.figures.comparisons import by_labelled_patients, choices, forest, means_with_intervals, pareto
from histotransfer.figures.costs import growth, race
from histotransfer.figures.data import (
    colour_clusters,
    colour_per_patient,
    gallery,
    images_per_patient,
    patient_strips,
    picture_table,
)
from histotransfer.figures.doses import doses
from histotransfer.figures.networks import dense_block_with_gate, overlays, whole_network
from histotransfer.figures.predictions import confusion, patients, precision_recall, reliability_diagram, roc
from histotransfer.figures.stain import macenko_steps, stain_plane
from histotransfer.figures.style import CLASS_COLOURS, PALETTE, RUN_COLOURS, described, use_style
from histotransfer.figures.training import (
    by_seed,
    compared_curves,
    failure_signatures,
    learning_curves,
    unfreezing_timeline,
)

__all__ = [
    "CLASS_COLOURS",
    "PALETTE",
    "RUN_COLOURS",
    "by_labelled_patients",
    "by_seed",
    "choices",
    "claims",
    "colour_clusters",
    "colour_per_patient",
    "compared_curves",
    "confusion",
    "dense_block_with_gate",
    "described",
    "doses",
    "failure_signatures",
    "forest",
    "gallery",
    "growth",
    "images_per_patient",
    "learning_curves",
    "macenko_steps",
    "means_with_intervals",
    "overlays",
    "pareto",
    "patient_strips",
    "patients",
    "picture_table",
    "precision_recall",
    "race",
    "reliability_diagram",
    "roc",
    "stain_plane",
    "unfreezing_timeline",
    "use_style",
    "whole_network",
]

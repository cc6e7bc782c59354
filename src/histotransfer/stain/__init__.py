"""Colour normalisation of H&E tiles: Macenko, Reinhard, Vahadane; and stain jitter as the alternative.

Light that crosses stained tissue is absorbed exponentially (Beer-Lambert), so the *optical density* `-ln(I / I0)`
of a pixel is linear in how much of each stain lies there. Macenko and Vahadane estimate the two stain vectors of a
tile and render its concentrations anew with a reference's vectors; Reinhard matches mean and spread of the
colours in CIELAB.

- Macenko et al. 2009, "A method for normalizing histology slides for quantitative analysis", ISBI.
- Reinhard et al. 2001, "Color transfer between images", IEEE Computer Graphics and Applications 21(5).
- Vahadane et al. 2016, "Structure-preserving color normalization and sparse stain separation", IEEE TMI 35.
- Tellez et al. 2018, "Whole-slide mitosis detection in H&E breast histology using PHH3 ...", IEEE TMI 37(9).

On glass or ink the bare formulas give black tiles and purple glass, so every method first checks whether a tile can
be normalised at all. A tile that fails one of these guards is returned unchanged, with the reason::

    fallbacks = []
    normalised = Macenko().fit(target).transform(images, names=names, fallbacks=fallbacks)

One tile may show few nuclei or no glass. Where all tiles of a slide are available, one estimate from all of
them comes about twice as close to the truth::

    normalised = Macenko().fit_slide(reference_tiles).transform_slide(tiles)

Deviations from the papers, all methods: parameters are estimated on some 40,000 evenly spread pixels; the output
is rounded and undoes the `+ 1` under the logarithm; a tile that is already normalised is left unchanged.
"""

from histotransfer.stain.density import (
    GLASS_LEVEL,
    REFERENCE_CONCENTRATIONS,
    REFERENCE_STAINS,
    NotNormalisable,
    StainFit,
    absorbing_mask,
    angle_between,
    fit_stains,
    glass_density,
    ink_mask,
    macenko_stain_matrix,
    optical_density,
    sample_density,
    sparse_codes,
    tissue_mask,
    vahadane_stain_matrix,
)
from histotransfer.stain.jitter import StainJitter
from histotransfer.stain.maps import keep_glass, map_density, map_lab, to_lab
from histotransfer.stain.normalisers import (
    NORMALISERS,
    Fallback,
    LabFit,
    Macenko,
    NoNormalisation,
    Normaliser,
    Reinhard,
    Vahadane,
    count_reasons,
    normaliser,
)

__all__ = [
    "GLASS_LEVEL",
    "NORMALISERS",
    "REFERENCE_CONCENTRATIONS",
    "REFERENCE_STAINS",
    "Fallback",
    "LabFit",
    "Macenko",
    "NoNormalisation",
    "Normaliser",
    "NotNormalisable",
    "Reinhard",
    "StainFit",
    "StainJitter",
    "Vahadane",
    "absorbing_mask",
    "angle_between",
    "count_reasons",
    "fit_stains",
    "glass_density",
    "ink_mask",
    "keep_glass",
    "macenko_stain_matrix",
    "map_density",
    "map_lab",
    "normaliser",
    "optical_density",
    "sample_density",
    "sparse_codes",
    "tissue_mask",
    "to_lab",
    "vahadane_stain_matrix",
]

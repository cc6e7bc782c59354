# %% [markdown]
# # Colour normalisation: taking the stain out of the picture
#
# **After this chapter you can**
#
# - turn colours into amounts of stain by the Beer–Lambert law, and draw the plane that two stains span;
# - explain what Macenko, Vahadane and Reinhard change in an image, and how close each comes to the truth;
# - say what a normaliser must do with a tile that has no tissue;
# - measure, with an interval, whether normalisation helps a classifier.
#
# **Takes** about 25 minutes to read, 3 to run (phantom tissue, two cores). Exercises, estimated: an easy
# one 5 minutes, a medium one 15, a hard one 30.
# **Needs** logarithms, matrices, NumPy; chapter {doc}`Data <01_data>`.
#
# The paper says "colour normalisation" and does not state the method. Macenko's is a common choice. This chapter finds no gain from it, so
# the claims C1 to C5 are tested in the colours of the files, although the paper normalises; whether normalisation helps is a claim of its
# own (C6, chapter {doc}`07_ablations`).

# %% tags=["parameters"]
profile = "phantom"
data_root = ""
seed = 0
device = "cpu"
weights = ""

# %%
import os

import pandas as pd

from histotransfer.book.chapters import begin, project_root
from histotransfer.config import ladder_config

os.chdir(project_root())  # chapters name their records from there
chosen = {"seed": seed, "device": device, "weights": weights}
root = begin(profile=profile, data_root=data_root, **chosen)

# %% [markdown]
# ## What came out
#
# Does a classifier separate benign from malignant better when colours are normalised? The classifier is a {term}`frozen probe`: a logistic
# regression on the features of a network that never saw tissue. {term}`AUROC` is the chance that a malignant image gets a higher score than a
# benign one. Brackets hold a 95 % interval, computed from whole patients (chapter {doc}`05_evaluation` explains all three). **No gain is shown. All ways
# of normalising but one lower both AUROC and accuracy**; Vahadane's method on single tiles shows no difference.
#
# The probe got the same real images, split by patient, as scanned and normalised in five ways. Each row of
# {numref}`tab-colour-worth` is one way minus as scanned, so a value below 0 is worse. If the 95 % interval
# ({term}`clustered by patient`) contains 0, no difference is shown. The values are means over 40x, 100x and 200x of
# {term}`AUROC` and of accuracy. The end of the chapter shows each magnification. The methods are explained below;
# `by-slide` estimates once from all {term}`tiles <tile>` of a {term}`slide`. Reinhard's method left more than a quarter of the images as
# they were ({numref}`tab-colour-real-sent-back`), so its row mixes two treatments.

# %% mystnb={"figure": {"name": "tab-colour-worth", "caption": "Real tissue: a frozen probe after each way of normalising, minus the same probe on images as scanned; mean over 40x, 100x and 200x, paired and clustered by patient."}}
from histotransfer.experiments.normalisation import RUNS
from histotransfer.report.tables import formatted, gap, read_experiment

metrics = ["auroc", "accuracy"]
real = read_experiment("results/normalisation", RUNS)


def gaps_to_none(runs):
    found = []
    for name in RUNS[1:]:
        table = gap(runs["none"], runs[name], metrics=metrics)
        found.append(table.assign(run=name))
    return pd.concat(found).query("magnification != '400'")


real_gaps = gaps_to_none(real)
formatted(real_gaps[real_gaps["magnification"] == "mean"], metrics)

# %% [markdown]
# ## Optical density
#
# A thin layer of stained tissue absorbs a fixed share of the light that reaches it. With the concentration $c$ of a stain,
# and its absorption $s$ at one wavelength,
#
# $$
# \begin{aligned}
# \mathrm{d}I &= -\,s\,c\,I\,\mathrm{d}z, \\
# I &= I_0\,e^{-s\,c\,z}.
# \end{aligned}
# $$
#
# This is the law of Beer and Lambert. The logarithm of $I$ is linear in the amount of each stain, and stains add up. If the
# thickness $z$ is counted as part of the amounts, {term}`optical density` is
#
# $$ \mathrm{OD} = -\ln \frac{I}{I_0} = C\,S. $$
#
# This book uses the natural logarithm. Other texts use $\log_{10}$, and their densities are smaller by a factor of
# $\ln 10 = 2.30$. {numref}`tab-colour-symbols` explains the symbols.
#
# :::{table} Symbols of the law of Beer and Lambert.
# :name: tab-colour-symbols
#
# | symbol | meaning | shape |
# |---|---|---|
# | $I$, $I_0$ | intensity after and before the tissue, per channel | $N \times 3$ |
# | $C$ | concentrations: how much haematoxylin and eosin | $N \times 2$ |
# | $S$ | stain matrix: each stain's colour in optical density | $2 \times 3$ |
#
# :::
#
# Each time the light is halved, the density grows by the same step, $\ln 2 = 0.69$ ({numref}`tab-colour-levels`). The code
# uses $I + 1$ instead of $I$, so that black has a density too. $I_0$ is 240.

# %% mystnb={"figure": {"name": "tab-colour-levels", "caption": "Grey levels and their optical densities."}}
import numpy as np

from histotransfer.stain import optical_density

levels = np.array([239, 119, 59, 29, 14], dtype=np.uint8)
pd.DataFrame({"level": levels, "OD": optical_density(levels).round(2)})

# %% [markdown]
# Colours multiply, densities add. On {term}`phantom tissue <phantom>` the amounts of stain are known. There the law gives
# every pixel of the image, up to rounding to whole grey levels:

# %%
from histotransfer.datasets import phantom

field = phantom.breast_image(0, 200, 0, seed=seed)
light = field.brightness * np.exp(
    -field.concentrations @ field.stain_matrix
)
difference = np.abs(field.image - light).max()
f"largest difference: {difference:.2f} grey levels"

# %% [markdown]
# In {numref}`fig-stain-sliders` you change the amounts of the two stains, and the law is computed again for every pixel.

# %% mystnb={"figure": {"name": "fig-stain-sliders", "caption": "This page's own data: the same field with the amounts of haematoxylin and eosin that you choose."}}
from histotransfer.book.instruments import stain_sliders

stain_sliders(field)

# %% [markdown]
# ## The stain plane
#
# Two stains span a **plane** in the space of densities, and the pixels of a slide lie near it {cite}`ruifrok2001`. In
# {numref}`fig-plane` each dot is a pixel in its own colour, and the two lines are the stains. A pixel on a line holds that
# stain alone. All other pixels are mixtures.

# %%
from histotransfer.datasets import breakhis
from histotransfer.pictures import decode
from histotransfer.stain import absorbing_mask, sample_density

table = breakhis.load(root)
at_200 = table[table["magnification"] == 200]
first = at_200.groupby("group")["path"].first()
tiles = [decode(path) for path in first.head(4)]
density = sample_density(tiles[0])
tissue = density[:, absorbing_mask(density)]
channels, pixels = tissue.shape
f"{pixels} pixels with tissue, a density for each of {channels} channels"

# %% mystnb={"figure": {"name": "fig-plane", "caption": "This page's own data: optical densities of the tissue pixels of one field in their own colours, in the plane of their two largest axes (above) and seen from its edge (below), with the stain vectors that Macenko's method finds."}, "image": {"alt": "Two scatter plots: face on, the pixels fan out between the lines of haematoxylin and eosin; edge on, they are a thin band."}}
from histotransfer.figures import stain_plane
from histotransfer.stain import Macenko, Reinhard, Vahadane

macenko, vahadane, reinhard = Macenko(), Vahadane(), Reinhard()
figure = stain_plane(tissue, macenko.stain_matrix(tiles[0]))

# %% [markdown]
# ## Three methods
#
# **Macenko** {cite}`macenko2009` finds the plane with the two leading eigenvectors of the covariance of the densities. Each
# pixel has an angle in that plane. The extreme angles (the 1st and 99th percentile) are taken as the two stains.
#
# **Vahadane** {cite}`vahadane2016` factorises the densities instead. It looks for stains $S$ and amounts $C$ that explain the
# densities best, where no amount is negative and most pixels hold little of one stain:
#
# $$
# \begin{aligned}
# \min_{C,\,S \ge 0} \; & \tfrac12 \lVert \mathrm{OD} - C\,S \rVert^2 + \lambda \lVert C \rVert_1 \\
# \text{with } & \lVert S_i \rVert = 1.
# \end{aligned}
# $$
#
# Both then scale the amounts of each stain until their 99th percentile is that of a reference, and compute the picture
# again with the reference's stains.
#
# **Reinhard** {cite}`reinhard2001` does not estimate stains. It shifts and scales the three channels of a perceptual colour
# space (here CIELAB) until their mean and spread are those of a reference.
#
# ## Macenko's method, in five steps
#
# {numref}`fig-macenko-steps` shows the five steps. The code below it writes them out.

# %% mystnb={"figure": {"name": "fig-macenko-steps", "caption": "Macenko's method on a phantom field. 1: the picture. 2: the density of each pixel in red, green and blue, near a plane. 3: the angles of the pixels in that plane; the 1st and 99th percentile are the two stains. 4: the picture in each stain alone, framed in the colour of its line in step 3. 5: both amounts rendered with the stains of the reference."}}
from histotransfer.figures import macenko_steps

figure = macenko_steps(tiles[0], macenko)

# %% [markdown]
# Steps 2 and 3: the plane's axes are the eigenvectors with the largest variance, and the stains are at the extreme angles:


# %%
def macenko_stains(tissue):
    """Stain vectors of tissue densities (3, N), haematoxylin first."""
    _, axes = np.linalg.eigh(np.cov(tissue))
    plane = axes[:, [2, 1]].T
    plane = plane * np.sign(plane[0].sum())  # densities are positive
    along, across = plane @ tissue
    ends = np.percentile(np.arctan2(across, along), [1, 99])
    stains = np.stack([np.cos(ends), np.sin(ends)], axis=1) @ plane
    return stains[np.argsort(-stains[:, 0])]  # it absorbs more red


# %% [markdown]
# Steps 4 and 5: each pixel is split into amounts of both stains, the amounts are scaled to those of the reference, and the
# picture is computed again with the reference's stains:


# %%
def restain(image, stains, reference, strength):
    """An image with its own stains replaced by the reference's."""
    density = -np.log((image.reshape(-1, 3) + 1) / 240)
    amounts = density @ np.linalg.pinv(stains)
    amounts *= strength / np.percentile(amounts, 99, axis=0)
    light = 240 * np.exp(-amounts @ reference) - 1
    return light.clip(0, 255).round().reshape(image.shape)


# %% [markdown]
# The module does the same with look-up tables and guards. Its picture differs by at most one grey level:

# %%
from histotransfer.stain import angle_between, tissue_mask

stains = macenko_stains(density[:, tissue_mask(density)])
target, strength, _ = macenko.reference
by_hand = restain(tiles[0], stains, target, strength)
apart = np.abs(by_hand - macenko.transform(tiles[0])).max()
angles = map(angle_between, stains, macenko.stain_matrix(tiles[0]))
assert apart <= 1 and max(angles) < 0.1
f"by hand and by the module: {apart:.0f} grey level apart at most"

# %% [markdown]
# On phantom tissue the true stains are known. The error of an estimate is the angle between the two, in degrees
# ({numref}`tab-colour-angles`):

# %% mystnb={"figure": {"name": "tab-colour-angles", "caption": "Angle between the estimated and the true stain vector, in degrees: lowest, median and highest of twelve phantom patients."}}
errors = {"haematoxylin": {}, "eosin": {}}
for patient in range(12):
    field = phantom.breast_image(patient, 200, 0, seed=seed)
    for method in (macenko, vahadane):
        found = method.stain_matrix(field.image)
        angles = map(angle_between, found, field.stain_matrix)
        for stain, angle in zip(errors, angles, strict=True):
            errors[stain][method.name, patient] = angle
by_method = pd.DataFrame(errors).groupby(level=0)
by_method.agg(["min", "median", "max"]).stack(0, future_stack=True).round(1)

# %% [markdown]
# ## Four patients, before and after
#
# All methods use a **published reference** here. Nothing is fitted to test patients ({numref}`fig-normalised`).

# %% mystnb={"figure": {"name": "fig-normalised", "caption": "This page's own data: fields of four patients as scanned and after each method, with the published reference of each."}, "image": {"alt": "Four rows of four tissue fields: colours differ between patients in the top row, and less in the three rows below."}}
from histotransfer.figures import picture_table

methods = {
    "Macenko": macenko,
    "Vahadane": vahadane,
    "Reinhard": reinhard,
}
rows = {"as scanned": tiles}
rows |= {name: method.transform(tiles) for name, method in methods.items()}
figure = picture_table(rows, first.index[:4])

# %% [markdown]
# How different are the patients' colours before and after? {numref}`tab-colour-spread` has the spread of their mean colours:

# %% mystnb={"figure": {"name": "tab-colour-spread", "caption": "How different patients are: standard deviation of their mean colours, in CIELAB units."}}
from histotransfer.stain import to_lab

every = [decode(path) for path in first]
spread = {}
for name, method in {"as scanned": None, **methods}.items():
    images = method.transform(every) if method else every
    means = [to_lab(image).mean(axis=(0, 1)) for image in images]
    spread[name] = np.std(means, axis=0)
pd.DataFrame(spread, index=["L*", "a*", "b*"]).T.round(1)

# %% [markdown]
# Similar colours need not be right: if you paint every tile pink, the spread is 0. On a phantom the right answer is known.
# The same tissue is simulated again with the stains, the staining strength and the light of a reference patient.
# {numref}`tab-colour-truth` has the mean colour distance to that truth (CIELAB $\Delta E$; about 2 is just visible), over
# eight patients and two references.
#
# **By tile**, a method sees one tile at a time, as in training. If that tile holds few or pale nuclei, the method
# treats them as fully stained. It also assumes that glass has the level 240. **By slide** (`fit_slide`, `transform_slide`), the stains,
# their strength and the level of the glass are estimated once from all tiles of a slide.

# %% mystnb={"figure": {"name": "tab-colour-truth", "caption": "Phantom tissue: mean distance (Delta E) to the colours that the reference patient's laboratory would have given, as scanned and after each way of normalising."}}
from histotransfer.experiments.normalisation import distances_to_truth

patients = range(1, 24, 3)
distances = [
    distances_to_truth(reference, patients, seed=seed)
    for reference in (0, 12)
]
pd.concat(distances).groupby(level=0, sort=False).mean().round(1)

# %% [markdown]
# Reinhard gives tissue with few nuclei the colours of tissue with many. Two fields differ in more than their stain.
#
# ## Tiles that must be left alone
#
# A tile of glass has no stain to estimate. The published formulas do not check this ({numref}`fig-guards`).

# %%
white = np.full((128, 128, 3), 243, dtype=np.uint8)
hard = {
    "all white": white,
    "all grey": np.full_like(white, 128),
    "one pixel": white.copy(),
    "99 % white": white.copy(),
    "all pink": np.full_like(white, (230, 150, 190)),
}
hard["one pixel"][64, 64] = (120, 60, 140)
hard["99 % white"][:13, :13] = tiles[0][:13, :13]

# %% mystnb={"figure": {"name": "fig-guards", "caption": "This page's own data: tiles without enough tissue: the result of the published formulas (or the error they stop with), and the result of the guarded methods."}, "image": {"alt": "A table of pictures: the formulas turn blank tiles black, dark or purple or stop with an error; the guarded methods return each tile as it was."}}
from histotransfer.stain.unguarded import unguarded

blank = list(hard.values())
rows = {"tile": blank}
for name, method in methods.items():
    formula = [unguarded(method.name, tile) for tile in blank]
    rows |= {f"{name}\nformula": formula}
    rows |= {f"{name}\nguarded": method.transform(blank)}
figure = picture_table(rows, list(hard))

# %% [markdown]
# The methods of this book check each tile first. A tile that fails such a guard is returned unchanged, with the reason
# ({numref}`tab-colour-reasons`):

# %% mystnb={"figure": {"name": "tab-colour-reasons", "caption": "Why each method left these tiles unchanged."}}
reasons = {}
for name, method in methods.items():
    fallbacks = []
    done = method.transform(
        list(hard.values()), names=list(hard), fallbacks=fallbacks
    )
    assert all(map(np.array_equal, done, hard.values()))
    reasons[name] = dict(fallbacks)
pd.DataFrame(reasons)

# %% [markdown]
# {numref}`tab-colour-sent-back` counts the images of this page that fail a guard:

# %% mystnb={"figure": {"name": "tab-colour-sent-back", "caption": "Images on this page at 200x that fail a guard, by reason."}}
from histotransfer.stain import count_reasons

fields = [decode(path) for path in at_200["path"]]
counts = {}
for name, method in methods.items():
    fallbacks = []
    method.transform(fields, fallbacks=fallbacks)
    counts[name] = count_reasons(fallbacks)
counted = pd.DataFrame(counts).fillna(0).astype(int)
counted.rename_axis(f"of {len(fields)} images", axis=1)

# %% [markdown]
# ## What it is worth
#
# Does normalisation help a classifier? The measurement is that of the {doc}`leakage chapter <06_leakage>`, split by patient: a
# logistic regression on frozen ImageNet features, with five folds. Every image is predicted by a probe that saw no image
# of its patient. The images are the same each time, and only their colours differ. First comes phantom tissue, computed on
# this page ({numref}`tab-colour-phantom-probe`, {numref}`fig-phantom-probe`):

# %%
from pathlib import Path

from histotransfer.experiments import normalisation

config = ladder_config("phantom", chosen)
phantom_root = begin(profile="phantom", data_root="", **chosen)
out = Path("_build/experiments") / "phantom-normalisation"
normalisation.run(config, phantom_root, out, report=lambda line: None)
live = read_experiment(out, RUNS)

# %% mystnb={"figure": {"name": "tab-colour-phantom-probe", "caption": "Phantom tissue: a frozen probe after each way of normalising, out of fold, mean over 40x, 100x and 200x."}}
from histotransfer.report.tables import with_intervals


def means(runs):
    table = with_intervals(runs)
    return table[table["magnification"] == "mean"]


formatted(means(live), metrics)

# %% mystnb={"figure": {"name": "fig-phantom-probe", "caption": "Phantom tissue: AUROC of a frozen probe, split by patient, after each way of normalising minus as scanned, with patient-clustered 95 % intervals of the paired difference."}, "image": {"alt": "Dots with intervals around a vertical line at zero, one colour per way of normalising, at each magnification."}}
from histotransfer.figures import forest

figure = forest(gaps_to_none(live), "auroc")

# %% [markdown]
# Then real tissue, with pictures of 224 pixels, from the records in `results/normalisation`, which this command makes:
#
# ```sh
# histotransfer experiment normalisation --profile lite --data DIR \
#   --out results/normalisation
# ```
#
# {numref}`tab-colour-real-probe` has the scores. {numref}`fig-real-probe` has the differences, on the same images and
# patients. The 41 images at 400x are too few to show anything and are left out.

# %% mystnb={"figure": {"name": "tab-colour-real-probe", "caption": "Real tissue: a frozen probe after each way of normalising, out of fold, mean over 40x, 100x and 200x."}}
formatted(means(real), metrics)

# %% mystnb={"figure": {"name": "fig-real-probe", "caption": "Real tissue: AUROC of a frozen probe, split by patient, after each way of normalising minus as scanned, with patient-clustered 95 % intervals of the paired difference."}, "image": {"alt": "Dots with intervals around a vertical line at zero, one colour per way of normalising, at each magnification."}}
lower = (
    real_gaps.query("magnification == 'mean'").groupby("run")["high"].max()
    < 0
)
assert list(lower.index[~lower]) == ["vahadane"]
figure = forest(real_gaps, "auroc")

# %% [markdown]
# Two explanations are possible. A method that sees one tile gives the darkest nuclei of each tile the same darkness, but how
# dark nuclei are is part of the diagnosis. And in these slides the colour predicts the label. Without
# the colour the probe loses a shortcut; it does not lose knowledge of tissue. How well colour alone predicts is measured below.
#
# Estimating by slide comes closest to the truth on phantoms. On real tissue it lowers AUROC and accuracy too. On phantoms,
# whose stains do not depend on the label, its AUROC is higher ({numref}`fig-phantom-probe`). Normalisation is meant for
# images from another laboratory, and all of these images come from one.
#
# **Colour alone.** Take three numbers per patient: the mean L\*, a\* and b\* of all images as scanned
# (`results/data/patients.csv`). A logistic regression, with five folds by patient, sees nothing else of the tissue. It
# gives one score per patient, where the probe gives one per image. A patient's mean mixes magnifications, in shares that
# differ between patients ({numref}`tab-colour-alone`):

# %%
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

patients = pd.read_csv("results/data/patients.csv", index_col="patient")
by_colour = make_pipeline(StandardScaler(), LogisticRegression())
means_lab, truth = patients[["L", "a", "b"]], patients["label"]
margin = cross_val_predict(
    by_colour, means_lab, truth, cv=5, method="decision_function"
)

# %% mystnb={"figure": {"name": "tab-colour-alone", "caption": "Real tissue: a regression on the mean colour of each patient, out of fold, with 95 % intervals."}}
from histotransfer.evaluation.intervals import intervals

ids = dict.fromkeys(("image", "patient", "group"), patients.index)
logits = {"logit_benign": 0.0, "logit_malignant": margin}
colour_only = pd.DataFrame(ids | {"truth": truth.to_numpy()} | logits)
found = intervals(colour_only.assign(magnification=0)).loc[metrics]
found.round(2).assign(patients=len(patients))

# %% [markdown]
# So a classifier with a similar score on these images may be using the colour. A score on images as scanned is no evidence
# that it has learned tissue.
#
# **What was not normalised.** A tile whose stains cannot be estimated stays as it is. {numref}`tab-colour-real-sent-back`
# counts them. A way of normalising that is not in the table changed every image:

# %% mystnb={"figure": {"name": "tab-colour-real-sent-back", "caption": "Real tissue: images that each way of normalising left unchanged, by reason."}}
unchanged = {
    name: run.record["data"]["not_normalised"] for name, run in real.items()
}
images = real["none"].record["data"]["images"]
assert sum(unchanged["reinhard"].values()) > images / 4
pd.Series({
    (name, reason): count
    for name, reasons in unchanged.items()
    for reason, count in reasons.items()
}).to_frame(f"of {images} images")  # fmt: skip

# %% [markdown]
# ## Check yourself
#
# <details>
# <summary>Which two preprocessing steps does the paper apply, and why?</summary>
#
# Colour normalisation, so that a network does not use the laboratory's stain as a sign of the diagnosis. And augmentation
# by rotation and flips, so that a network learns from few images that the orientation does not matter. The paper does
# not state the method of the first or the amount of the second. Here normalisation did not help the probe.
#
# </details>
#
# <details>
# <summary>Why not fit the reference to the whole data set, test images included?</summary>
#
# Then the colours of the training images would depend on test images. A published reference depends on neither.
#
# </details>
#
# <details>
# <summary>Two patients have the same mean colour after normalisation. Are the colours right?</summary>
#
# That is not shown: if you paint every tile pink, the means agree as well. You need the truth, which only a phantom has.
#
# </details>

# %% [markdown]
# ## Exercises
#
# ```{exercise} Two stains, one pixel
# :label: ex-stain-level
#
# *Easy.* Light of level 240 enters the tissue. Haematoxylin alone lets half of it through, and eosin alone a quarter. Which
# level comes out where both stains lie on top of each other?
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.normalization import check_level

level = ...

check_level(level)

# %% [markdown] tags=["solution"]
# ````{solution} ex-stain-level
# :label: sol-stain-level
# :class: dropdown
#
# Densities add: $\ln 2 + \ln 4 = \ln 8$, and $240 / 8 = 30$.
#
# ```python
# level = 240 * 0.5 * 0.25
# ```
# ````

# %% [markdown]
# ```{exercise} Unmix
# :label: ex-stain-unmix
#
# *Medium.* Given densities of shape $(N, 3)$ and a stain matrix of shape $(2, 3)$, return the amounts of shape $(N, 2)$, so
# that $\mathrm{OD} = C\,S$.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.normalization import check_unmix


def unmix(density, stain_matrix): ...


check_unmix(unmix)

# %% [markdown] tags=["solution"]
# ````{solution} ex-stain-unmix
# :label: sol-stain-unmix
# :class: dropdown
#
# If the stains were at right angles, the product with $S^\top$ would be enough. They are not: both absorb green.
#
# ```python
# import numpy as np
#
#
# def unmix(density, stain_matrix):
#     return np.linalg.lstsq(stain_matrix.T, density.T)[0].T
# ```
# ````

# %% [markdown]
# ```{exercise} Break the normaliser
# :label: ex-stain-break
#
# *Hard.* Find a window of 48 × 48 pixels whose colours come out wrong when Macenko's method sees only this window. For any
# field, return its upper left corner as (row, column). `disagreement(method, field, row, column)` in
# `histotransfer.book.exercises.normalization` measures how wrong the colours are. It is the mean colour distance between
# the window normalised alone and the same window of the normalised field.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.normalization import check_window


def window(field): ...


check_window(window)

# %% [markdown] tags=["solution"]
# ````{solution} ex-stain-break
# :label: sol-stain-break
# :class: dropdown
#
# When the method sees only the window, it takes the extremes of the window for the two stains and their full strength. In
# the whole field they are not extremes. A network that gets small tiles sees such windows.
#
# ```python
# from itertools import product
#
# from histotransfer.book.exercises.normalization import WINDOW, disagreement
# from histotransfer.stain import Macenko
#
#
# def window(field):
#     starts = range(0, len(field) - WINDOW + 1, 16)
#     return max(
#         product(starts, starts),
#         key=lambda corner: disagreement(Macenko(), field, *corner),
#     )
# ```
# ````

# %% [markdown]
# ## Appendix: speed
#
# Each method is one look-up of the logarithm, one $3 \times 3$ product and one exponential per pixel. Its parameters are
# estimated on some 40,000 pixels. `benchmarks/stain.py` ran each method in turn with the fastest other implementation
# that was found. The record has original fields (700 × 460 pixels) and tiles of the size that the network gets
# ({numref}`tab-colour-race`). On all of BreakHis, decoding included, it extrapolates from repeated passes over a dozen
# original fields on two cores ({numref}`tab-colour-all-of-breakhis`).

# %% mystnb={"figure": {"name": "tab-colour-race", "caption": "Median milliseconds per image on one thread, of this module and of the fastest other implementation, side by side in one run."}}
import json

bench = json.loads(Path("results/bench/stain.json").read_text())
race = {}
for key, timing in bench["timings"].items():
    ms = {k: 1e3 * s for k, s in timing["median_seconds"].items()}
    ours, other = ms.pop("ours"), min(ms, key=ms.get)
    where = f"{key.split('_')[0]}, {timing['size']}"
    if timing["threads"] == 1:
        race[where] = ours, ms[other], other, bench["ratios"][key]
columns = ["ours (ms)", "other (ms)", "other", "times faster"]
pd.DataFrame(race, columns).T.infer_objects().round(1)

# %% mystnb={"figure": {"name": "tab-colour-all-of-breakhis", "caption": "Seconds to normalise all of BreakHis, extrapolated."}}
whole = {k: one["breakhis_seconds"] for k, one in bench["breakhis"].items()}
seconds = pd.Series(whole).round().astype(int)
seconds.to_frame("seconds for 7,909 images")

# %% [markdown]
# ## Take home
#
# - Stains add up in optical density, and two stains span a plane.
# - Macenko and Vahadane separate stains. Reinhard matches the mean and spread of colours.
# - One tile is too small to separate its stain from its tissue. A slide shows more.
# - Judge a normaliser first by what it does to tiles that it cannot handle.
# - Measure whether it helps a classifier. Pictures do not show that.
#
# **Further reading:** {cite}`macenko2009`, {cite}`reinhard2001`, {cite}`vahadane2016`.

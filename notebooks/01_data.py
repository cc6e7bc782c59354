# %% [markdown]
# # Data: what the images show, and whose they are
#
# **After this chapter you can**
#
# - read any image of BreakHis or LC25000 from its official folder into one table;
# - say why evidence is counted in *patients*, not in images;
# - make a split that keeps patients apart, and check that it does.
#
# **Takes** about 14 minutes to read, 1 to run (phantom tissue, two cores). Exercises, estimated: an easy
# one 5 minutes, a medium one 15, a hard one 30.
# **Needs** a little pandas; no chapter before this one.
#
# The public pages of this book show **phantom** tissue: simulated H&E images whose truth is known. They have the file names
# and folders of the real data sets, so the same code reads both. To run this chapter on real tissue, set `profile="lite"`
# and set `data_root` to the folder with the data sets.

# %% tags=["parameters"]
profile = "phantom"
data_root = ""
seed = 0
device = "cpu"

# %%
import os

from histotransfer.book.chapters import begin, brief, project_root

os.chdir(project_root())  # chapters name their records from there
root = begin(profile=profile, data_root=data_root, seed=seed, device=device)

# %% [markdown]
# ## One table for every data set
#
# BreakHis {cite}`spanhol2016` holds 7,909 images of benign and malignant breast tumours, photographed at four
# magnifications. This book keeps three words apart:
#
# - a {term}`slide` is a glass plate with a thin section of tissue;
# - a {term}`field` is the part of a slide that one photograph shows, so an image of BreakHis is a field;
# - a {term}`tile` is the square picture that a network is given.
#
# The file name holds everything that is known about an image:
#
# ```text
# SOB_<B|M>_<subtype>-<year>-<slide>-<magnification>-<sequence>.png
# ```
#
# A file with any other name is an error that gives its path. Nothing is guessed. Every loader of this book returns the
# same kind of table, with one row per image, and checks it against one schema ({numref}`tab-data-image-table`).

# %% mystnb={"figure": {"name": "tab-data-image-table", "caption": "The first rows of the image table, without the column `path`."}}
from histotransfer.datasets import breakhis

table = breakhis.load(root)
shown = ["label", "magnification", "patient", "group"]
brief(table.drop(columns="path").head(), shown)

# %% [markdown]
# **Who is a patient?** The file name holds a {term}`slide id`, such as 14-22549AB. Many papers count slide ids as patients, so
# the column is named `patient`. Without its letters the slide id is a {term}`base number`, here 14-22549. That is the
# column `group`.
#
# Nobody has documented whether 14-22549AB and 14-22549CD come from the same person. This book assumes that they do, which
# is the stricter choice: **a {term}`patient` is a base number** ({numref}`tab-data-counts`).

# %% mystnb={"figure": {"name": "tab-data-counts", "caption": "Images on this page by subtype, with the number of slide ids and base numbers."}}
from histotransfer.datasets.summary import count_images

called = {"patients": "slide ids", "groups": "base numbers"}
counts = count_images(table, by="subtype").rename(columns=called)
counts = counts.rename(index=lambda name: name.replace("_", " "))
counts[["all", *called.values()]].rename(columns={"all": "images"})

# %% [markdown]
# ## What the images look like
#
# Four subtypes are benign, four malignant ({numref}`fig-subtypes`).

# %% mystnb={"figure": {"name": "fig-subtypes", "caption": "This page's own data: one field of each subtype at 100x; the first row is benign."}, "image": {"alt": "Eight square tissue fields stained purple and pink, one for each of the four benign and four malignant subtypes."}}
from histotransfer.figures import gallery
from histotransfer.pictures import decode

at_100 = table[table["magnification"] == 100]
fields = at_100.groupby("subtype", sort=False).first().sort_values("label")
figure = gallery(
    [decode(path) for path in fields["path"]],
    [name.replace("_", "\n") for name in fields.index],
)

# %% [markdown]
# A phantom is computed with the law that gives real slides their colour (Beer–Lambert, chapter {doc}`02_normalization`). So
# two things are known at every pixel: how much of each stain it holds ({term}`H&E`: haematoxylin in nuclei, eosin around
# them), and whether it belongs to a region that carries the diagnosis ({numref}`fig-truth`).

# %%
import numpy as np

from histotransfer.datasets import phantom, tissue

field = phantom.breast_image(0, 100, 0, seed=seed)
alone = [
    tissue.render(
        field.concentrations * only, field.stain_matrix, field.brightness
    )
    for only in ([1, 0], [0, 1])
]
pale = 255 - (255 - field.image) // 5
shown = np.where(field.diagnostic_mask[..., None], field.image, pale)

# %% mystnb={"figure": {"name": "fig-truth", "caption": "A benign phantom field. Its glands, rings of nuclei around a white space, carry the diagnosis (right: everything else is pale). Below, the same field in each stain alone: the nuclei hold nearly all of the haematoxylin."}, "image": {"alt": "Four pictures of one simulated field: as it is; with everything pale but the glands; in haematoxylin alone, which shows purple nuclei; in eosin alone, which shows pink tissue with pale holes where nuclei are."}}
figure = gallery(
    [field.image, shown, *alone],
    ["field", "diagnostic regions", "haematoxylin alone", "eosin alone"],
    columns=2,
)

# %% [markdown]
# ## Few patients, many images
#
# A thousand images can come from a dozen people. Images of one patient share a knife, a bath of stain and a microscope.
# They are not independent evidence.
#
# The real images behind this book are a subset of BreakHis. It is a convenience sample: the images that could be had
# ({doc}`../book/data`). Its record is in `results/data` and holds counts and colours only. The command
# `histotransfer experiment patients --data DIR` writes it. In this subset a few patients give most of the images
# ({numref}`fig-per-patient`), and there are far fewer benign than malignant patients ({numref}`tab-data-balance`).

# %% mystnb={"figure": {"name": "fig-per-patient", "caption": "The real subset: images of each patient (base number). The patients in strong colour give half of the images of their class."}}
import pandas as pd

from histotransfer.figures import colour_per_patient, images_per_patient

subset = pd.read_csv("results/data/patients.csv", index_col="patient")
figure = images_per_patient(subset)

# %% mystnb={"figure": {"name": "tab-data-balance", "caption": "The real subset: images and patients of each class, at each magnification and in all. A patient may have images at several magnifications."}}
scopes = {"40x": ["40x"], "100x": ["100x"], "200x": ["200x"]}
scopes |= {"40x, 100x or 200x": [*scopes], "400x": ["400x"]}
labels, counts = subset["label"], {}
for scope, columns in scopes.items():
    images = subset[columns].sum(axis=1)
    counts["images", scope] = images.groupby(labels).sum()
    counts["patients", scope] = (images > 0).groupby(labels).sum()
balance = pd.DataFrame(counts).T.unstack(0)
balance.loc[[*scopes]]

# %% [markdown]
# Most scores in this book are means over 40x, 100x and 200x. They rest on the patients of the row `40x, 100x or 200x`. Two
# malignant patients have images at 400x only, so they are not counted there.

# %%
only_400 = subset[subset["400x"] == subset["images"]]
assert only_400["label"].tolist() == ["malignant"] * 2

# %% [markdown]
# Patients also differ in colour, and in this subset the two classes do so too ({numref}`fig-colours`):

# %% mystnb={"figure": {"name": "fig-colours", "caption": "The real subset: mean colour of each patient's images, with one standard deviation over them. Grey is where a* and b* are 0."}, "image": {"alt": "Scatter plot of real patients by their mean colour with whiskers over their images: most benign patients lie near grey at the upper left, most malignant patients lie further towards red and blue."}}
figure = colour_per_patient(subset)

# %% [markdown]
# Grey is at the upper left. Most benign patients are near it, and most malignant patients are not. The medians over
# patients say the same ({numref}`tab-data-colour-medians`):

# %% mystnb={"figure": {"name": "tab-data-colour-medians", "caption": "Real tissue: median over patients of their mean colour, in CIELAB."}}
medians = subset.groupby("label")[["L", "a", "b"]].median()
medians.round(1)

# %% [markdown]
# So in this subset the colour predicts the label. The files do not say whether tissue, stain or light is the reason. A
# network may learn the colour instead of the tissue. Chapter {doc}`02_normalization` measures how well colour alone
# predicts.
#
# Keep three things in mind when you read a score: there are few patients, the classes are unequal in a way that changes
# with the magnification, and 400x is too small to train on. `histotransfer data verify DIR` gives the same counts for
# your own copy, file by file.
#
# ## A split that keeps patients apart
#
# The paper states train : validation : test = 7 : 1 : 2. It does not state whether images or patients are divided. In this
# book all images of a base number stay in the same part. `grouped_split` makes five {term}`folds <fold>` of patients. It
# tests on one, validates on the next, and trains on the other three, which is 3 : 1 : 1 ({numref}`tab-data-split`). With
# the paper's 1 in 10 for validation, that part would hold a single benign patient.

# %% mystnb={"figure": {"name": "tab-data-split", "caption": "Images of each part of one split by patient, by class."}}
from histotransfer.splits import audit, content_hashes, grouped_split

split = grouped_split(table, fold=0, seed=seed)
pd.crosstab(split["split"], split["label"], margins=True)

# %% [markdown]
# The file `results/splits/breakhis.csv` lists the fold of every patient in the study, for each seed, for others to use and to cite.
# `histotransfer experiment splits --data DIR` writes it, and beside it the part of each LC25000 original.

# %% [markdown]
# An audit counts what two parts share: slide ids, base numbers, and images that are identical byte for byte
# ({numref}`tab-data-audit`).

# %% mystnb={"figure": {"name": "tab-data-audit", "caption": "This page's own data: what each pair of parts of that split shares."}}
hashes = content_hashes(table)
pd.DataFrame(audit(split, hashes)).T.rename(columns=called)

# %% [markdown]
# A split by image puts nearly every test patient into the training part as well. That is {term}`leakage`
# ({numref}`tab-data-audit-by-image`):

# %% mystnb={"figure": {"name": "tab-data-audit-by-image", "caption": "This page's own data: what the test part and the training part of a split by image share."}}
from sklearn.model_selection import train_test_split

train, test = train_test_split(
    table, test_size=0.2, stratify=table["label"], random_state=seed
)
by_image = table.assign(split="train")
by_image.loc[test.index, "split"] = "test"
shared = pd.DataFrame(audit(by_image, hashes)).T.rename(columns=called)
shared.loc[["test/train"]]

# %% [markdown]
# ## The source task: LC25000
#
# LC25000 {cite}`borkowski2019` has 250 originals per class. Rotations and flips turned each into about twenty images. All
# images of one original are a **duplicate group**, which must stay in one part of a split. A random split leaves a
# near-copy of almost every test image in training ({numref}`tab-data-lung-counts`, {numref}`fig-duplicates`).

# %% mystnb={"figure": {"name": "tab-data-lung-counts", "caption": "Images of LC25000 on this page by class, with the number of duplicate groups."}}
from histotransfer.datasets import lc25000

lung = lc25000.load(root)
originals = {"groups": "duplicate groups"}
count_images(lung).drop(columns="patients").rename(columns=originals)

# %% mystnb={"figure": {"name": "fig-duplicates", "caption": "This page's own data: four files of one duplicate group: the same original, rotated and flipped."}, "image": {"alt": "Four lung tissue fields that are visibly rotated and mirrored copies of one another."}}
group = lung["group"].iloc[0]
copies = lung[lung["group"] == group].head(4)
figure = gallery(
    [decode(path) for path in copies["path"]], [group] * len(copies)
)


# %% [markdown]
# ## Check yourself
#
# <details>
# <summary>A colleague has 2,000 images of 20 patients. How large is the sample?</summary>
#
# 20, if you want to know what happens to a new patient. More images only say more about each of the 20.
#
# </details>
#
# <details>
# <summary>Why is <code>group</code> stricter than <code>patient</code> here?</summary>
#
# Slide ids that differ only in their letters may belong to one person. Nobody has documented it either way. If they
# stay together, they cannot leak.
#
# </details>
#
# <details>
# <summary>Accuracy is 0.70 and 70 % of the test images are malignant. What has been learned?</summary>
#
# Perhaps nothing: always saying "malignant" gives 0.70 as well. Compare every accuracy with the share of the larger class.
#
# </details>

# %% [markdown]
# ## Exercises
#
# ```{exercise} Count the people
# :label: ex-data-people
#
# *Easy.* How many independent people does an image table hold for each label? Return a Series or a dictionary from label
# to number.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.data import check_people


def people(table): ...


check_people(people)

# %% [markdown] tags=["solution"]
# ````{solution} ex-data-people
# :label: sol-data-people
# :class: dropdown
#
# Rows are images, and `patient` is a slide id. `group` is the strictest answer to who a person is.
#
# ```python
# def people(table):
#     return table.groupby("label")["group"].nunique()
# ```
# ````

# %% [markdown]
# ```{exercise} Find the leak
# :label: ex-data-leak
#
# *Medium.* A split is an image table whose column `split` holds train, validation or test. Return the set of base numbers
# that are in more than one part. Counting slide ids misses one of the leaks in the check.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.data import check_leaking


def leaking(split): ...


check_leaking(leaking)

# %% [markdown] tags=["solution"]
# ````{solution} ex-data-leak
# :label: sol-data-leak
# :class: dropdown
#
# `audit` counts the same for every pair of parts, and also counts identical files.
#
# ```python
# def leaking(split):
#     parts = split.groupby("group")["split"].nunique()
#     return set(parts.index[parts > 1])
# ```
# ````

# %% [markdown]
# ```{exercise} Split by patient
# :label: ex-data-split
#
# *Hard.* Choose about a fifth of the patients as a test part. Return a boolean array with one value per row, True for test.
# No base number may be on both sides, both labels must be tested, and another seed must give another choice. scikit-learn
# has what you need.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.data import check_test_mask


def test_mask(table, seed): ...


check_test_mask(test_mask)

# %% [markdown] tags=["solution"]
# ````{solution} ex-data-split
# :label: sol-data-split
# :class: dropdown
#
# `StratifiedGroupKFold` balances the number of images over folds. `grouped_split` balances the number of patients.
#
# ```python
# import numpy as np
# from sklearn.model_selection import StratifiedGroupKFold
#
#
# def test_mask(table, seed):
#     folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
#     rows = folds.split(table, table["label"], groups=table["group"])
#     _, test = next(rows)
#     return np.isin(np.arange(len(table)), test)
# ```
# ````

# %% [markdown]
# ## Take home
#
# - Read every data set into one table, and guess nothing.
# - Split patients, not images. The audit of a good split shows zeros.
# - Copies are not new samples. In LC25000, count originals.
#
# **Further reading:** the BreakHis paper {cite}`spanhol2016`; {cite}`bussola2021` on how much leakage raises scores;
# chapter {doc}`05_evaluation` on intervals clustered by patient.

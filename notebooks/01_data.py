# %% [markdown]
# # Data: what these images are, and who they belong to
#
# **After this chapter you can**
#
# - read any image of BreakHis or LC25000 from its official folder into one table;
# - say why the *patient*, not the image, is the unit that counts;
# - make a split that keeps patients apart, and prove that it does.
#
# **Takes** about 13 minutes to read, 1 to run (phantom tissue, two cores), 50 for the exercises.
# **Needs** a little pandas; no chapter before this one.
#
# The public pages of this book show **phantom** tissue: synthetic H&E with a known truth, written to disk under the exact
# names and folders of the real data sets, so that the same loaders read both. Render the chapter on real tissue with
# `profile="lite"` and `data_root` set to the folder that holds the data sets.

# %% tags=["parameters"]
profile = "phantom"
data_root = ""
seed = 0
device = "cpu"

# %%
import os

from histotransfer.book.chapters import begin, project_root

os.chdir(project_root())  # chapters name their records from there
root = begin(profile=profile, data_root=data_root, seed=seed, device=device)

# %% [markdown]
# ## One table for every data set
#
# BreakHis {cite}`spanhol2016` holds 7,909 images of breast tumours, benign and malignant, photographed at four
# magnifications. Three words are kept apart here: a {term}`slide` is the glass plate with a thin section of tissue, a {term}`field` the
# part of it that one photograph shows (an image of BreakHis), a {term}`tile` the square picture that a network is given. A
# file name says all there is to know about an image:
#
# ```text
# SOB_<B|M>_<subtype>-<year>-<slide>-<magnification>-<sequence>.png
# ```
#
# A name outside this grammar is an error with its path; nothing is guessed. Every loader of this book returns the same
# table, one row an image, checked against one schema ({numref}`tab-data-image-table`).

# %% mystnb={"figure": {"name": "tab-data-image-table", "caption": "The image table, first rows; the path is left out."}}
from histotransfer.datasets import breakhis

table = breakhis.load(root)
table.drop(columns="path").head()

# %% [markdown]
# **Who is a patient?** The name holds a {term}`slide id`, such as 14-22549AB: the column `patient`, since others count it as
# one. Without its letters it is a {term}`base number`, 14-22549: the column `group`. Whether 14-22549AB and 14-22549CD are one
# person is documented nowhere. So the stricter reading is used throughout: in the words of this book a
# **{term}`patient` is a base number** ({numref}`tab-data-counts`).

# %% mystnb={"figure": {"name": "tab-data-counts", "caption": "Images of this page's own data, by subtype and magnification, with the slide ids and base numbers they are of."}}
from histotransfer.datasets.summary import count_images

called = {"patients": "slide ids", "groups": "base numbers"}
counts = count_images(table, by="subtype").rename(columns=called)
counts.rename(index=lambda name: name.replace("_", " "))

# %% [markdown]
# ## What the images look like
#
# Four subtypes are benign, four malignant ({numref}`fig-subtypes`).

# %% mystnb={"figure": {"name": "fig-subtypes", "caption": "One field of each subtype at 100x; the first row is benign."}, "image": {"alt": "Eight square tissue fields stained purple and pink, one for each of the four benign and four malignant subtypes."}}
from histotransfer.figures import gallery
from histotransfer.pictures import decode

at_100 = table[table["magnification"] == 100]
fields = at_100.groupby("subtype", sort=False).first().sort_values("label")
figure = gallery(
    [decode(path) for path in fields["path"]],
    [name.replace("_", " ") for name in fields.index],
)

# %% [markdown]
# The phantom obeys the law that makes real slides coloured (Beer–Lambert, chapter {doc}`02_normalization`), so its truth
# is known pixel by pixel: how much of each stain there is (haematoxylin in nuclei, eosin around them: {term}`H&E`), and which regions
# carry the diagnosis ({numref}`fig-truth`).

# %% mystnb={"figure": {"name": "fig-truth", "caption": "A phantom field of 200x and its truth, pixel by pixel: how much haematoxylin and how much eosin lies there (dark blue: little, yellow: much), and the regions that carry the diagnosis (yellow)."}, "image": {"alt": "A synthetic tissue field beside maps of its haematoxylin, its eosin, and a mask of the diagnostic regions."}}
from histotransfer.datasets import phantom

truth = phantom.breast_image(12, 200, 0, seed=seed)
haematoxylin, eosin = (
    truth.concentrations[..., 0],
    truth.concentrations[..., 1],
)
figure = gallery(
    [truth.image, haematoxylin, eosin, truth.diagnostic_mask],
    ["image", "haematoxylin", "eosin", "diagnostic regions"],
)

# %% [markdown]
# ## Few patients, many images
#
# A thousand images can be a dozen people. Images of one patient share a knife, a bath of stain and a microscope; they are
# not independent evidence ({numref}`fig-per-patient`, {numref}`fig-colours`).

# %% mystnb={"figure": {"name": "fig-per-patient", "caption": "Images of each patient (base number) of this page's own data, by class."}, "image": {"alt": "Bar chart of the number of images of each patient, benign patients in blue and malignant patients in orange."}}
from histotransfer.experiments.patients import per_patient
from histotransfer.figures import colour_per_patient, images_per_patient

patients = per_patient(table)
figure = images_per_patient(patients)

# %% mystnb={"figure": {"name": "fig-colours", "caption": "This page's own data: mean colour of each patient's images, with one standard deviation over them. Grey is where a* and b* are 0."}, "image": {"alt": "Scatter plot of phantom patients by their mean colour, with whiskers over their images; benign and malignant patients overlap."}}
figure = colour_per_patient(patients)

# %% [markdown]
# ## The same for the real subset
#
# The real images behind this book are a subset of BreakHis, a convenience sample ({doc}`../book/data`). From its committed record
# (`results/data`, counts and colours only, written by `histotransfer experiment patients --data DIR`):

# %% mystnb={"figure": {"name": "tab-data-balance", "caption": "The real subset: patients and images of each class, in all and at each magnification."}}
import pandas as pd

subset = pd.read_csv("results/data/patients.csv", index_col="patient")
magnifications = ["40x", "100x", "200x", "400x"]
grouped = subset.groupby("label")
balance = grouped[["images", *magnifications]].sum()
balance.insert(0, "patients", grouped.size())
balance

# %% [markdown]
# How many patients stand behind each number of {numref}`tab-data-balance`. Numbers of this book that are means over 40x, 100x and 200x
# rest on those of the last column: who was photographed at 400x only is not among them ({numref}`tab-data-patients-at`,
# {numref}`fig-real-per-patient`).

# %% mystnb={"figure": {"name": "tab-data-patients-at", "caption": "The real subset: how many patients of each class have an image at a magnification."}}
seen = subset[magnifications] > 0
seen["40x, 100x or 200x"] = seen[magnifications[:3]].any(axis=1)
seen.groupby(subset["label"]).sum()

# %% mystnb={"figure": {"name": "fig-real-per-patient", "caption": "Images of each real patient of the subset (base number), by class."}, "image": {"alt": "Bar chart: a few real patients give most of the images, and there are far fewer benign than malignant patients."}}
figure = images_per_patient(subset)

# %% mystnb={"figure": {"name": "fig-real-colours", "caption": "Real tissue: mean colour of each patient's images, with one standard deviation over them. Grey is where a* and b* are 0."}, "image": {"alt": "Scatter plot of real patients by their mean colour with whiskers over their images."}}
figure = colour_per_patient(subset)

# %% [markdown]
# Grey is at the upper left of {numref}`fig-real-colours`. Most benign patients lie near it, most malignant ones do not, as the medians
# over patients say ({numref}`tab-data-colour-medians`):

# %% mystnb={"figure": {"name": "tab-data-colour-medians", "caption": "Real tissue: median over patients of their mean colour, in CIELAB."}}
grouped[["L", "a", "b"]].median().round(1)

# %% [markdown]
# So in this subset colour goes with the label, and nothing with the files says why: tissue, stain or light. A network may learn
# it in place of tissue; {doc}`02_normalization` measures how far colour alone gets.
#
# Few patients, unequal classes that change with the magnification, 400x too small to train on: know this before reading any
# score. `histotransfer data verify DIR` says the same of your own copy, file by file.
#
# ## A split that keeps patients apart
#
# The paper states train : validation : test = 7 : 1 : 2, and does not state whether it divides images or patients. Here the
# base number is never divided. `grouped_split` gives one of five patient-disjoint test {term}`folds <fold>` and a tenth for validation
# ({numref}`tab-data-split`).

# %% mystnb={"figure": {"name": "tab-data-split", "caption": "Images of each part of one split by patient, by class."}}
from histotransfer.splits import audit, content_hashes, grouped_split

split = grouped_split(table, fold=0, seed=seed)
pd.crosstab(split["split"], split["label"], margins=True)

# %% [markdown]
# The audit counts what any two parts share: slide ids, base numbers, and images that are the same byte for byte ({numref}`tab-data-audit`).

# %% mystnb={"figure": {"name": "tab-data-audit", "caption": "What any two parts of that split share."}}
hashes = content_hashes(table)
pd.DataFrame(audit(split, hashes)).T.rename(columns=called)

# %% [markdown]
# Splitting by image instead puts nearly every test patient into the training part as well ({term}`leakage`; {numref}`tab-data-audit-by-image`):

# %% mystnb={"figure": {"name": "tab-data-audit-by-image", "caption": "What the test part and the training part of a split by image share."}}
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
# LC25000 {cite}`borkowski2019` was made from 250 originals a class by rotation and flips, about twenty copies each. Its
# unit is the **duplicate group**; a random split leaves a near-copy of almost every test image in training
# ({numref}`tab-data-lung-counts`, {numref}`fig-duplicates`).

# %% mystnb={"figure": {"name": "tab-data-lung-counts", "caption": "Images of LC25000 on this page, by class, with the duplicate groups they are of."}}
from histotransfer.datasets import lc25000

lung = lc25000.load(root)
originals = {"groups": "duplicate groups"}
count_images(lung).drop(columns="patients").rename(columns=originals)

# %% mystnb={"figure": {"name": "fig-duplicates", "caption": "Four files of one duplicate group: the same original, turned and flipped."}, "image": {"alt": "Four lung tissue fields that are visibly rotated and mirrored copies of one another."}}
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
# 20, where the question is what will happen to a new patient. The images say how well each of the 20 is known.
#
# </details>
#
# <details>
# <summary>Why is <code>group</code> stricter than <code>patient</code> here?</summary>
#
# Slide ids that differ in their letters only may be of one person. Nobody has said so, and nobody has said the
# opposite; kept together they cannot leak.
#
# </details>
#
# <details>
# <summary>Accuracy is 0.70 and 70 % of the test images are malignant. What has been learned?</summary>
#
# Perhaps nothing: always saying "malignant" gives 0.70. Look at the share of the larger class before any accuracy.
#
# </details>

# %% [markdown]
# ## Exercises
#
# ```{exercise} Count the people
# :label: ex-data-people
#
# *Easy.* How many independent people does an image table hold of each label? Return a Series or a dictionary, label to number.
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
# Rows are images and `patient` is a slide id; `group` is the strictest reading of who a person is.
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
# *Medium.* A split is an image table whose column `split` holds train, validation or test. Return the set of base numbers that
# stand in more than one part. The check hides a leak that a count by slide id does not see.
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
# `audit` counts the same for every pair of parts, and identical files besides.
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
# *Hard.* Choose about a fifth of the patients as a test part: return a boolean array, one value a row, True for test. No base number
# may stand on both sides, both labels must be tested, and another seed must give another choice. scikit-learn has what is needed.
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
# `StratifiedGroupKFold` balances images over folds; `grouped_split` balances patients, whoever has many images.
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
# - One table, one grammar, no guesses.
# - The patient is the unit: 7 : 1 : 2 means patients, and the audit shows zeros.
# - Copies are not samples: LC25000 counts originals.
#
# **Further reading:** the BreakHis paper {cite}`spanhol2016`; {cite}`bussola2021` on what leakage between parts is
# worth; chapter {doc}`05_evaluation` for intervals that respect patients.

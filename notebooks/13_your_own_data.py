# %% [markdown]
# # Your own data
#
# **After this chapter you can**
#
# - describe your images in a table, so that every split keeps patients apart;
# - train the ladder and two baselines on them, and say with an interval whether training was worth it;
# - measure how much a few labelled patients of yours improve a network from elsewhere;
# - predict new pictures, and say what such a prediction does not mean.
#
# **Takes** about 15 minutes to read, 2 to run (phantom tissue, two cores). Exercises, estimated: an easy
# one 5 minutes, a medium one 15, a hard one 30.
# **Needs** chapters {doc}`Data <01_data>`, {doc}`Transfer <04_transfer>` and {doc}`Evaluation <05_evaluation>`;
# for real use about ten patients of each class.
#
# If `images` is empty, this chapter uses phantom images. For your own images, set `images` to a CSV file. Or set it to a
# folder with one subfolder per class, and set `pattern`, which says how to find the patient in a file name (see the last
# exercise below). Paths are relative to the repository:
#
# ```sh
# histotransfer book run 13_your_own_data --out mine.ipynb \
#   -p profile lite -p images my.csv
# histotransfer book run 13_your_own_data --out mine.ipynb \
#   -p profile lite -p images my-folder \
#   -p pattern '(?P<patient>P\d+)_.*'
# ```
#
# If `data_root` is set, the network learns lung tissue (LC25000) first.

# %% tags=["parameters"]
profile = "phantom"
data_root = ""
images = ""
pattern = ""
seed = 0
device = "cpu"
weights = ""

# %%
import os

from histotransfer.book.chapters import begin, brief, project_root
from histotransfer.config import ladder_config

os.chdir(project_root())  # chapters name their records from there
chosen = {"seed": seed, "device": device, "weights": weights}
more = {"images": images, "pattern": pattern}
phantom_root = begin(profile="phantom", **more, **chosen)
if images:
    config = ladder_config(profile, chosen)
else:
    short = {"folds": 3, "breakhis_schedule": "head:2,block4:1"}
    config = ladder_config("phantom", chosen | short)

# %% [markdown]
# ## A table of your images
#
# Write a CSV file with one row per image ({numref}`tab-own-columns`). Paths are relative to the CSV file. A label can be any
# word. A patient must have the same name in every row.
#
# :::{table} Columns of the CSV.
# :name: tab-own-columns
#
# | column | meaning | required? |
# |---|---|---|
# | `path` | the picture: PNG, JPEG, TIFF, WebP, JPEG 2000 ... | yes |
# | `label` | the class to predict | yes |
# | `patient` | whose image it is | yes |
# | `magnification` | a whole number, `40` or `40x`; metrics are computed for each | no |
# | `group` | images that must stay together, if these are more than one patient's | no |
#
# :::
#
# The phantom images, in such a file:

# %%
from pathlib import Path

import pandas as pd

from histotransfer.datasets import breakhis, own

made = Path("_build/experiments")
made.mkdir(parents=True, exist_ok=True)
source = images
if not images:
    stand_in = breakhis.load(phantom_root)
    stand_in = stand_in[stand_in["magnification"].isin([100, 200])]
    source = own.write_csv(stand_in, made / "stand-in.csv")

# %% [markdown]
# Each mistake is reported with its row. Nothing is read until the whole table is correct. Then {numref}`tab-own-counts` counts
# what is there.

# %%
from histotransfer.errors import HistotransferError

broken = made / "broken.csv"
broken.write_text("path,label\nnowhere.png,benign\n")
try:
    own.load(broken)
except HistotransferError as error:
    print(error)

# %% mystnb={"figure": {"name": "tab-own-counts", "caption": "Images and patients that the loader found, by label."}}
table = own.load(source, pattern)
by_label = table.groupby("label")
pd.DataFrame({
    "images": by_label.size(),
    "patients": by_label["patient"].nunique(),
    "kept together": by_label["group"].nunique(),
    "most images of one": by_label["group"].agg(
        lambda groups: groups.value_counts().max()
    ),
})  # fmt: skip

# %% [markdown]
# ## Splitting it
#
# The split ({numref}`tab-own-split`) and its audit ({numref}`tab-own-audit`) are made as in chapter {doc}`01_data`. If there are
# too few patients for the folds, an error says so.

# %% mystnb={"figure": {"name": "tab-own-split", "caption": "This page's own data: images of each part of the split, by label."}}
from histotransfer.splits import audit, content_hashes, grouped_split

split = grouped_split(table, folds=config.folds, seed=seed)
pd.crosstab(split["split"], split["label"])

# %% mystnb={"figure": {"name": "tab-own-audit", "caption": "This page's own data: what each pair of parts of the split shares."}}
pd.DataFrame(audit(split, content_hashes(table))).T

# %% [markdown]
# ## Training beside two baselines
#
# On phantom images, three folds and a few epochs are enough ({numref}`tab-own-scores`, {numref}`fig-own-forest`). This command
# does the same and prints these tables at its end:
#
# ```sh
# histotransfer ladder --profile lite --own my.csv --out results/mine \
#   --set normaliser=none
# ```
#
# Without its last line the profile normalises colours by Macenko's method. In chapter {doc}`07_ablations` that costs ranking. Run both, and
# choose on validation patients.

# %%
from histotransfer.study.runner import run_ladder

out = made / f"{config.profile}-own"
lung = data_root if images and data_root else None
mine = {"own": source, "pattern": pattern}
folder = run_ladder(config, lung, out, **mine, report=lambda line: None)

# %% mystnb={"figure": {"name": "tab-own-scores", "caption": "The ladder and two baselines on the test part."}}
from histotransfer.report.tables import (
    formatted,
    read_experiment,
    with_intervals,
)

runs = read_experiment(out, ["majority", "frozen-probe", "ladder"])
scores = with_intervals(runs)
brief(formatted(scores, ["accuracy", "balanced_accuracy", "auroc"]))

# %% mystnb={"figure": {"name": "fig-own-forest", "caption": "This page's own data: AUROC on the test patients, with 95 % intervals clustered by patient."}}
from histotransfer.figures import forest

figure = forest(scores, "auroc")

# %% [markdown]
# Was it worth training a network? {numref}`tab-own-gap` has the ladder minus the frozen probe, on the same images. `smallest` is
# the smallest true difference that a study with so few patients shows with a power of 0.8.

# %% mystnb={"figure": {"name": "tab-own-gap", "caption": "The ladder minus the frozen probe on the same images, paired by patient."}}
from histotransfer.report.tables import gap

metrics = ["accuracy", "auroc"]
found = gap(runs["frozen-probe"], runs["ladder"], metrics=metrics)
found["95 % interval"] = [
    f"{low:.2f} to {high:.2f}"
    for low, high in found[["low", "high"]].values
]
shown = ["value", "95 % interval", "smallest"]
found.set_index(["metric", "magnification"])[shown].round(2)

# %%
for metric, rows in found.groupby("metric"):
    low, high = rows.iloc[-1][["low", "high"]]
    answer = "no difference is shown: use the probe, which is cheaper"
    if low > 0:
        answer = "the ladder's is higher"
    elif high < 0:
        answer = "the ladder's is lower: use the probe"
    print(f"{metric}: {answer}")

# %% [markdown]
# The answers use the intervals over all test images. If there are too few patients for an interval, no difference is
# shown either.
#
# One fold has few test patients. Use `--set fold=1` and so on to test the others, one fold at a time.
#
# Report how far training moved the weights beside the scores. If the weights hardly moved, the score says nothing about
# training. The model card `model.safetensors.md`, beside the weights, has this dose and all tables:

# %%
from histotransfer.deploy.release import write_card

said = []
write_card(folder / "model.safetensors", report=said.append)
print(said[-1])

# %% [markdown]
# ## A network from elsewhere, and a few labelled patients
#
# A network from elsewhere may be good enough for your images, or may become so after it learns from a few of your patients.
# How much do they help? This experiment measures it:
#
# - every patient is kept for testing once;
# - of the other patients, 2, 4, 8 ... are labelled, equally many of each class;
# - the network that ships with this book learns from them, first its head alone, then block 4 as well.
#
# The tested patients are the same for every number of labelled patients. `before` is the network without any such training.
# The probe starts from ImageNet and gets the same labelled patients.
#
# For the phantom images, the same tissue is stained by another simulated laboratory, and one draw of a few epochs is enough
# ({numref}`fig-own-adapting`):
#
# ```sh
# histotransfer experiment adapt --own my.csv --out results/adapted
# ```

# %%
from histotransfer.datasets import phantom

theirs = source
if not images:
    one = stand_in[stand_in["magnification"] == 100]
    one = one.groupby("group").head(1)
    there = phantom.elsewhere(one, made / "elsewhere")
    theirs = own.write_csv(there, made / "elsewhere.csv")

# %%
from histotransfer.deploy.predict import SHIPPED
from histotransfer.experiments import adapting
from histotransfer.report.adapting import learning_curve, read_adapting

adapted = made / f"{config.profile}-adapting"
settings = chosen
if not images:
    settings |= {"breakhis_schedule": "head:50,block4:5", "folds": 3}
    settings |= {"augmentation": "none", "average_views": False}
how = {"profile": config.profile, "settings": settings, "draws": 1}

# %%
ucsb = learning_curve(read_adapting("results/adapting"))
mine = {"own": theirs, "pattern": pattern}
try:
    adapting.run(SHIPPED, adapted, **mine, **how, report=lambda line: None)
    curve = learning_curve(read_adapting(adapted))
except HistotransferError as error:
    print(f"{error}; UCSB is shown instead")
    curve = ucsb

# %% mystnb={"figure": {"name": "fig-own-adapting", "caption": "The network that ships, before training on your patients (dotted) and after, by the number of labelled patients; 95 % intervals clustered by patient."}}
from histotransfer.figures import by_labelled_patients

figure = by_labelled_patients(curve)

# %% [markdown]
# On real tissue: {numref}`tab-own-ucsb-accuracy` and {numref}`tab-own-ucsb-loss` have the same for UCSB, by slide. These are
# only **58 fields of five slides**. One slide at a time is kept for testing, so at most four can be labelled. No setting
# was tuned on them. The row 0 is the network without training on UCSB. Each other row is the mean over draws of the
# labelled slides. The column `majority` always answers with the larger class of the labelled slides. It can be below 0.5, because that
# class differs from test slide to test slide, and their answers are put together.

# %% mystnb={"figure": {"name": "tab-own-ucsb-accuracy", "caption": "UCSB: balanced accuracy by the number of labelled slides, with 95 % intervals clustered by slide."}}
from histotransfer.report.adapting import by_patients

arms = ["head", "block4", "frozen-probe", "majority"]
by_patients(ucsb, "balanced_accuracy", arms)

# %% mystnb={"figure": {"name": "tab-own-ucsb-loss", "caption": "UCSB: log-loss in nats by the number of labelled slides, with 95 % intervals clustered by slide."}}
by_patients(ucsb, "log_loss", arms)

# %% [markdown]
# Compare each row with the row 0, and each column with the probe. With five slides the intervals are wide. Such a table
# suggests what to try, and proves nothing. With your own patients, make this table first.
#
# ## Predicting new pictures
#
# The weights file contains the classes, the picture size and the normaliser. If one picture cannot be read, the others are
# still predicted ({numref}`tab-own-predictions`).

# %% mystnb={"figure": {"name": "tab-own-predictions", "caption": "Predictions of new pictures. One of the files does not exist."}}
from histotransfer.deploy.predict import Predictor

predictor = Predictor(folder / "model.safetensors")
tested = split[split["split"] == "test"].groupby("patient").first()
new = [*tested["path"].head(5), "nowhere.png"]
rows = pd.DataFrame([vars(found) for found in predictor.predict(new)])
rows["file"] = [Path(file).name for file in rows["file"]]
chances = rows.pop("probabilities").dropna()
classes = predictor.description.classes
rows[classes] = pd.DataFrame(chances.tolist(), chances.index)
rows["note"] = rows["note"].fillna(rows.pop("message"))
shown = ["file", "label", classes[-1], "note"]
brief(rows.round(2).astype(object).fillna(""), shown)

# %% [markdown]
# `histotransfer predict` does this for files and folders, and with `--by` for patients. A probability says how sure this
# network is, and holds only for pictures like its training pictures. The note warns of a picture without tissue, with pen
# ink, out of focus, or unlike the training pictures. {numref}`tab-own-flagged` says how often the network that ships warns: nearly
# always of a photograph or of noise, and of a grey picture by refusing it. It warns of only a third of the breast tissue from another
# laboratory (UCSB). So an empty note does not prove that a picture is like the training pictures. Nothing here is for diagnosis.

# %% mystnb={"figure": {"name": "tab-own-flagged", "caption": "The network that ships: share of pictures noted as unlike its training pictures, with 95 % intervals; with another note; refused."}}
from histotransfer.report.flagged import flagged

flagged("results/flagged")

# %% [markdown]
# ## Check yourself
#
# <details>
# <summary>Your slides have no patient names, only case numbers. What do you write in the column <code>patient</code>?</summary>
#
# The case number, if each person has one case. If a person may have several cases, ask someone who knows. If nobody knows,
# give all cases that might belong to one person the same `group`.
#
# </details>
#
# <details>
# <summary>The ladder's AUROC is 0.05 above the probe's, with an interval from −0.04 to 0.14. Which one do you use?</summary>
#
# The cheaper one, the probe. No difference is shown, and more patients may change that.
#
# </details>
#
# <details>
# <summary>May you try three normalisers and keep the one with the best test accuracy?</summary>
#
# No: the choice would be tuned on these test patients. Choose on validation patients, then test once.
#
# </details>

# %% [markdown]
# ## Exercises
#
# ```{exercise} Repair a CSV
# :label: ex-own-csv
#
# *Easy.* There are four pictures. `a1.png` and `a2.png` are of one patient, `b1.png` and `c1.png` of two others. The first three
# are benign, the last is malignant. Repair the text until it says exactly this and the loader accepts it.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.own_data import check_csv

text = """path,label
a1.png,benign
a2.png,benign
b1.png,
c1.png;malignant
"""

check_csv(text)

# %% [markdown] tags=["solution"]
# ````{solution} ex-own-csv
# :label: sol-own-csv
# :class: dropdown
#
# The loader reports every row that it cannot use. Nothing is guessed.
#
# ```python
# text = """path,label,patient
# a1.png,benign,a
# a2.png,benign,a
# b1.png,benign,b
# c1.png,malignant,c
# """
# ```
# ````

# %% [markdown]
# ```{exercise} How many folds?
# :label: ex-own-folds
#
# *Medium.* Given an image table, return the largest number of folds by patient for which every fold has every label.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.own_data import check_most_folds


def most_folds(table): ...


check_most_folds(most_folds)

# %% [markdown] tags=["solution"]
# ````{solution} ex-own-folds
# :label: sol-own-folds
# :class: dropdown
#
# The validation part is the fold after the test part, so it needs no further patients.
#
# ```python
# def most_folds(table):
#     return table.groupby("label")["group"].nunique().min()
# ```
# ````

# %% [markdown]
# ```{exercise} Name the patient
# :label: ex-own-pattern
#
# *Hard.* A folder holds `benign/P01_s1_001.png`, `benign/P01_s2_001.png`, `benign/P12_s1_001.png` and
# `malignant/P03_s1_014.png`. The names give patient, slide and number. Write the regular expression for `pattern`. It is
# matched with the path below the class folder and needs a group named `patient`.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.own_data import check_pattern

pattern = ...

check_pattern(pattern)

# %% [markdown] tags=["solution"]
# ````{solution} ex-own-pattern
# :label: sol-own-pattern
# :class: dropdown
#
# The slide is matched but not captured, because a slide is not a person. A patient's slides stay together.
#
# ```python
# pattern = r"(?P<patient>P\d+)_s\d+_\d+\.png"
# ```
# ````

# %% [markdown]
# ## Take home
#
# - Write down whose image each one is. Without that, no split is honest.
# - Every run has two baselines. If a network does not beat the frozen probe, use the probe.
# - Measure how much a few labelled patients help, on patients who were not labelled.
# - With few patients, intervals are wide. More patients make them narrower. More images of the same patients do not.
#
# **Further reading:** {cite}`bussola2021` on how such data leak; {cite}`campanella2019` on slides classified from many
# tiles; chapter {doc}`09_complexity` on smaller networks.

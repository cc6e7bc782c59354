# %% [markdown]
# # Your own data
#
# **After this chapter you can**
#
# - write down your images so that every split keeps patients apart;
# - train the ladder on them beside two baselines, and say with an interval whether training was worth it;
# - predict new pictures, and say what such a prediction is not.
#
# **Takes** about 10 minutes to read, 1 to run (phantom tissue, two cores), 50 for the exercises.
# **Needs** chapters {doc}`Data <01_data>`, {doc}`Transfer <04_transfer>` and {doc}`Evaluation <05_evaluation>`;
# for real use about ten patients of each class.
#
# As long as `images` is empty, phantom images stand in. For your own, give `images` a CSV, or a folder with one folder a class and
# `pattern`, which says how a file's name tells the patient (the last exercise below); paths are as seen from the repository:
#
# ```sh
# histotransfer book run 13_your_own_data --out mine.ipynb \
#   -p profile lite -p images my.csv
# histotransfer book run 13_your_own_data --out mine.ipynb \
#   -p profile lite -p images my-folder \
#   -p pattern '(?P<patient>P\d+)_.*'
# ```
#
# With `data_root` the network learns lung tissue (LC25000) first.

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

from histotransfer.book.chapters import begin, project_root
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
# ## Writing it down
#
# A CSV with a row an image. Paths are relative to the CSV; a label may be any word; a patient has the same name in every row
# ({numref}`tab-own-columns`).
#
# :::{table} Columns of the CSV.
# :name: tab-own-columns
#
# | column | meaning | must it be there? |
# |---|---|---|
# | `path` | the picture: PNG, JPEG, TIFF | yes |
# | `label` | what is to be predicted | yes |
# | `patient` | who it is of | yes |
# | `magnification` | a whole number; metrics are given for each | no |
# | `group` | what must stay together, if that is more than a patient | no |
#
# :::
#
# The stand-in, written as you would write yours:

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
# Whatever does not fit is named with its row, and nothing is read until all of it fits; then {numref}`tab-own-counts` says what there is.

# %%
from histotransfer.errors import HistotransferError

broken = made / "broken.csv"
broken.write_text("path,label\nnowhere.png,benign\n")
try:
    own.load(broken)
except HistotransferError as error:
    print(error)

# %% mystnb={"figure": {"name": "tab-own-counts", "caption": "What the loader found, by label."}}
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
# The split ({numref}`tab-own-split`) and its audit ({numref}`tab-own-audit`) are those of chapter {doc}`01_data`. Too few patients for the
# folds are an error that says so.

# %% mystnb={"figure": {"name": "tab-own-split", "caption": "Images of each part of the split, by label."}}
from histotransfer.splits import audit, content_hashes, grouped_split

split = grouped_split(table, folds=config.folds, seed=seed)
pd.crosstab(split["split"], split["label"])

# %% mystnb={"figure": {"name": "tab-own-audit", "caption": "What any two parts of the split share."}}
pd.DataFrame(audit(split, content_hashes(table))).T

# %% [markdown]
# ## Training beside two baselines
#
# On the stand-in three folds and a few epochs must do ({numref}`tab-own-scores`, {numref}`fig-own-forest`). The same on the command line:
#
# ```sh
# histotransfer ladder --profile lite --own my.csv --out results/mine
# ```

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
formatted(scores, ["accuracy", "balanced_accuracy", "auroc"])

# %% mystnb={"figure": {"name": "fig-own-forest", "caption": "AUROC on the test patients, with 95 % intervals clustered by patient."}}
from histotransfer.figures import forest

figure = forest(scores, "auroc")

# %% [markdown]
# Was it worth training a network? The ladder minus the frozen probe, on the same images; `smallest` is the smallest true
# difference that so few patients would have shown with a power of 0.8 ({numref}`tab-own-gap`).

# %% mystnb={"figure": {"name": "tab-own-gap", "caption": "The ladder minus the frozen probe on the same images, paired by patient."}}
from histotransfer.report.tables import gap

metrics = ["accuracy", "auroc"]
found = gap(runs["frozen-probe"], runs["ladder"], metrics=metrics)
shown = ["metric", "value", "low", "high", "smallest"]
found.set_index("magnification")[[*shown, "images", "patients"]].round(2)

# %%
answer = found[found["metric"] == "auroc"].iloc[-1]
low, high = answer["low"], answer["high"]
if low > 0:
    print("yes: the ladder's AUROC is higher")
elif high < 0:
    print("no: the ladder's AUROC is lower")
else:
    print("not told apart: the probe, which is cheaper, will do")

# %% [markdown]
# The answer is by the interval of AUROC over all test images; an interval that is missing tells nothing apart either.
#
# One fold has few test patients. `--set fold=1` and so on test the others, one fold at a time.
#
# ## Predicting new pictures
#
# The file of weights knows its classes, its picture size and its normaliser; a picture that cannot be read does not stop the
# others ({numref}`tab-own-predictions`).

# %% mystnb={"figure": {"name": "tab-own-predictions", "caption": "Predictions of new pictures, one of which is not there."}}
from histotransfer.deploy.predict import Predictor

predictor = Predictor(folder / "model.safetensors")
tested = split[split["split"] == "test"].groupby("patient").first()
new = [*tested["path"].head(5), "nowhere.png"]
pd.DataFrame([
    vars(found) | {"file": Path(found.file).name}
    for found in predictor.predict(new)
]).round(2).astype(object).fillna("")  # fmt: skip

# %% [markdown]
# `histotransfer predict` does this for files and folders. The probability says how sure this network is, on pictures like those it
# was trained on. It knows no "neither", no other scanner, and no patient: nothing here is for diagnosis.

# %% [markdown]
# ## Check yourself
#
# <details>
# <summary>Your slides have no patient names, only case numbers. What goes into the column <code>patient</code>?</summary>
#
# The case number, if one person has one case. If a person may have several, ask whoever can tell; otherwise give what
# might be of one person the same `group`.
#
# </details>
#
# <details>
# <summary>The ladder's AUROC is 0.05 above the probe's, with an interval from −0.04 to 0.14. Which one do you use?</summary>
#
# The two were not told apart, so the cheaper one will do until more patients say otherwise.
#
# </details>
#
# <details>
# <summary>May you try three normalisers and keep the one with the best test accuracy?</summary>
#
# Not on these test patients: the choice would be tuned on them. Choose on validation patients, then test once.
#
# </details>

# %% [markdown]
# ## Exercises
#
# ```{exercise} Mend a CSV
# :label: ex-own-csv
#
# *Easy.* Four pictures: `a1.png` and `a2.png` are of one patient, `b1.png` and `c1.png` of two others; the first three are benign,
# the last is malignant. Mend the text until the loader takes it, and it says just that.
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
# The loader names every row that it cannot use; nothing is guessed.
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
# *Medium.* Given an image table, return the largest number of folds by patient in each of which every label can be tested.
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
# With a validation part besides, one patient more of each label is needed.
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
# *Hard.* A folder holds `benign/P01_s1_001.png`, `benign/P01_s2_001.png`, `benign/P12_s1_001.png` and `malignant/P03_s1_014.png`:
# patient, slide, number. Write the regular expression for `pattern`, which is matched with the path below the class folder and
# needs a group named `patient`.
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
# The slide is matched and not caught: it is no person. A patient's slides stay together.
#
# ```python
# pattern = r"(?P<patient>P\d+)_s\d+_\d+\.png"
# ```
# ````

# %% [markdown]
# ## Take home
#
# - Patients first: without their names no split is honest.
# - Two baselines come with every run. A network that does not beat the frozen probe has not earned its place.
# - With few patients intervals are wide; more patients mend that, more images of the same do not.
#
# **Further reading:** {cite}`bussola2021` on how such data leak; chapter {doc}`09_complexity` on choosing a smaller network.

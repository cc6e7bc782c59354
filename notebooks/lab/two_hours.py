# %% [markdown]
# # Two hours: can this number about patients be believed?
#
# In pairs, one laptop each pair. After these two hours you can count what evidence is made of, find a split that leaks, show what
# a leak is worth with a probe, and say what an interval carries.
#
# | minutes | what |
# |---|---|
# | 0 to 30 | count and leak |
# | 30 to 80 | split and probe |
# | 80 to 105 | read an interval |
# | 105 to 120 | wrap up |
#
# Every exercise ends in a self-check that says what an answer lacks. The tissue is synthetic, drawn by this book.

# %% tags=["parameters"]
profile = "phantom"
data_root = ""
seed = 0

# %%
import os

from histotransfer.book.chapters import begin, project_root

os.chdir(project_root())
root = begin(profile=profile, data_root=data_root, seed=seed)

# %% [markdown]
# ## Count and leak (30 minutes)
#
# A table of images: one row an image, with the patient it is of (`group`). Look at it for a minute. How many pieces of evidence does it
# hold?

# %%
from histotransfer.datasets import breakhis

table = breakhis.load(root)
table.drop(columns="path").sample(5, random_state=seed)

# %% [markdown]
# {use}`ex-data-people`

# %% [markdown]
# {use}`ex-data-leak`

# %% [markdown]
# ## Split and probe (50 minutes)
#
# Now the other way round: make a split that does not leak.

# %% [markdown]
# {use}`ex-data-split`

# %% [markdown]
# **Before you run the next cells, write down a number**: how much higher will the accuracy be when images are split at random instead of
# patients? The classifier is a poor one. It knows three numbers of an image, its mean colour, and answers what the nearest training image
# is.

# %%
import numpy as np

from histotransfer.pictures import decode
from histotransfer.stain import to_lab

fields = [decode(path) for path in table["path"]]
colour = np.array([to_lab(field).mean(axis=(0, 1)) for field in fields])
patients, labels = table["group"], table["label"]

# %%
from sklearn.model_selection import (
    KFold,
    StratifiedGroupKFold,
    cross_val_predict,
)
from sklearn.neighbors import KNeighborsClassifier

by_image = KFold(5, shuffle=True, random_state=seed)
by_patient = StratifiedGroupKFold(5, shuffle=True, random_state=seed)


def right(classifier, features, folds):
    said = cross_val_predict(
        classifier, features, labels, groups=patients, cv=folds
    )
    return said == labels


nearest = KNeighborsClassifier(1)
for name, folds in {"image": by_image, "patient": by_patient}.items():
    print(f"by {name}: {right(nearest, colour, folds).mean():.2f}")

# %% [markdown]
# A better classifier: features of a network that was trained on everyday photographs and never saw tissue, and a logistic regression on
# them. Computing the features takes about a minute: meanwhile, bet again. Does the gap grow or shrink?

# %%
from histotransfer.config import ladder_config
from histotransfer.experiments.probe import ProbeStudy
from histotransfer.pictures import resize

config = ladder_config("phantom", {"seed": seed})
study = ProbeStudy(config, root, "_build/experiments/lab")
tiles = np.stack([resize(field, config.size) for field in fields])
features = study.features(tiles)

# %%
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

line = LogisticRegression(C=1e-3, max_iter=1000)
probe = make_pipeline(StandardScaler(), line)
answers = {}
for name, folds in {"image": by_image, "patient": by_patient}.items():
    answers[name] = right(probe, features, folds)
    print(f"by {name}: {answers[name].mean():.2f}")

# %% [markdown]
# Whose bet was closest? What would a paper have reported that had only the upper line?
#
# ## Read an interval (25 minutes)
#
# Images of a patient stand or fall together, so whole patients are redrawn. First write the redraw.

# %% [markdown]
# {use}`ex-evaluation-redraw`

# %% [markdown]
# The interval of the probe's accuracy, split by patient. Put your own `redraw` in place of `whole_patients`: the interval hardly moves. Then
# redraw images instead: how much narrower does it get, and why is that wrong?

# %%
import pandas as pd

rows = table.assign(right=answers["patient"])[["group", "right"]]
people = dict(list(rows.groupby("group")))


def whole_patients(rows, random):
    drawn = random.choice(list(people), len(people))
    return pd.concat([people[patient] for patient in drawn])


random = np.random.default_rng(seed)
means = [whole_patients(rows, random)["right"].mean() for _ in range(500)]
low, high = np.percentile(means, [2.5, 97.5])
f"accuracy {rows['right'].mean():.2f} [{low:.2f}, {high:.2f}]"

# %% [markdown]
# {use}`ex-evaluation-interval`

# %% [markdown]
# ## Wrap up (15 minutes)
#
# In pairs, then together:
#
# - A paper states 84 % accuracy, a split of 7 : 1 : 2, and no more. Which three questions do you ask its authors?
# - Your interval is wide. What would make it narrower: more images, or more patients? Of what kind?
# - Which of your own numbers, from other work, would you check tomorrow?
#
# One sentence from each pair: what would you ask the authors for? Patients in the split and the interval should come up.

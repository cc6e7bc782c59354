# %% [markdown]
# # Two hours: can this number about patients be believed?
#
# In pairs, one laptop per pair. After these two hours you can count what evidence is made of, find a split that leaks, show what
# a leak is worth with a probe, and say what an interval allows you to conclude.
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
# A table of images: one row per image. `patient` is the slide's id, such as 14-50003AB. `group` is its base number, here 14-50003: the
# person. One person may have several slides. Look at the table for a minute. How many pieces of evidence does it hold?

# %%
from histotransfer.datasets import breakhis

table = breakhis.load(root)
print(len(table), "images")
table.drop(columns="path").sample(5, random_state=seed)

# %% [markdown]
# {use}`ex-data-people`

# %% [markdown]
# {use}`ex-data-leak`

# %% [markdown]
# Now try your function on two splits of this table. Which one leaks, and whom?

# %%
from histotransfer.splits import grouped_split, image_split

for split in (grouped_split, image_split):
    print(split.__name__, leaking(split(table, seed=seed)))

# %% [markdown]
# ## Split and probe (50 minutes)
#
# Now the other way round: make a split that does not leak.

# %% [markdown]
# {use}`ex-data-split`

# %% [markdown]
# **Before you run the next cells, write down a number**: how much higher will the accuracy be when you split images instead of patients?
# (0.05 is five points.) The classifier is a poor one. It knows three numbers of an image, its mean colour, and answers with the label of
# the nearest training image. `StratifiedGroupKFold` does what your `test_mask` does, five times over: each patient is tested once.

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
folds = {
    "image": list(by_image.split(colour)),
    "patient": list(by_patient.split(colour, labels, patients)),
}


# %%
def right(classifier, features, parts):
    said = cross_val_predict(classifier, features, labels, cv=parts)
    return said == labels


nearest = KNeighborsClassifier(1)
for name, parts in folds.items():
    print(f"by {name}: {right(nearest, colour, parts).mean():.2f}")

# %% [markdown]
# The usual classifier: features of a network that was trained on everyday photographs and never saw tissue, and a logistic regression on
# them. `C=1e-3` keeps its weights small, so that it cannot learn single images by heart. Computing the features takes a minute or two:
# meanwhile, bet again. Does the gap grow or shrink?

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
for name, parts in folds.items():
    answers[name] = right(probe, features, parts)
    print(f"by {name}: {answers[name].mean():.2f}")

# %% [markdown]
# Whose bet was closest? What would a paper with only the split by image report? Why is the gap smaller than that of the nearest image?
# (The nearest image is often one of the same patient: that classifier remembers patients, and this one hardly can.)
#
# ## Read an interval (25 minutes)
#
# Images of a patient tend to be right or wrong together. So an interval asks: what if other *patients* had come? Whole patients are drawn
# anew, 500 times. This is the interval of the probe's accuracy, split by patient:

# %%
import pandas as pd

rows = table.assign(right=answers["patient"])[["group", "right"]]
of_patient = dict(list(rows.groupby("group")))  # once: it is slow


def whole_patients(random):
    drawn = random.choice(list(of_patient), len(of_patient))
    return pd.concat([of_patient[patient] for patient in drawn])


random = np.random.default_rng(seed)
means = [whole_patients(random)["right"].mean() for _ in range(500)]
low, high = np.percentile(means, [2.5, 97.5])
f"accuracy {rows['right'].mean():.2f} [{low:.2f}, {high:.2f}]"

# %% [markdown]
# Now wrongly: single images are drawn anew, as if each were of a person of its own. How much narrower does it get, and why is that wrong?

# %%
size = len(rows)
means = [rows["right"].sample(size, replace=True, random_state=random).mean()
         for _ in range(500)]  # fmt: skip
low, high = np.percentile(means, [2.5, 97.5])
f"accuracy {rows['right'].mean():.2f} [{low:.2f}, {high:.2f}]"

# %% [markdown]
# The next exercise speaks of AUROC, the chance that a malignant image scores above a benign one. The *power* of a study is how often it
# would show a difference of a given size.

# %% [markdown]
# {use}`ex-evaluation-interval`

# %% [markdown]
# Pairs that are ahead ask why the nearest image did so well when images were split (otherwise it is homework). Try the answer
# on `colour` and `patients.to_numpy()`:

# %% [markdown]
# {use}`ex-leakage-memory`

# %% [markdown]
# ## Wrap up (15 minutes)
#
# In pairs, then together:
#
# - A paper states 84 % accuracy, a split into training, validation and test of 7 : 1 : 2, and no more. Which three questions do you
#   ask its authors?
# - Your interval is wide. What would make it narrower: more images, or more patients? Count the patients of each label first.
# - Which number of your own, or from a paper you read, would you check tomorrow?
#
# One sentence from each pair: what would you ask the authors for? Patients in the split and the interval should come up.

# %% [markdown]
# # Eight subtypes instead of two classes
#
# **After this chapter you can**
#
# - turn a classifier of eight classes into eight questions of one against the rest;
# - say for which of them a data set has enough patients, and leave the others unjudged;
# - tell a label's share of images from its share of patients.
#
# **Takes** about 7 minutes to read, 1 to run (phantom tissue, two cores). Exercises, estimated: an easy
# one 5 minutes, a medium one 15, a hard one 30.
# **Needs** chapters {doc}`Data <01_data>` and {doc}`Evaluation <05_evaluation>`.
#
# The paper leaves this as an open question (Q1). The answer here is descriptive: no claim is tested.

# %% tags=["parameters"]
profile = "phantom"
data_root = ""
seed = 0
device = "cpu"
weights = ""

# %%
import os

from histotransfer.book.chapters import begin, project_root
from histotransfer.report.study import Study

os.chdir(project_root())  # chapters name their records from there
chosen = {"seed": seed, "device": device, "weights": weights}
begin(profile=profile, data_root=data_root, **chosen)
study = Study("study", "results")

# %% [markdown]
# ## One against the rest
#
# The network is `se-lung` of chapter {doc}`07_ablations` (with gates, lung tissue in between), with eight outputs in place of two. It is
# split by patient over benign and malignant, in five folds, with one seed (`study/subtypes.toml`). For a subtype $t$ the score of an image
# is its probability $p_t$, and the truth is whether the image is of $t$. A subtype needs at least five patients in all, and at least
# one at each of 40x, 100x and 200x. The others have their images counted and nothing more said ({numref}`tab-subtype-subtypes`). AUROC
# and recall are means over these three magnifications, so that one with few patients counts as much as one with many. The matrix below
# pools images. Three patients have two subtypes and count in both. {numref}`fig-subtype-auroc` draws the AUROC.

# %% mystnb={"figure": {"name": "tab-subtype-subtypes", "caption": "Each subtype against the rest, out of fold: AUROC and recall, mean over 40x, 100x and 200x, where there are patients enough."}}
from histotransfer.evaluation.formatting import number
from histotransfer.report.subtypes import subtype_table

predictions = study.predictions("subtypes", "se-lung")
table = subtype_table(predictions)
shown = table[["patients", "images"]].copy()
for name, metric in {"AUROC": "auroc", "recall": "recall"}.items():
    ends = [metric, f"{metric}_low", f"{metric}_high"]
    shown[name] = [number(*row) for row in table[ends].to_numpy()]
shown.rename(lambda name: name.replace("_", " "))

# %% mystnb={"figure": {"name": "fig-subtype-auroc", "caption": "Real tissue: AUROC of each subtype against the rest, mean over 40x, 100x and 200x, with 95 % intervals clustered by patient; subtypes with fewer than five patients, or none at one of these magnifications, are left out."}}
from histotransfer import figures

ends = {"auroc": "value", "auroc_low": "low", "auroc_high": "high"}
judged = table.dropna(subset=["auroc"]).rename(columns=ends)
judged.index = judged.index.str.replace("_", " ")
figure = figures.means_with_intervals(
    judged, "AUROC, one against the rest", nothing=0.5
)

# %%
above = judged.index[judged["low"] > 0.5]
assert list(above) == ["ductal carcinoma"]

# %% [markdown]
# **Only ductal carcinoma, the subtype with most patients, is recognised better than by guessing (0.5).** For the other three the
# interval holds 0.5: five or six patients are too few to tell.
#
# ## Who is taken for whom
#
# In {numref}`fig-subtype-confusion` rows are the truth, columns what the network finds most probable, over 40x, 100x and 200x together.

# %% mystnb={"figure": {"name": "fig-subtype-confusion", "caption": "Confusion matrix of the eight subtypes on the real subset, out of fold: images; the darker a cell, the larger its share of the true subtype."}}
used = predictions[predictions["magnification"] < 400]
figure = figures.confusion(used)

# %% [markdown]
# ## What eight classes cost
#
# The same network's eight probabilities added up to benign and malignant, beside the network that was trained on two classes
# ({numref}`tab-subtype-two-classes`):

# %% mystnb={"figure": {"name": "tab-subtype-two-classes", "caption": "Eight classes added up to two, minus a network trained on two; paired by patient."}}
from histotransfer.report.subtypes import as_two_classes
from histotransfer.report.tables import formatted, gap

eight = study.pooled("subtypes", "se-lung", seeds=[0])
two = study.pooled("primary", "se-lung", seeds=[0])
metrics = ["accuracy", "auroc"]
difference = gap(two, as_two_classes(eight), metrics=metrics)
difference["run"] = "eight classes added up minus two classes"
formatted(difference, metrics)

# %%
mean = difference[difference["magnification"] == "mean"]
ends = mean.set_index("metric")[["low", "high"]]
assert (ends["low"] < 0).all() and (ends["high"] > 0).all()

# %% [markdown]
# No difference is shown, neither in accuracy nor in AUROC: eight answers cost nothing that these patients could show.

# %% [markdown]
# ## Check yourself
#
# <details>
# <summary>A subtype has 150 images of three patients. How well can a network's skill for it be judged?</summary>
#
# Hardly: three patients are three cases, and a split by patient leaves one or two to learn from.
#
# </details>
#
# <details>
# <summary>A network says "ductal carcinoma" for every malignant image. Why can its accuracy look good?</summary>
#
# Because about half of the malignant images here are of that subtype, and more than that in all of BreakHis.
#
# </details>
#
# <details>
# <summary>The macro average over eight subtypes rises by 0.02. Over how many patients was the smallest subtype averaged?</summary>
#
# That number decides how much the 0.02 is worth: every subtype counts alike, whether it has two patients or
# twenty.
#
# </details>

# %% [markdown]
# ## Exercises
#
# ```{exercise} Who can be judged?
# :label: ex-subtype-judged
#
# *Easy.* A table has one row per image with `subtype` and `group` (the patient). Return the subtypes with at least five patients
# (the chapter also asks for one at each magnification).
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.subtypes import check_judged


def judged(table): ...


check_judged(judged)

# %% [markdown] tags=["solution"]
# ````{solution} ex-subtype-judged
# :label: sol-subtype-judged
# :class: dropdown
#
# Images per subtype are the wrong count: in the table of the check, the one with most images has four patients.
#
# ```python
# def judged(table):
#     patients = table.groupby("subtype")["group"].nunique()
#     return set(patients.index[patients >= 5])
# ```
# ````

# %% [markdown]
# ```{exercise} One against the rest
# :label: ex-subtype-auroc
#
# *Medium.* Given probabilities $(N, K)$, the true class of each image, and one class, return the AUROC of that class against the rest.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.subtypes import check_one_against_rest


def one_against_rest(probabilities, truth, subtype): ...


check_one_against_rest(one_against_rest)

# %% [markdown] tags=["solution"]
# ````{solution} ex-subtype-auroc
# :label: sol-subtype-auroc
# :class: dropdown
#
# The score is the probability of the class, whatever the other classes get.
#
# ```python
# from sklearn.metrics import roc_auc_score
#
#
# def one_against_rest(probabilities, truth, subtype):
#     return roc_auc_score(truth == subtype, probabilities[:, subtype])
# ```
# ````

# %% [markdown]
# ```{exercise} Eight as two
# :label: ex-subtype-two
#
# *Hard.* Given logits $(N, 8)$ and which of the eight classes are malignant, return the probability of malignant $(N,)$. It must work
# for logits of any size.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.subtypes import check_malignant


def malignant(logits, is_malignant): ...


check_malignant(malignant)

# %% [markdown] tags=["solution"]
# ````{solution} ex-subtype-two
# :label: sol-subtype-two
# :class: dropdown
#
# The classes exclude each other, so their probabilities add up.
#
# ```python
# from scipy.special import softmax
#
#
# def malignant(logits, is_malignant):
#     return softmax(logits, axis=1)[:, is_malignant].sum(axis=1)
# ```
# ````

# %% [markdown]
# ## Take home
#
# - The number of patients of a class, not of images, says whether it can be judged.
# - Ductal carcinoma is about half of the malignant images; a network that always says so looks good on average.
# - Eight classes from a few dozen patients describe these patients.
#
# **Further reading:** {cite}`spanhol2016` for the eight subtypes and how few patients some of them have.

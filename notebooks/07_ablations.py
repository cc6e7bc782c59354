# %% [markdown]
# # Ablations: which part earns its place
#
# **After this chapter you can**
#
# - read a paired difference between two arms that are equal in all but one thing;
# - say what SE, the LC25000 step, its gates' place and width, colour normalisation and augmentation each add here;
# - explain why three seeds are not three times the evidence.
#
# **Takes** about 9 minutes to read, 1 to run (phantom tissue, two cores), 50 for the exercises.
# **Needs** chapters {doc}`SE-DenseNet <03_se_densenet>` and {doc}`Evaluation <05_evaluation>`.

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
from histotransfer.report.study import Study

os.chdir(project_root())  # chapters name their records from there
chosen = {"seed": seed, "device": device, "weights": weights}
begin(profile=profile, data_root=data_root, **chosen)
study = Study("study", "results")

# %% [markdown]
# ## The primary two by two
#
# SE on or off, LC25000 between ImageNet and BreakHis or not; all else equal: `study/primary.toml`, profile `lite`. Five folds
# by patient, three seeds; an image's logits are averaged over seeds, so that patients remain the only sample. Beside the four
# arms, on the same splits, the two baselines ({numref}`tab-ablation-primary`, {numref}`fig-primary`).

# %% mystnb={"figure": {"name": "tab-ablation-primary", "caption": "The primary experiment on real tissue, out of fold, three seeds averaged: four arms and two baselines."}}
from histotransfer.evaluation.formatting import number
from histotransfer.report.tables import formatted, gap, with_intervals

trained = ["plain", "se", "plain-lung", "se-lung"]
arms = ["majority", "frozen-probe", *trained]
runs = {arm: study.pooled("primary", arm) for arm in arms}
table = with_intervals(runs)
formatted(table, ["accuracy", "balanced_accuracy", "auroc"])

# %% mystnb={"figure": {"name": "fig-primary", "caption": "AUROC of the four arms and the frozen probe on the real subset, out of fold, with 95 % intervals clustered by patient; 400x is only tested."}}
from histotransfer import figures

figure = figures.forest(table[table["run"] != "majority"], "auroc")

# %% [markdown]
# Intervals of arms overlap for a reason that says nothing about their difference: the same hard patients are hard for all. The
# differences, paired by patient. C2 and C3a change one thing each; C4b, as the claim it judges, changes two (gates and lung), in
# accuracy, and its verdict asks for 0.02, not for more than 0. `p_holm` is, after Holm, the p-value of
# arms that could have exchanged their answers to any patient ({numref}`tab-ablation-primary-differences`):

# %% mystnb={"figure": {"name": "tab-ablation-primary-differences", "caption": "The claims that the primary experiment decides: paired differences, mean over 40x, 100x and 200x."}}
from histotransfer.evaluation.metrics import metric_name
from histotransfer.report.verdicts import PRIMARY, judge_differences

primary = judge_differences(study, PRIMARY, correct=True)
primary = primary[primary["experiment"] == "primary"]
limits = primary[["value", "low", "high"]].to_numpy()
primary.insert(0, "difference", [number(*row) for row in limits])
primary["metric"] = primary["metric"].map(metric_name)
shown = ["compared", "metric", "difference", "p_holm", "smallest"]
primary[[*shown, "verdict", "images", "patients"]].round(3)

# %% [markdown]
# What each arm is worth beyond the frozen probe stands beside the verdicts (chapter {doc}`12_verdict`).

# %% [markdown]
# ## What each stage adds
#
# A run's stages are states of one network: the head alone, then block 4 unfrozen, then block 3. First each state, then each minus the one
# before ({numref}`tab-ablation-stages`, {numref}`tab-ablation-stages-added`):

# %% mystnb={"figure": {"name": "tab-ablation-stages", "caption": "The network after each stage, mean over 40x, 100x and 200x."}}
steps = [
    study.pooled("primary", "se-lung", s) for s in ("head", "block4", "")
]
stages = {run.folder.name: run for run in steps}
stage_table = with_intervals(stages).query("magnification == 'mean'")
formatted(stage_table, ["auroc", "log_loss"])

# %% mystnb={"figure": {"name": "tab-ablation-stages-added", "caption": "Each stage minus the one before, paired by patient."}}
metrics = ["auroc", "log_loss"]
added = pd.concat(gap(*steps[i : i + 2], metrics=metrics) for i in range(2))
formatted(added[added["magnification"] == "mean"], metrics)

# %% [markdown]
# ## Where the gates sit, and how wide (N1)
#
# `study/se-placement.toml`, one seed; each arm minus the network without gates, all with the LC25000 step. The paper does not state
# the reduction $r$; the primary arm has gates at blocks and transitions, $r = 16$. Mean over 40x, 100x and 200x, the primary arm first
# ({numref}`tab-ablation-placement`):

# %% mystnb={"figure": {"name": "tab-ablation-placement", "caption": "Networks with gates, by place and width, minus the one without; one seed, paired by patient."}}
none = study.pooled("primary", "plain-lung", seeds=[0])
where = ["layer", "block", "transition", "everywhere", "r8", "r32"]
placed = [("primary", "se-lung"), *(("se-placement", arm) for arm in where)]
metrics = ["auroc", "accuracy"]
gaps = study.gaps(none, placed, seeds=[0], metrics=metrics)
placed_gaps = gaps[gaps["magnification"] == "mean"]
assert (placed_gaps["low"] <= 0).all()
formatted(placed_gaps, metrics, smallest="auroc")

# %% [markdown]
# No place and no width is shown to help. These are seven comparisons in two metrics, fourteen intervals, on one seed: where one leaves out 0
# by little, that may be the luck of one in fourteen, or of one training; the intervals hold neither.
#
# ## Colour and augmentation: do they reduce overfitting? (C6)
#
# `study/colour.toml`, one seed, up to block 4. **Overfitting** here is the log-loss (nats) of an image that a network tested minus
# that of the same image by each network that trained on it; who only ever validates has no such loss and is left out.
# {numref}`tab-ablation-overfitting` says how much less of it there is with a treatment than without (`less`), an image counted once
# for each network that trained on it. It is a sum: how far the treatment lowers the loss of tested images, and how far it raises
# that of trained ones. The second alone is no gain, as fitting less narrows the gap as well. Last, what the treatment adds to the
# AUROC of all test images ({numref}`tab-ablation-treatments-auroc`). `upright` is `macenko` without flips and half turns.

# %% mystnb={"figure": {"name": "tab-ablation-overfitting", "caption": "How much less overfitting there is with a treatment than without (nats), and the two parts of it."}}
from histotransfer.report.verdicts import judge_overfitting

less = judge_overfitting(study)
shown = less[["arms", "verdict"]].copy()
for name in ("less", "test_drop", "train_rise"):
    ends = [name, f"{name}_low", f"{name}_high"]
    ends = ["value", "low", "high"] if name == "less" else ends
    shown[name] = [number(*row) for row in less[ends].to_numpy()]
shown.join(less[["images", "patients"]])

# %% mystnb={"figure": {"name": "tab-ablation-treatments-auroc", "caption": "What each treatment adds to AUROC on test images, paired by patient."}}
ends = ["auroc_gain", "auroc_gain_low", "auroc_gain_high"]
gained = less[["gain_images", "gain_patients"]].copy()
gained.insert(0, "AUROC", [number(*row) for row in less[ends].to_numpy()])
gained.rename(columns=lambda name: name.removeprefix("gain_"))

# %%
costs = less.index[less["auroc_gain_high"] < 0]
print("cost AUROC on test patients here:", ", ".join(costs) or "none")
gains = less.index[less["auroc_gain_low"] > 0]
print("raise it here:", ", ".join(gains) or "none")

# %% [markdown]
# A treatment that costs AUROC may still be right: where colour tells slides apart and few slides stand for each class, colour is a
# shortcut, and who takes it away loses what it gave. Tissue from elsewhere (chapter {doc}`11_external`) is the test of that, and five
# slides cannot decide it. {numref}`fig-overfitting` draws how much less overfitting there is; {numref}`tab-ablation-colour` has what
# each arm scores.

# %% mystnb={"figure": {"name": "fig-overfitting", "caption": "Overfitting without a treatment minus overfitting with it (nats), with 95 % intervals, paired and clustered by patient; right of the line the treatment reduces it."}}
label = "less overfitting (nats)"
figure = figures.means_with_intervals(less.astype({"images": int}), label)

# %% mystnb={"figure": {"name": "tab-ablation-colour", "caption": "The arms of the colour plan themselves, out of fold, mean over 40x, 100x and 200x, one seed."}}
colours = ["none", "macenko", "reinhard", "vahadane", "stain-jitter"]
seen = {arm: study.pooled("colour", arm) for arm in [*colours, "upright"]}
compared = with_intervals(seen).query("magnification == 'mean'")
formatted(compared, ["accuracy", "auroc", "log_loss"])

# %% [markdown]
# The arms that normalise do so to a published reference. **Sensitivity**: a reference that is the median of each fold's training
# images, minus the published one, Macenko both times ({numref}`tab-ablation-reference`).

# %% mystnb={"figure": {"name": "tab-ablation-reference", "caption": "Macenko with a reference fitted to training images minus Macenko with the published one."}}
macenko = seen["macenko"]
metrics = ["auroc", "accuracy", "log_loss"]
other = [("reference", "macenko-training")]
reference = study.gaps(macenko, other, metrics=metrics)
formatted(reference[reference["magnification"] == "mean"], metrics)


# %% [markdown]
# ## Check yourself
#
# <details>
# <summary>Arm B has SE and lung, arm A neither. B is better. Was it SE?</summary>
#
# Cannot be said: two things changed. That is what the two by two is for.
#
# </details>
#
# <details>
# <summary>Three seeds of five folds give fifteen runs. Is that fifteen times the evidence of one?</summary>
#
# No. All of them predict the same patients; seeds average out the training's luck, not the luck of who the patients
# are.
#
# </details>
#
# <details>
# <summary>A gate has not moved from 1. What does a comparison of SE on and off then measure?</summary>
#
# Nothing about attention: both networks compute the same.
#
# </details>

# %% [markdown]
# ## Exercises
#
# ```{exercise} Clean pairs
# :label: ex-ablation-pairs
#
# *Easy.* Of the arms `plain`, `se`, `plain-lung` and `se-lung`, which pairs differ in the gates alone? Give a set of pairs.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.ablations import check_pairs

pairs = ...  # for example {("plain", "se-lung")}

check_pairs(pairs)

# %% [markdown] tags=["solution"]
# ````{solution} ex-ablation-pairs
# :label: sol-ablation-pairs
# :class: dropdown
#
# All else must be equal, the source task included.
#
# ```python
# pairs = {("plain", "se"), ("plain-lung", "se-lung")}
# ```
# ````

# %% [markdown]
# ```{exercise} A paired difference
# :label: ex-ablation-paired
#
# *Medium.* A table has one row an image: `group` (the patient), and `a` and `b`, whether each arm was right. Return the mean over
# patients of the difference (b minus a) in their share of right images, and its standard error.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.ablations import check_paired


def paired(table): ...


check_paired(paired)

# %% [markdown] tags=["solution"]
# ````{solution} ex-ablation-paired
# :label: sol-ablation-paired
# :class: dropdown
#
# Hard patients are hard for both arms; in the difference that cancels.
#
# ```python
# def paired(table):
#     by_patient = table.groupby("group")[["a", "b"]].mean()
#     differences = by_patient["b"] - by_patient["a"]
#     return differences.mean(), differences.std() / len(differences) ** 0.5
# ```
# ````

# %% [markdown]
# ```{exercise} Holm's correction
# :label: ex-ablation-holm
#
# *Hard.* Return the p-values corrected by Holm's method: sorted, the smallest is multiplied by their number $n$, the next by $n - 1$,
# and so on; none may be smaller than one before it, none larger than 1. Order as given.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.ablations import check_holm


def holm(p): ...


check_holm(holm)

# %% [markdown] tags=["solution"]
# ````{solution} ex-ablation-holm
# :label: sol-ablation-holm
# :class: dropdown
#
# Who looks at many differences finds some that are large by luck; the correction pays for the looks.
#
# ```python
# import numpy as np
#
#
# def holm(p):
#     order = np.argsort(p)
#     scaled = p[order] * np.arange(len(p), 0, -1)
#     corrected = np.minimum(1, np.maximum.accumulate(scaled))
#     return corrected[np.argsort(order)]
# ```
# ````

# %% [markdown]
# ## Take home
#
# - An ablation is a paired difference between arms that share everything else; two separate intervals are not.
# - Averaging over seeds leaves less of the network's luck. It does not make patients: their number sets the width.
# - Beat the frozen probe first; only then ask which part of the network did it.
#
# **Further reading:** {cite}`hu2018` for what SE adds on everyday photographs, where test sets have fifty thousand images.

# %% [markdown]
# # Evaluation: what the numbers can carry
#
# **After this chapter you can**
#
# - read accuracy, AUROC, calibration and the patient recognition rate side by side, each with its interval and its n;
# - judge a trained network against the two baselines it must beat, and say what difference could have been seen at all;
# - ask where a network looks, and first whether its heat maps can be believed;
# - recognise overfitting, negative transfer and slow convergence in a history, and say how often the detector is wrong.
#
# **Takes** about 25 minutes to read, 3 to run (phantom tissue, two cores). Exercises, estimated: an easy
# one 5 minutes, a medium one 15, a hard one 30.
# **Needs** chapters {doc}`Data <01_data>` and {doc}`Transfer <04_transfer>`; means, quantiles, what a confidence interval is.

# %% tags=["parameters"]
profile = "phantom"
data_root = ""
seed = 0
device = "cpu"
weights = ""

# %%
import os

import pandas as pd

from histotransfer.book.chapters import begin, brief, project_root
from histotransfer.report.study import Study
from histotransfer.report.verdicts import Judge

os.chdir(project_root())  # chapters name their records from there
chosen = {"seed": seed, "device": device, "weights": weights}
root = begin(profile=profile, data_root=data_root, **chosen)
study = Study("study", "results")
judging = Judge(study)

# %% [markdown]
# ## What came out
#
# On real tissue our version of the paper's network is not shown to rank images better than a logistic regression on the features of an ImageNet network
# that never saw tissue. Its probabilities are worse: far too sure. The rest of this chapter says what such a result can carry.
#
# The network is `se-lung` of `study/primary.toml`: SE-DenseNet-121 by way of ImageNet, LC25000 and BreakHis, at 112 pixels, in colours as
# scanned, with blocks 4 and 3 unfrozen. The regression is the {term}`frozen probe`. (Chapters 2 and 6 give the probe 224 pixels and four of five
# folds to learn from, not 112 pixels and three folds: its AUROC is a few points higher there.) Both learn from the same patients of a subset of
# BreakHis, in five folds, and every image is tested {term}`out of fold`. A user has one network, so **one network** is judged: each seed's
# metric, averaged over three seeds. {numref}`fig-real-forest` shows how well both rank images, {numref}`fig-real-gap-to-probe` the differences,
# paired by patient. `mean` is the unweighted mean over 40x, 100x and 200x. 400x is only tested, and one patient holds more than half of
# its images: an interval nearly as wide as the axis means that these patients say nothing.

# %% mystnb={"figure": {"name": "fig-real-forest", "caption": "Real tissue, out of fold: AUROC of one network and of the frozen probe, with 95 % intervals clustered by patient."}}
from histotransfer import figures
from histotransfer.report.tables import of_single_networks

arms, at = ["frozen-probe", "se-lung"], (40, 100, 200, 400)
nets = {arm: judging.of_seeds("primary", arm, at) for arm in arms}
ranked = pd.concat(
    of_single_networks(arm, nets[arm], ["auroc"]) for arm in arms
)
ranked = ranked[ranked["magnification"] != "all"]
figure = figures.forest(ranked, "auroc")

# %% mystnb={"figure": {"name": "fig-real-gap-to-probe", "caption": "Real tissue: one network minus one frozen probe in points (hundredths), mean over 40x, 100x and 200x, with 95 % intervals paired by patient."}}
from histotransfer.evaluation.intervals import differences
from histotransfer.evaluation.metrics import metric_name

tables = {arm: judging.of_seeds("primary", arm) for arm in arms}
pairs = list(zip(tables["se-lung"], tables["frozen-probe"], strict=True))
wanted = ["auroc", "accuracy", "patient_auroc", "patient_accuracy"]
gaps = differences(pairs, "magnification", metrics=[*wanted, "log_loss"])
of_mean = ranked.set_index("magnification").loc["mean"].iloc[0]
drawn = 100 * gaps.loc[wanted].rename(index=metric_name)
drawn = drawn.assign(**of_mean[["images", "patients"]])
figure = figures.means_with_intervals(drawn, "difference (points)")
assert ((gaps["low"] < 0) & (gaps["high"] > 0))[wanted].all()
assert gaps.loc["log_loss", "low"] > 0  # worse

# %% [markdown]
# No difference in ranking or accuracy leaves out 0, by image or by patient. **Patients** are a second question, reported separately: a patient's
# score at a magnification is the mean logit of the images, and no label is used for it. Averaging the three networks, which a user does not
# have, adds about two points of AUROC ({numref}`tab-evaluation-real`). `majority` always gives the more frequent training class.

# %% mystnb={"figure": {"name": "tab-evaluation-real", "caption": "Real tissue, out of fold, mean over 40x, 100x and 200x: one network, and the average of three."}}
from histotransfer.evaluation.intervals import mean_intervals
from histotransfer.report.tables import side_by_side

averaged = study.predictions("primary", "se-lung")
averaged = averaged[averaged["magnification"] != 400]
tables["majority"] = judging.of_seeds("primary", "majority")
tables["average of three se-lung"] = [averaged]
shown = ["balanced_accuracy", "auroc", "patient_auroc", "log_loss"]
shown += ["accuracy", "patient_accuracy", "brier", "calibration_error"]
found = {name: mean_intervals(each, "magnification", wanted=shown)
         for name, each in tables.items()}  # fmt: skip
brief(side_by_side(found, shown))

# %% [markdown]
# **Pooled and within folds.** Five networks score five folds, and a pooled AUROC compares their scores with one another. The columns
# `within folds` of {numref}`tab-evaluation-real-within` count only pairs of images that one network scored. There too the two are close.
# `majority` shows why this is asked: it gives all images of a fold one score, so within a fold its AUROC is 0.5. Pooled it falls below,
# because a fold whose test patients are more often malignant trains on fewer of them.

# %% mystnb={"figure": {"name": "tab-evaluation-real-within", "caption": "Real tissue: AUROC of one network with all folds pooled, and of pairs that one network scored."}}
from histotransfer.report.tables import formatted, within_folds

runs_of = {arm: study.runs("primary", arm) for arm in arms}
inside = pd.concat([ranked, within_folds(runs_of)])
inside = inside[inside["magnification"] == "mean"]
columns = ["auroc", "auroc_within_folds", "patient_auroc_within_folds"]
brief(formatted(inside, columns))

# %% [markdown]
# {numref}`fig-real-patients` shows every patient as the first of the three networks scores the images, {numref}`fig-threshold-slider`
# counts them. A lower threshold misses fewer patients and gives more false alarms. Moving it until the numbers please is what the rule forbids: these
# are test patients. It is 0.5, fixed beforehand.

# %% mystnb={"figure": {"name": "fig-real-patients", "caption": "Real tissue by patient, out of fold, one network: dots are images, a bar is the patient's score (mean logit, as a probability); dashed: the threshold."}}
figure = figures.patients(tables["se-lung"][0])

# %% mystnb={"figure": {"name": "fig-threshold-slider", "caption": "Real tissue, out of fold, one network: sensitivity and specificity by patient at the threshold that you choose, with exact 95 % intervals."}}
from histotransfer.book.instruments import threshold_slider

threshold_slider(tables["se-lung"][0])

# %% [markdown]
# ## Calibration
#
# A probability of 0.8 should be right eight times in ten. {term}`Log-loss <log-loss>` and Brier score punish confident errors; the expected
# {term}`calibration` error is the mean gap between the dots of {numref}`fig-real-reliability` and the diagonal. It grows with few images
# even where a model is calibrated: compare it on the same images only.
#
# The picture shows another network than above: the recipe of our own, which chapter {doc}`10_strategies` chooses anew for each fold. It fits
# its training images almost perfectly and is far too sure of new ones. One number repairs much of it: all logits of a network are divided
# by a **temperature**, which keeps their order and every answer {cite}`guo2017`. For each fold it is the one that is best on the other folds, by networks that saw neither.

# %% mystnb={"figure": {"name": "fig-real-reliability", "caption": "Calibration on real tissue, out of fold, one network, with 95 % intervals clustered by patient; numbers are images, and a bin without an interval holds one patient."}}
from histotransfer.evaluation.calibration import reliability
from histotransfer.report.selection import select

chosen_recipe = select(study)
assert all(1.9 < t < 4 for t in chosen_recipe.temperatures.values())
kinds = {
    "as trained": chosen_recipe.networks,
    "with temperature": chosen_recipe.calibrated(),
    "frozen-probe": chosen_recipe.bar,
}
figure = figures.reliability_diagram(
    {name: reliability(each[0]) for name, each in kinds.items()}
)

# %% mystnb={"figure": {"name": "tab-evaluation-calibration", "caption": "Real tissue, out of fold, one network, mean over 40x, 100x and 200x; lower is better."}}
import numpy as np

flat = kinds["frozen-probe"][0]
malignant = flat["truth"] == "malignant"
share = malignant.groupby(flat["magnification"]).transform("mean")
logits = {"logit_malignant": np.log(share / (1 - share)), "logit_benign": 0}
kinds["share of the class"] = [flat.assign(**logits)]
losses = ["log_loss", "brier", "calibration_error"]
sure = {name: mean_intervals(each, "magnification", wanted=losses)
        for name, each in kinds.items()}  # fmt: skip
lost = [each.loc["log_loss", "value"] for each in sure.values()]
assert lost[0] > lost[3] > lost[1] > lost[2]
side_by_side(sure, losses)

# %% [markdown]
# The last row of {numref}`tab-evaluation-calibration` gives every image the share of malignant images at its magnification, knowing nothing else; so its calibration error is 0 by
# construction. The networks as trained are worse
# than that. With temperatures between 2 and 4 they are better, and still not better than the probe. What `predict` ships has its
# temperature inside.

# %% [markdown]
# ## Two baselines
#
# A network is worth its training only where it beats what needs none ({numref}`tab-evaluation-arms`).
#
# The rest of the chapter takes the method apart on {term}`phantom tissue <phantom>`, where the truth is known.
#
# :::{table} The baselines, and the method.
# :name: tab-evaluation-arms
#
# | name | what it is | why |
# |---|---|---|
# | `majority` | always the more frequent training class | accuracy looks good on unequal classes for nothing |
# | `frozen-probe` | logistic regression on frozen ImageNet DenseNet-121 features; its C (scikit-learn's: the smaller, the more is regularised) is 0.001 | what pre-training gives without any training of the network |
# | `ladder` | SE-DenseNet, ImageNet → LC25000 → BreakHis | the method |
#
# :::
#
# Today a frozen probe would take the features of a network that was trained on pathology slides {cite}`chen2024`. Check first whether your
# test patients were among its training data, for that is leakage too.
#
# All three see the same training patients and are tested on the same images. `mean` is the unweighted mean over 40x, 100x
# and 200x; `all` pools every image ({numref}`tab-evaluation-live`).

# %%
from pathlib import Path

from histotransfer.book.chapters import live_config
from histotransfer.study.runner import run_ladder

live = Path("_build/experiments") / profile
if not (live / "ladder").exists():  # chapter 04 has not been run
    run_ladder(live_config(profile, chosen), root, live)

# %% mystnb={"figure": {"name": "tab-evaluation-live", "caption": "This page's own data: the ladder and its baselines on the test part of one fold."}}
from histotransfer.report.tables import read_experiment, with_intervals

names = ["majority", "frozen-probe", "ladder"]
runs = read_experiment(live, names)
table = with_intervals(runs)
few_rows = table[table["magnification"].isin(["mean", "all"])]
brief(formatted(few_rows, ["accuracy", "balanced_accuracy", "auroc"]))

# %% [markdown]
# ## Metrics
#
# With malignant as the positive class, {term}`sensitivity` is the share of malignant images found, {term}`specificity` the
# share of benign
# images left alone; {term}`balanced accuracy` is their mean. {term}`AUROC` is the chance that a malignant image scores above a
# benign one.
# **Recall** is sensitivity, and **precision** the share of the images called malignant that are. F1 is their harmonic mean, average
# precision the mean of precision over all thresholds, weighted by the gain in recall. Matthews correlation is the correlation of answer
# and truth, 0 for guessing.
#
# The {term}`patient recognition rate` of BreakHis {cite}`spanhol2016` is not a vote: for each patient $p$ the share of its
# $N_p$ images that are right, then the mean over patients,
#
# $$ \mathrm{PRR} = \frac{1}{|P|}\sum_{p \in P} \frac{N_p^{\text{right}}}{N_p}. $$
#
# As there, a patient is here a slide id as published; the n of the tables, and the intervals, go by base number.
#
# The threshold is 0.5, fixed beforehand. {numref}`tab-evaluation-live-metrics` has these metrics and more. With so few patients most
# of its intervals say nothing.

# %% mystnb={"figure": {"name": "tab-evaluation-live-metrics", "caption": "This page's own data: the same runs by other metrics, all test images together; of log-loss, Brier score and calibration error, lower is better."}}
sheet = ["sensitivity", "specificity", "recognition_rate"]
sheet += ["average_precision", "f1", "matthews_correlation"]
sheet += ["log_loss", "brier", "calibration_error"]
formatted(table[table["magnification"] == "all"], sheet).T

# %% [markdown]
# ## Intervals
#
# Images of a patient are alike. So patients are left out one at a time, within each class: how far a metric moves gives its standard error
# (the jackknife). From that we compute how many independent images would have the same error, and take Clopper and Pearson's interval
# for so many (**Korn and Graubard**'s interval {cite}`korn1998`). With few patients it is wide. That is the truth about few patients.
# A value has no interval where all patients have the same value, or where one patient decides it.
#
# The common alternative is the **clustered bootstrap**: draw whole patients again and again, with replacement and within each class, and
# see how far the metric spreads. For accuracy it is ten lines:

# %%
from histotransfer.evaluation.metrics import predicted

tested = runs["ladder"].predictions.query("part == 'test'")
keys = [tested["truth"], tested["group"]]
right = predicted(tested) == tested["truth"]
patients = right.groupby(keys).agg(["sum", "size"])


def redrawn(draws):
    random = np.random.default_rng(seed)
    whole = {"frac": 1, "replace": True, "random_state": random}
    for _ in range(draws):
        drawn = patients.groupby("truth").sample(**whole)
        yield drawn["sum"].sum() / drawn["size"].sum()


# %% [markdown]
# The module redraws in the same way, thousands at once, where it compares two arms. Its redraws spread as these do. Its interval for one
# arm is wider than their middle 95 %, for reasons that the next tables give:

# %%
from histotransfer.evaluation.clusters import draw_counts, scored
from histotransfer.evaluation.intervals import intervals

by_hand = np.percentile(list(redrawn(1000)), [2.5, 97.5])
arm = scored(tested)
counts = draw_counts(arm.classes, 1000, seed)
module = np.percentile(arm.values(counts)["accuracy"], [2.5, 97.5])
assert np.abs(by_hand - module).max() < 0.05
used = intervals(tested).loc["accuracy", ["low", "high"]].to_numpy()
named = {"ten lines": by_hand, "module's redraws": module, "used": used}
for name, (low, high) in named.items():
    print(f"{name}: {low:.2f} to {high:.2f}")

# %% [markdown]
# Does a 95 % interval contain the truth 95 times in 100? We **measured** it for several methods, on simulated data sets with the real
# numbers of patients and images. {numref}`tab-evaluation-methods-one` (one arm) and {numref}`tab-evaluation-methods-two` (the difference of
# two) show how often each method held the truth in the worst scenario, at the worst of 40x, 100x and 200x, and how wide it was on average.
# A good method comes close to 95 and is narrow. The book uses the best of those of about its width (`used`); a method that holds the truth
# more often for one metric is wider, or holds it less often for the other.

# %% mystnb={"figure": {"name": "tab-evaluation-methods-one", "caption": "How often 95 % intervals of one arm held the truth (percent), and how wide they were, by method; worst scenario, worst of 40x, 100x and 200x."}}
from histotransfer.report.coverage import ONE, TWO, methods

methods(ONE, ["accuracy", "auroc"])

# %% mystnb={"figure": {"name": "tab-evaluation-methods-two", "caption": "The same for differences of two arms."}}
methods(TWO, ["accuracy", "auroc"])

# %% [markdown]
# So our "95 %" is less. This is how often intervals such as those of **What came out** held the truth in the worst scenario; it
# goes for the whole book. 400x is left out: with six patients per class, intervals of differences hold the truth much less often, and those
# of AUROC hold it because they are nearly as wide as the axis. These simulations trained no network.

# %%
from histotransfer.report.coverage import with_coverage

alone = ranked[ranked["magnification"] != "400"]
apart = gaps.rename_axis("metric").reset_index()
apart = apart.assign(magnification="mean", patients=of_mean["patients"])
for what, rows in {"AUROC": alone, "differences": apart}.items():
    held = with_coverage(rows)["coverage"]
    print(f"{what}: {held.min():.1%} to {held.max():.1%}")

# %% [markdown]
# {numref}`fig-roc` and {numref}`fig-precision-recall` show what any other threshold would give on this page's phantom tissue.

# %% mystnb={"figure": {"name": "fig-roc", "caption": "This page's own data: ROC curves with pointwise 95 % bands; grey: a guess."}}
tests = {
    name: run.predictions[run.predictions["part"] == "test"]
    for name, run in runs.items()
    if name != "majority"
}
figure = figures.roc(tests)

# %% mystnb={"figure": {"name": "fig-precision-recall", "caption": "This page's own data: precision and recall, with pointwise 95 % bands; grey: a guess."}}
figure = figures.precision_recall(tests)

# %% [markdown]
# ## Two methods on the same images
#
# Overlapping intervals do not say that two methods are alike. The difference has an interval of its own: whole patients are
# redrawn, the same for both methods. We take the middle of the differences, a little more than 95 % of them because there are few
# patients (the **expanded percentile** interval {cite}`hesterberg2015`). `smallest` is the smallest true difference in AUROC that this design would have shown
# with a power of 0.8 ({numref}`tab-evaluation-live-gap`).

# %% mystnb={"figure": {"name": "tab-evaluation-live-gap", "caption": "This page's own data: the ladder minus the frozen probe, paired by patient."}}
from histotransfer.report.tables import gap

metrics = ["accuracy", "auroc"]
difference = gap(runs["frozen-probe"], runs["ladder"], metrics=metrics)
brief(formatted(difference, metrics, smallest="auroc"))

# %% [markdown]
# With a handful of patients even such intervals hold the truth clearly less often than they say: read these as an exercise.

# %% [markdown]
# ## Where it looks
#
# {term}`Grad-CAM` {cite}`selvaraju2017` weighs the activations of block 4 by how much they matter for a class's logit. The images
# are of patients that the network never saw; on {term}`phantom tissue <phantom>` these are new patients, one field a
# magnification. There the
# diagnostic regions are known: above, what lies outside is grey ({numref}`fig-grad-cam`).

# %% mystnb={"figure": {"name": "fig-grad-cam", "caption": "This page's own data: fields with their true class, what the network said, and their diagnostic regions (above); the evidence for what it said by Grad-CAM (below); cross: hottest cell."}}
from histotransfer.evaluation.explain import grad_cam
from histotransfer.experiments import explanations

unseen = explanations.unseen_images(runs["ladder"], root)
shown = explanations.predict_images(
    live / "ladder" / "model.safetensors", unseen
)
maps = grad_cam(shown.model, shown.source, shown.predicted)
masks = shown.masks() if profile == "phantom" else None
few = unseen[unseen["magnification"] == 100].index[2::5][:4]
titles = [f"{shown.labels[i]}\nsaid {shown.guess[i]}" for i in few]
regions = None if masks is None else masks[few]
figure = figures.overlays(shown.tiles[few], maps[few], titles, regions)

# %% [markdown]
# The {term}`pointing game` {cite}`zhang2018` asks how often the hottest cell lies in the region. Fields beside the lesion have
# no region, so there is nothing to point at: they are left out. A pointer must beat two that know nothing: a random pixel
# hits as often as the region is large, and the middle of the image may hit more often, because fields are aimed at the
# lesion. Where the difference from the middle may be 0, the map has not been shown to know more than "look in the middle"
# ({numref}`fig-pointing`).

# %% mystnb={"figure": {"name": "fig-pointing", "caption": "The pointing game on phantom tissue: share of hits with 95 % intervals clustered by patient."}}
from IPython.display import Markdown, display

from histotransfer.evaluation.pointing import pointing_game

if profile == "phantom":
    game = pointing_game(maps, masks, shown.groups, shown.labels)
    left_out = (~masks.any(axis=(1, 2))).sum()
    said = f"share of hits ({left_out} fields without a region left out)"
    figure = figures.means_with_intervals(game, said)
else:
    display(Markdown("Nobody has outlined regions in real images."))

# %% [markdown]
# **Can maps be believed?** If a map shows what a network has learned, it must change when that is destroyed
# {cite}`adebayo2018`. So the weights are drawn anew from the head down, group after group, and each map is compared with its
# former self: 1 is unchanged. What maps of different images have in common is the last row of {numref}`fig-sanity`.

# %% mystnb={"figure": {"name": "fig-sanity", "caption": "This page's own data: rank correlation of maps with those of the trained network when its weights are drawn anew down to a group, with 95 % intervals clustered by patient."}}
from histotransfer.evaluation.explain import sanity_check

sanity = sanity_check(
    shown.model, shown.source, shown.predicted, shown.groups, shown.labels
)
label = "rank correlation with the trained network's map"
figure = figures.means_with_intervals(sanity, label)

# %% [markdown]
# The sanity check of the real ladder's maps, on its test images. Nobody outlined regions there, so there is no pointing game. Its weights
# are not passed on; the first command makes them again, the second {numref}`fig-real-sanity`:
#
# ```sh
# histotransfer ladder --profile lite --data DIR --out results/spine
# histotransfer experiment explanations results/spine/ladder --data DIR \
#   --out results/explanations
# ```

# %% mystnb={"figure": {"name": "fig-real-sanity", "caption": "Sanity check of the real ladder's maps, with 95 % intervals clustered by patient."}}
real_sanity = pd.read_csv(
    "results/explanations/sanity.csv", index_col="step"
)
assert real_sanity.drop("another image's map")["value"].max() < 0.05
figure = figures.means_with_intervals(real_sanity, label)

# %% [markdown]
# So the real maps pass this check: their order is lost as soon as the head is drawn anew, so they show something that was learned. That is
# all it says. It does not say that they show the lesion, and on phantoms, where that can be asked, they are not shown to know more than
# "look in the middle".

# %% [markdown]
# ## What the gates do
#
# Gates start at exactly 1 and move only where training unfroze them. In both networks of {numref}`tab-evaluation-gates` they hardly moved:
# they are not the study's, whose gates moved much further (chapter {doc}`07_ablations`). The table holds, for this
# chapter's network and for an early one on real tissue: lowest and highest mean gate of any channel; the largest difference between the classes with its interval, in
# millionths (`largest`, `low`, `high`); and how many channels' intervals leave out 0 (`apart`, not corrected for how many there are).

# %% mystnb={"figure": {"name": "tab-evaluation-gates", "caption": "How far gates moved, in this page's network and in one on real tissue, and where classes differ."}}
from histotransfer.evaluation.explain import (
    gate_differences,
    gate_profiles,
    gates,
)
from histotransfer.report.explanations import gates_beside_record

values = gates(shown.model, shown.source)
profiles = gate_profiles(values, shown.groups, shown.labels)
moved = gate_differences(profiles, *shown.classes)
table = gates_beside_record(moved, shown.groups)
brief(table, ["lowest", "highest", "largest"])

# %% [markdown]
# ## Failure signatures
#
# What goes wrong in training leaves a mark in the history ({numref}`tab-evaluation-signatures`).
#
# :::{table} Three failures, and when a detector finds them.
# :name: tab-evaluation-signatures
#
# | | signature | found when (means of three epochs of log-loss on validation patients) |
# |---|---|---|
# | F1 | overfitting | the end lies more than a threshold (nats) above the lowest, and training did not rise with it |
# | F2 | negative transfer | the arm with transfer stays more than a threshold (nats) above the one without, to the end |
# | F3 | slow convergence | a level is passed so many times as late as by the run it is compared with |
#
# :::
#
# Each was provoked on phantom tissue by `histotransfer experiment failures --out results/failures`: few images and a high rate; a frozen
# trunk whose source labels were shuffled; DenseNet-121 from scratch, on one budget with ImageNet weights ({numref}`fig-signatures`).

# %% mystnb={"figure": {"name": "fig-signatures", "caption": "The three failures, provoked on phantom tissue: mean over seeds, with a band from the lowest to the highest. F1 shows one arm on its training and its validation images, F2 and F3 validation."}}
record = Path("results/failures")
histories = pd.read_csv(record / "histories.csv")
figure = figures.failure_signatures(histories)

# %% [markdown]
# The thresholds were chosen on synthetic histories, as the smallest of a grid with few false alarms; then judged on histories
# they were not designed on: falls like an exponential and like a power. On phantom runs there are two versions of the truth: what we
# provoked, and what **test patients** show. The detectors look at validation patients only, so they miss failures that show only on test
# patients. Intervals are Wilson's; they do not know that runs of one seed share patients ({numref}`tab-evaluation-detectors`).
#
# {numref}`tab-evaluation-starts` illustrates claim C5 on phantom tissue; its verdict is made on real tissue (chapter
# {doc}`12_verdict`). It counts the epochs, of each seed, until DenseNet-121 passes a `level` of log-loss that is set from the runs
# from scratch. `10+` never passed within the `horizon` of epochs, and counts with all of it.

# %% mystnb={"figure": {"name": "tab-evaluation-detectors", "caption": "How often each detector finds a failure that is there, and one that is not, with 95 % intervals (Wilson)."}}
from histotransfer.report.failures import convergence_of_starts, counted

design = pd.read_csv(record.parent / "detectors/design.csv").query("chosen")
judged = counted(pd.read_csv(record / "counts.csv"))
threshold = design.set_index("signature")["threshold"]
judged.join(threshold, on="signature")

# %% mystnb={"figure": {"name": "tab-evaluation-starts", "caption": "Phantom tissue: epochs of DenseNet-121 until it passes the level, by its start, seed by seed."}}
convergence_of_starts(histories)

# %% [markdown]
# How the real runs learned, and in how many of them the detector finds overfitting (a count of these runs, which share patients: no
# interval is made of it; all three detectors on runs from scratch and from transfer: {numref}`tab-verdict-failures`). Their
# curves are in {numref}`fig-real-curves`:

# %% mystnb={"figure": {"name": "fig-real-curves", "caption": "Learning curves of all real runs: mean over runs, with a band from the lowest to the highest. The lung step is trained once per seed, for all folds."}}
from histotransfer.report.failures import overfitting_by_dataset

real_history = study.history("primary", "se-lung")
figure = figures.learning_curves(real_history)
detected = overfitting_by_dataset(dict(list(real_history.groupby("seed"))))
for dataset, found in detected.groupby("dataset")["found"]:
    print(f"{dataset}: overfitting in {found.sum()} of {len(found)} runs")

# %% [markdown]
# ## Check yourself
#
# <details>
# <summary>Method A has accuracy 0.82 [0.71, 0.90], method B 0.86 [0.76, 0.93]. The intervals overlap. Are the methods alike?</summary>
#
# That cannot be read from here. Both intervals hold the luck of the same patients; the interval of the paired
# difference says what the design can tell.
#
# </details>
#
# <details>
# <summary>Accuracy is 0.84, balanced accuracy 0.60. What happened?</summary>
#
# The network mostly says what the larger class is: it finds nearly all of one class and little of the other.
#
# </details>
#
# <details>
# <summary>Training log-loss falls, validation log-loss rises. What is it called, and what would be the wrong remedy?</summary>
#
# Overfitting (F1). The wrong remedy is to stop where the *test* part looks best.
#
# </details>

# %% [markdown]
# ## Exercises
#
# ```{exercise} Read an interval
# :label: ex-evaluation-interval
#
# *Easy.* On the same 42 patients the AUROC of B minus that of A is +0.03, with a 95 % interval from −0.02 to 0.08. The smallest
# difference this design would have shown with a power of 0.8 is 0.07. Which statements follow?
# (a) A and B are equally good. (b) A true difference of 0 is compatible with the data. (c) So is a true difference of 0.05.
# (d) For 95 % of patients B is between 0.02 worse and 0.08 better. (e) If B is truly 0.03 better, this design would probably
# not have shown it.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.evaluation import check_statements

statements = ...  # for example {"a", "b"}

check_statements(statements)

# %% [markdown] tags=["solution"]
# ````{solution} ex-evaluation-interval
# :label: sol-evaluation-interval
# :class: dropdown
#
# An interval is a list of true values that the data do not rule out. It neither chooses 0 among them nor speaks of single patients.
#
# ```python
# statements = {"b", "c", "e"}
# ```
# ````

# %% [markdown]
# ```{exercise} The patient's score
# :label: ex-evaluation-prr
#
# *Medium.* `predictions` has one row per image with the columns `patient` (its slide id) and `right` (True or False). Return the
# patient recognition rate.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.evaluation import check_recognition_rate


def recognition_rate(predictions): ...


check_recognition_rate(recognition_rate)

# %% [markdown] tags=["solution"]
# ````{solution} ex-evaluation-prr
# :label: sol-evaluation-prr
# :class: dropdown
#
# The inner mean is the patient's share of right images, the outer one treats patients alike.
#
# ```python
# def recognition_rate(predictions):
#     return predictions.groupby("patient")["right"].mean().mean()
# ```
# ````

# %% [markdown]
# ```{exercise} Redraw patients
# :label: ex-evaluation-redraw
#
# *Hard.* A bootstrap asks how a metric would move with other patients. Return one redraw of a table with the columns `group` and
# `image`: as many patients as there are, drawn with replacement by `generator`, each with all of their images (twice, if drawn twice).
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.evaluation import check_redraw


def redraw(table, generator): ...


check_redraw(redraw)

# %% [markdown] tags=["solution"]
# ````{solution} ex-evaluation-redraw
# :label: sol-evaluation-redraw
# :class: dropdown
#
# The metric of a thousand redraws spreads as it would over studies, as far as the patients at hand represent all.
#
# ```python
# import pandas as pd
#
#
# def redraw(table, generator):
#     patients = table["group"].unique()
#     drawn = generator.choice(patients, len(patients))
#     rows = dict(list(table.groupby("group")))
#     return pd.concat([rows[patient] for patient in drawn])
# ```
# ````

# %% [markdown]
# ## Take home
#
# - A number without its interval and its n is a rumour; an interval without its coverage is a hope.
# - Beat the frozen probe first. One fold of one subset decides nothing: where the difference's interval holds 0, the methods
#   show no difference.
# - Pooling over magnifications flatters: in the real subset magnification alone says much about the class. Pooling over folds compares
#   different networks: look within folds too.
# - Check a heat map before you believe it, and let it compete with a pointer that knows nothing.
# - Read the history: a detector with known false alarms sees overfitting sooner than a hopeful eye.
#
# **Further reading:** {cite}`spanhol2016` for the recognition rate; {cite}`adebayo2018` on maps that show nothing;
# {cite}`maierhein2024` on the choice of metrics; {cite}`collins2024` on what a report of a prediction model should state.

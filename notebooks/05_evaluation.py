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
# **Takes** about 22 minutes to read, 1 to run (phantom tissue, two cores), 50 for the exercises.
# **Needs** chapters {doc}`Data <01_data>` and {doc}`Transfer <04_transfer>`; means, quantiles, what a confidence interval is.

# %% tags=["parameters"]
profile = "phantom"
data_root = ""
seed = 0
device = "cpu"
weights = ""

# %%
import os
from pathlib import Path

from histotransfer.book.chapters import begin, live_config, project_root
from histotransfer.study.runner import run_ladder

os.chdir(project_root())  # chapters name their records from there
chosen = {"seed": seed, "device": device, "weights": weights}
root = begin(profile=profile, data_root=data_root, **chosen)
live = Path("_build/experiments") / profile
if not (live / "ladder").exists():  # chapter 04 has not been run
    run_ladder(live_config(profile, chosen), root, live)

# %% [markdown]
# ## Two baselines
#
# A network is worth its training only where it beats what needs none ({numref}`tab-evaluation-arms`).
#
# :::{table} The baselines, and the method.
# :name: tab-evaluation-arms
#
# | name | what it is | why |
# |---|---|---|
# | `majority` | always the more frequent training class | accuracy looks good on unequal classes for nothing |
# | `frozen-probe` | logistic regression on frozen ImageNet DenseNet-121 features; its C (scikit-learn's: the smaller, the more is regularised) chosen inside the training patients | what pre-training gives without any training of the network |
# | `ladder` | SE-DenseNet, ImageNet → LC25000 → BreakHis | the method |
#
# :::
#
# All three see the same training patients and are tested on the same images. `mean` is the unweighted mean over 40x, 100x
# and 200x; `all` pools every image ({numref}`tab-evaluation-live`).

# %% mystnb={"figure": {"name": "tab-evaluation-live", "caption": "This page's own data: the ladder and its baselines on the test part of one fold."}}
from histotransfer.report.tables import (
    formatted,
    read_experiment,
    with_intervals,
)

names = ["majority", "frozen-probe", "ladder"]
runs = read_experiment(live, names)
table = with_intervals(runs)
formatted(table, ["accuracy", "balanced_accuracy", "auroc"])

# %% [markdown]
# ## Metrics
#
# With malignant as the positive class, {term}`sensitivity` is the share of malignant images found, {term}`specificity` the
# share of benign
# images left alone; {term}`balanced accuracy` is their mean. {term}`AUROC` is the chance that a malignant image scores above a
# benign one.
# The {term}`patient recognition rate` of BreakHis {cite}`spanhol2016` is not a vote: for each patient $p$ the share of its
# $N_p$ images that are right, then the mean over patients,
#
# $$ \mathrm{PRR} = \frac{1}{|P|}\sum_{p \in P} \frac{N_p^{\text{right}}}{N_p}. $$
#
# As there, a patient is here a slide id as published; the n of the tables, and the intervals, go by base number.
#
# The threshold is 0.5, fixed beforehand.

# %% mystnb={"figure": {"name": "tab-evaluation-live-metrics", "caption": "This page's own data: the same runs by other metrics, all test images together; of log-loss, Brier score and calibration error, lower is better."}}
sheet = ["sensitivity", "specificity", "recognition_rate"]
sheet += ["average_precision", "f1", "matthews_correlation"]
sheet += ["log_loss", "brier", "calibration_error"]
formatted(table[table["magnification"] == "all"], sheet).T

# %% [markdown]
# ## Intervals
#
# Images of a patient stand or fall together. So patients are left out one at a time, within each class, and how much a metric
# moves gives its interval (the jackknife, then Clopper and Pearson's interval at the number of images that this spread
# stands for: **Korn and Graubard**'s). With few patients it is wide. That is the truth about few patients. A value without an interval
# is one that the patients do not spread: all have the same, or it hangs on one of them.
#
# Whether such intervals hold the truth as often as they say was **measured**, on made data sets with the real numbers of patients
# and images. {numref}`tab-evaluation-methods-one` and {numref}`tab-evaluation-methods-two` show, for each method tried, in how many
# percent of the data sets its 95 % interval held the truth in the worst scenario and at the worst of 40x, 100x and 200x (give or
# take a point, as data sets are few too), and how wide it was on average: first for one arm, then for the difference of two. At
# 400x, with six patients a class, differences hold the truth much less often; their percent stand with the tables below. A method
# that holds 100 % by being as wide as everything says nothing, one that holds 80 % says too much. The book uses the method with the
# best worst case among those of about its width (`used`); where another holds as much or more for one metric, it is wider, or holds
# less for the other.
#
# {numref}`fig-roc` and {numref}`fig-precision-recall` show what any other threshold would give; {numref}`fig-confusion` and
# {numref}`fig-patients` stand at the one that was fixed.

# %% mystnb={"figure": {"name": "tab-evaluation-methods-one", "caption": "How often 95 % intervals of one arm held the truth (percent), and how wide they were, by method; worst scenario, worst of 40x, 100x and 200x."}}
import pandas as pd

from histotransfer.report.coverage import ONE, TWO, methods

methods(ONE, ["accuracy", "auroc"])

# %% mystnb={"figure": {"name": "tab-evaluation-methods-two", "caption": "The same for differences of two arms."}}
methods(TWO, ["accuracy", "auroc"])

# %% mystnb={"figure": {"name": "fig-roc", "caption": "This page's own data: ROC curves with pointwise 95 % bands; grey: a guess."}}
from histotransfer import figures

tests = {
    name: run.predictions[run.predictions["part"] == "test"]
    for name, run in runs.items()
    if name != "majority"
}
figure = figures.roc(tests)

# %% mystnb={"figure": {"name": "fig-precision-recall", "caption": "This page's own data: precision and recall, with pointwise 95 % bands; grey: a guess."}}
figure = figures.precision_recall(tests)

# %% mystnb={"figure": {"name": "fig-confusion", "caption": "This page's own data: confusion matrix of the ladder, images, and share of each true class."}}
figure = figures.confusion(tests["ladder"])

# %% mystnb={"figure": {"name": "fig-patients", "caption": "This page's own data, by patient: dots are images, bars the patient's mean; dashed: the threshold."}}
figure = figures.patients(tests["ladder"])

# %% [markdown]
# ## Calibration
#
# A probability of 0.8 should be right eight times in ten. Log-loss and Brier score punish confident errors; the expected
# {term}`calibration` error is the mean gap between the dots below and the diagonal. It grows with few images even where a model is
# calibrated: compare it on the same images only. The three stand in {numref}`tab-evaluation-live-metrics`.
#
# In {numref}`fig-reliability` the numbers below the dots are images; a bin without an interval holds images of one patient only.

# %% mystnb={"figure": {"name": "fig-reliability", "caption": "This page's own data: observed share of malignant images in ten bins of predicted probability, with 95 % intervals clustered by patient."}}
from histotransfer.evaluation.calibration import reliability

figure = figures.reliability_diagram({
    name: reliability(predictions) for name, predictions in tests.items()
})  # fmt: skip

# %% [markdown]
# ## Two methods on the same images
#
# Overlapping intervals do not say that two methods are alike. The difference has an interval of its own: whole patients are
# redrawn, the same for both methods, and of the differences the middle is taken, somewhat more of it than 95 % as patients are few (the
# **expanded percentile** interval). `smallest` is the smallest true difference in AUROC that this design would have shown
# with a power of 0.8 ({numref}`tab-evaluation-live-gap`).

# %% mystnb={"figure": {"name": "tab-evaluation-live-gap", "caption": "This page's own data: the ladder minus the frozen probe, paired by patient."}}
from histotransfer.report.tables import gap

metrics = ["accuracy", "auroc"]
difference = gap(runs["frozen-probe"], runs["ladder"], metrics=metrics)
formatted(difference, metrics, smallest="auroc")

# %% [markdown]
# With a handful of patients even such intervals hold the truth clearly less often than they say: read these as an exercise.

# %% [markdown]
# ## Where it looks
#
# {term}`Grad-CAM` {cite}`selvaraju2017` weighs the activations of block 4 by how much they matter for a class's logit. The images
# are of patients that the network never saw; on {term}`phantom tissue <phantom>` these are new patients, one field a
# magnification. There the
# diagnostic regions are known: above, what lies outside is grey ({numref}`fig-grad-cam`).

# %% mystnb={"figure": {"name": "fig-grad-cam", "caption": "Fields with their true class, what the network said, and their diagnostic regions (above); the evidence for what it said by Grad-CAM (below); cross: hottest cell."}}
from histotransfer.evaluation.explain import grad_cam
from histotransfer.experiments import explanations

unseen = explanations.unseen_images(runs["ladder"], root)
shown = explanations.predict_images(
    live / "ladder" / "model.safetensors", unseen
)
maps = grad_cam(shown.model, shown.source, shown.predicted)
masks = shown.masks() if profile == "phantom" else None
few = unseen[unseen["magnification"] == 100].index[2::5][:5]
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

# %% mystnb={"figure": {"name": "fig-sanity", "caption": "Rank correlation of maps with those of the trained network when its weights are drawn anew down to a group, with 95 % intervals clustered by patient."}}
from histotransfer.evaluation.explain import sanity_check

sanity = sanity_check(
    shown.model, shown.source, shown.predicted, shown.groups, shown.labels
)
label = "rank correlation with the trained network's map"
figure = figures.means_with_intervals(sanity, label)

# %% [markdown]
# ## What the gates do
#
# Gates start at exactly 1 and move only where training unfroze them. {numref}`tab-evaluation-gates` holds, for this
# chapter's network and for one on real tissue: lowest and highest mean gate of any channel; the largest difference between the classes with its interval, in
# millionths (`largest`, `low`, `high`); and how many channels' intervals leave out 0 (`apart`, not corrected for how many there are; {numref}`fig-gates`).

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
gates_beside_record(moved, shown.groups)

# %% mystnb={"figure": {"name": "fig-gates", "caption": "This page's own data: mean gate of every channel of the gates that moved, by class, with 95 % t intervals over patients; where both classes are alike one line hides the other."}}
trained = moved.index[moved["highest"] > moved["lowest"]]
figure = figures.gate_profile(profiles[profiles["gate"].isin(trained)])

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
# they were not designed on. On phantom runs the truth is told twice: by what was provoked, and by what **test patients** show,
# whom no detector saw. Harm that test patients show and validation patients do not is missed: a detector sees no further than
# its patients. Intervals are Wilson's; runs of one seed share patients, which these do not know ({numref}`tab-evaluation-detectors`).
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
# ## On real tissue
#
# The study's primary experiment: a real subset of BreakHis, profile `lite`, 224 pixels, five folds by patient, three seeds.
# Every image is tested **out of fold**: by networks that saw nothing of its patient. An image's logits are averaged over
# seeds, so that patients remain the only sample: what is judged is an ensemble of three networks, and the intervals do not hold what
# training anew would change. `se-lung` has the parts of the paper's model, SE, and LC25000 between ImageNet and BreakHis, in a
# recipe for a CPU ({ref}`what was stated and what was done <tab-recipe>`); 400x is only tested, and one patient holds more than half of
# its images: where an interval runs from 0 to 1, these patients say nothing. Made with
# `histotransfer study run study/primary.toml --data DIR`; everything below is drawn from the records in `results/primary`.
#
# Behind each interval of {numref}`tab-evaluation-real` stands in percent how often such intervals held the truth of fixed
# predictions at exactly these numbers of patients, the lowest over the scenarios of `results/coverage`. No network was trained anew
# there, no fold had a level of its own, and `majority`, which answers by folds alone, is none of these scenarios.

# %% mystnb={"figure": {"name": "tab-evaluation-real", "caption": "Real tissue, out of fold: the network of the primary experiment and its baselines; in percent, how often such intervals held the truth."}}
from histotransfer.report.coverage import with_coverage
from histotransfer.report.study import Study

study = Study("study", "results")
arms = ["majority", "frozen-probe", "se-lung"]
real = {arm: study.pooled("primary", arm) for arm in arms}
whole = with_intervals(real)
of_classes = whole["run"] == "majority"
measured = with_coverage(whole[~of_classes])
real_table = pd.concat([whole[of_classes], measured])
shown = ["accuracy", "balanced_accuracy", "auroc", "recognition_rate"]
formatted(real_table, shown)

# %% [markdown]
# **Pooled and within folds.** Five networks score five folds, and a pooled {term}`AUROC` compares their scores with one another.
# `majority` shows what that does: it gives all images of a fold one score, so within a fold its AUROC is 0.5. Pooled it falls
# below, because a fold whose test patients are more often malignant trains on fewer of them, and the answers of the folds lean the
# wrong way. So the second and third column of {numref}`tab-evaluation-real-within` count only pairs of images that one network
# scored, in each seed on its own, by image and by patient. They are of single networks, the first column of the mean of three: two
# things change at once. How often these intervals hold the truth was not measured, and n counts all images, those too of folds that
# hold one class only and so have no say (the first column is drawn in {numref}`fig-real-forest`).

# %% mystnb={"figure": {"name": "tab-evaluation-real-within", "caption": "Real tissue: AUROC with all folds pooled, and of pairs that one network scored."}}
from histotransfer.report.tables import gap_within_folds, within_folds

runs_of = {arm: study.runs("primary", arm) for arm in arms[1:]}
inside = within_folds(runs_of)
columns = ["auroc", "auroc_within_folds", "patient_auroc_within_folds"]
pooled = real_table[real_table["run"] != "majority"]
formatted(pd.concat([pooled, inside]), columns)

# %% mystnb={"figure": {"name": "fig-real-forest", "caption": "AUROC on real tissue, out of fold, with 95 % intervals clustered by patient."}}
ranked = real_table[real_table["run"] != "majority"]
figure = figures.forest(ranked, "auroc")

# %% [markdown]
# The network minus the probe, paired by patient, folds pooled and within folds, is {numref}`tab-evaluation-real-gap`; patient by
# patient the network's answers are in {numref}`fig-real-patients`, counted in {numref}`fig-real-confusion`. {numref}`fig-real-reliability`
# shows how far its probabilities and the probe's can be believed.

# %% mystnb={"figure": {"name": "tab-evaluation-real-gap", "caption": "Real tissue: the network minus the frozen probe, paired by patient: folds pooled, and AUROC within folds."}}
pair = real["frozen-probe"], real["se-lung"]
real_gap = with_coverage(gap(*pair, metrics=metrics))
inside_gap = gap_within_folds(
    [(runs_of["se-lung"], runs_of["frozen-probe"])],
    "se-lung minus frozen-probe",
)
both = pd.concat([real_gap, inside_gap])
formatted(both, ["accuracy", *columns], smallest="auroc")

# %% mystnb={"figure": {"name": "fig-real-patients", "caption": "Test images on real tissue by patient, out of fold: dots are images, bars the patient's mean; dashed: the threshold."}}
figure = figures.patients(real["se-lung"].predictions)

# %% mystnb={"figure": {"name": "fig-real-confusion", "caption": "Confusion matrix on real tissue, out of fold, all magnifications: images, and share of each true class."}}
figure = figures.confusion(real["se-lung"].predictions)

# %% mystnb={"figure": {"name": "fig-real-reliability", "caption": "Calibration on real tissue, out of fold: 95 % intervals clustered by patient."}}
figure = figures.reliability_diagram({
    name: reliability(real[name].predictions) for name in arms[1:]
})  # fmt: skip

# %% [markdown]
# **Sensitivity.** The threshold of 0.5 and the logits as they come were fixed beforehand: one run has one to three benign
# validation patients, and whatever is tuned on those is noise. Had either been tuned on the validation images of all runs together,
# for each run without those of its own test patients, mean over 40x, 100x and 200x (a temperature divides all logits: no order changes,
# and no side of 0.5, only how sure the probabilities are; {numref}`tab-evaluation-sensitivity`):

# %% mystnb={"figure": {"name": "tab-evaluation-sensitivity", "caption": "Real tissue: metrics as fixed beforehand, and had the threshold or a temperature been tuned on validation patients."}}
from histotransfer.report.tables import fixed_and_tuned

fixed_and_tuned(study.runs("primary", "se-lung"))

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
figure = figures.means_with_intervals(real_sanity, label)


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
# *Medium.* `predictions` has one row an image with the columns `patient` (its slide id) and `right` (True or False). Return the
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
# The metric of a thousand redraws spreads as it would over studies, as far as the patients at hand stand for all.
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
#   are not told apart.
# - Pooling over magnifications flatters: in the real subset magnification alone says much about the class. Pooling over folds compares
#   different networks: look within folds too.
# - Check a heat map before you believe it, and let it compete with a pointer that knows nothing.
# - Read the history: a detector with known false alarms sees overfitting sooner than a hopeful eye.
#
# **Further reading:** {cite}`spanhol2016` for the recognition rate; {cite}`adebayo2018` on maps that show nothing.

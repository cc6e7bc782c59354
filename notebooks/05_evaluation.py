# %% [markdown]
# # Evaluation: what the numbers can carry
#
# **After this chapter you can**
#
# - read accuracy, AUROC, sensitivity, specificity and the patient recognition rate side by side;
# - say why every one of them needs an interval clustered by patient;
# - judge a trained network against the two baselines it must beat.

# %% tags=["parameters"]
profile = "phantom"
data_root = ""
seed = 0
device = "cpu"
weights = ""

# %%
from pathlib import Path

from histotransfer.chapters import begin
from histotransfer.config import ladder_config
from histotransfer.study.runner import run_ladder

chosen = {"seed": seed, "device": device, "weights": weights}
root = begin(profile=profile, data_root=data_root, **chosen)
live = Path("_build/experiments") / profile
if not (live / "ladder").exists():  # chapter 04 has not been run
    run_ladder(ladder_config(profile, chosen), root, live)

# %% [markdown]
# ## Two baselines
#
# | name | what it is | why |
# |---|---|---|
# | `majority` | always the more frequent training class | accuracy looks good on unequal classes for nothing |
# | `frozen-probe` | logistic regression on frozen ImageNet DenseNet-121 features; its C chosen inside the training patients | what pre-training gives without any training of the network |
# | `ladder` | SE-DenseNet, ImageNet → LC25000 → BreakHis | the method |
#
# All three see the same training patients and are tested on the same images.

# %%
from histotransfer.study.tables import (
    formatted,
    read_experiment,
    with_intervals,
)

runs = read_experiment(live, ["majority", "frozen-probe", "ladder"])
table = with_intervals(runs)
formatted(table, ["accuracy", "balanced_accuracy", "auroc"])

# %% [markdown]
# ## Metrics
#
# With malignant as the positive class, sensitivity is the share of malignant images found, specificity the share of benign
# images left alone; balanced accuracy is their mean. AUROC is the chance that a malignant image scores above a benign one.
# The **patient recognition rate** of BreakHis {cite}`spanhol2016` is not a vote: for each patient $p$ the share of its
# $N_p$ images that are right, then the mean over patients,
#
# $$ \mathrm{PRR} = \frac{1}{|P|}\sum_{p \in P} \frac{N_p^{\text{right}}}{N_p}. $$

# %%
formatted(table, ["sensitivity", "specificity", "recognition_rate"])

# %% [markdown]
# ## Intervals
#
# Images of a patient stand or fall together, so whole patients are redrawn (10,000 times, within each class), and the middle
# 95 % of the results is the interval. With few patients it is wide. That is the truth about few patients. A resampling of
# a handful cannot know of patients it never saw, so these intervals are, if anything, too narrow.

# %% mystnb={"figure": {"name": "fig-live-forest", "caption": "AUROC on this chapter's own run, per magnification, with patient-clustered 95 % intervals."}, "image": {"alt": "Dots with horizontal intervals: AUROC of three methods at each magnification and over all images."}}
from histotransfer.figures import forest

figure = forest(table, "auroc")

# %% mystnb={"figure": {"name": "fig-roc", "caption": "ROC curves of this chapter's own run, all magnifications together."}, "image": {"alt": "ROC curves of the majority class, the frozen probe and the ladder."}}
from histotransfer.figures import confusion, roc

tests = {
    name: run.predictions[run.predictions["part"] == "test"]
    for name, run in runs.items()
}
figure = roc(tests)

# %% mystnb={"figure": {"name": "fig-confusion", "caption": "Confusion matrix of the ladder: images, and share of each true class."}, "image": {"alt": "Two by two confusion matrix of benign and malignant with counts and percentages."}}
figure = confusion(tests["ladder"])

# %% [markdown]
# ## On real tissue
#
# The same ladder on a real subset of BreakHis and LC25000, profile `lite`: 224 pixels, patient-disjoint, one fold and one
# seed. It was made with
#
# ```sh
# histotransfer ladder --profile lite --data DIR --out results/spine
# ```
#
# and everything below is drawn from the record in `results/spine`.

# %%
real = read_experiment(
    "results/spine", ["majority", "frozen-probe", "ladder"]
)
record = real["ladder"].record
{
    "profile": record["profile"],
    "data": record["data"],
    "split": record["split"],
}

# %%
real_table = with_intervals(real)
formatted(real_table, ["accuracy", "balanced_accuracy", "auroc"])

# %%
formatted(real_table, ["sensitivity", "specificity", "recognition_rate"])

# %% mystnb={"figure": {"name": "fig-real-forest", "caption": "AUROC on real tissue (profile lite, one fold), with patient-clustered 95 % intervals."}, "image": {"alt": "Dots with horizontal intervals: AUROC on real tissue of three methods at each magnification and over all images."}}
figure = forest(real_table, "auroc")

# %% mystnb={"figure": {"name": "fig-real-curves", "caption": "Learning curves of the real run."}, "image": {"alt": "Two panels of learning curves of the real run, LC25000 and BreakHis, with stage borders."}}
from histotransfer.figures import learning_curves

figure = learning_curves(real["ladder"].history)

# %% [markdown]
# One fold of one subset decides nothing: where intervals overlap, the methods are not told apart here. Figures over all
# magnifications are confounded as well, since in this subset magnification alone says much about the class; read the rows
# of single magnifications.
#
# ## Take home
#
# - A number without its interval and its n is a rumour.
# - Beat the frozen probe first.
# - Pooling over magnifications or over images of one patient flatters.
#
# **Further reading:** {cite}`spanhol2016`.

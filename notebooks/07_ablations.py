# %% [markdown]
# # Ablations: which part earns its place
#
# **After this chapter you can**
#
# - ask of a comparison first whether its treatment was given;
# - read a paired difference between two arms that are equal in all but one thing;
# - say what SE, the LC25000 step, the place and width of gates, colour normalisation and augmentation each add here;
# - recognise a null result from a treatment that was never given.
#
# **Takes** about 20 minutes to read, 2 to run (phantom tissue, two cores). Exercises, estimated: an easy
# one 5 minutes, a medium one 15, a hard one 30.
# **Needs** chapters {doc}`SE-DenseNet <03_se_densenet>` and {doc}`Evaluation <05_evaluation>`.
#
# The paper adds two things to a DenseNet from ImageNet: SE gates, and a step on lung tissue (LC25000). Which of them earns its place?
#
# **What came out:** neither. Gates make no difference worth having, whichever way they start. By the rule the lung step is contradicted,
# but barely, and nothing else confirms it. Both together do not add the 2 points of accuracy that the paper claims at least.
# Whether normalisation and augmentation reduce overfitting cannot be told from these patients; Macenko's method costs ranking.

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

os.chdir(project_root())  # chapters name their records from there
chosen = {"seed": seed, "device": device, "weights": weights}
begin(profile=profile, data_root=data_root, **chosen)
pd.set_option("display.max_colwidth", None)
study = Study("study", "results")

# %% [markdown]
# ## What was given
#
# Four {term}`arms <arm>` answer: SE on or off, LC25000 on or off, all else equal (`study/primary.toml`: the real subset, 112 pixels, colours
# as scanned, five folds by patient, three seeds). A fifth arm, `se-standard`, starts its gates as the SE paper {cite}`hu2018` does: near
# one half. In the others gates start at exactly 1, where they change nothing.
#
# Before any difference comes the **dose**. Did the gates leave 1? Do they answer to the image? Did the blocks learn? Did the lung step
# teach lung, and did it change the features? The rule (`study/claims.toml`) fixed the smallest doses before these runs; a claim whose
# treatment falls short in more than one run of five would be **not tested as run**. In {numref}`fig-ablation-doses` every dot is one of
# fifteen runs of its arm, and grey is too little:

# %% mystnb={"figure": {"name": "fig-ablation-doses", "caption": "Real tissue: what each run of the primary experiment was given; dashed: what the rule asks."}}
from histotransfer import figures
from histotransfer.report.doses import by_run, not_given, read_rule

trained = ["plain", "se", "se-standard", "plain-lung", "se-lung"]
runs = {arm: study.runs("primary", arm) for arm in trained}
rule = read_rule(study.study)
treatments = ["gates", "fine-tuning", "lung"]
given = by_run(runs, treatments, rule)
figure = figures.doses(given)

# %%
assert not not_given(list(runs.values()), treatments, rule)

# %% [markdown]
# By the rule every treatment was given; two of the 45 runs with gates are short of the spread, and the rule allows one in five. The distance
# from 1 says little of `se-standard`, whose gates start near one half. What tells attention from a constant factor is the spread over
# images, and it is small beside the distance: these gates mostly rescale channels, for every image alike. CKA {cite}`kornblith2019` compares the features of breast images before and after the lung step: 1 is "the same". Medians are in
# {numref}`tab-ablation-doses`.

# %% mystnb={"figure": {"name": "tab-ablation-doses", "caption": "The median dose of each arm."}}
given["dose"] = given["treatment"] + ": " + given["measure"]
order = list(dict.fromkeys(given["dose"]))
medians = given.pivot_table("value", "arm", "dose", "median")
medians = medians[order].rename(columns=lambda name: name.replace("_", " "))
brief(medians.loc[trained].map("{:.2g}".format).replace("nan", "–"))

# %% [markdown]
# ## What it did
#
# Intervals of arms overlap for a reason that says nothing of their difference: hard patients are hard for every arm. So arms are compared
# on the same patients. A difference is that of single networks, one per seed, averaged over the seeds; its interval redraws whole
# patients. C2 and C3a change one thing; C4b, as the claim that it judges, changes both, in accuracy, and asks for 2 points
# ({numref}`fig-ablation-verdicts`).

# %% mystnb={"figure": {"name": "fig-ablation-verdicts", "caption": "Real tissue: what the paper's two additions do, in single networks, beyond what is claimed: mean over 40x, 100x and 200x, with 95 % intervals."}}
from histotransfer.report.answers import lines
from histotransfer.report.verdicts import EXPLORATORY, PRIMARY, Judge

judging = Judge(study)
family = judging.differences(PRIMARY, correct=True)
others = judging.differences(
    [other for other in EXPLORATORY if other.experiment == "primary"]
)
judged = pd.concat([family, others]).query("experiment == 'primary'")
figure = figures.claims(lines(judging, judged))

# %% [markdown]
# - **The lung step does not help, and may cost a little** (C3a). AUROC falls by about one point, and the interval leaves out 0, barely.
# - **Gates add nothing worth having** (C2). Whatever they add in AUROC is less than the 2 points that the rule calls worth having, with
#   gates that start at 1 and with gates that start as in the SE paper.
# - **Both together do not add 2 points of accuracy** (C4b).
#
# Nothing confirms the cost of the lung step: counted by patient instead of by image, no difference leaves out 0; after Holm's correction no
# p-value of the family is small; and within folds the verdicts differ ({numref}`tab-verdict-within`). One
# point of AUROC is near the smallest effect that these patients can show. {numref}`tab-ablation-primary-differences` has the numbers.
# `first rule` is what the first edition's rule says of the same runs, by the average of the three networks; it knows no "too small to
# matter". `smallest` is the smallest true difference that these patients would have shown with a power of 0.8.

# %%
said = judged.set_index(["id", "note"])["verdict"]
assert said["C3a", ""] == said["C4b", ""] == "contradicted here"
assert (said["C2"] == "no effect worth having").all()
of_patients = judged[["patient_low", "patient_high"]]
assert (of_patients["patient_low"] * of_patients["patient_high"] < 0).all()
assert judged["p_holm"].min() > 0.05
assert -0.015 < judged.set_index("id").loc["C3a", "value"] < -0.005

# %% mystnb={"figure": {"name": "tab-ablation-primary-differences", "caption": "The claims that the primary experiment decides: one network of an arm minus one of the other, in points (hundredths) of AUROC, C4b of accuracy."}}
from histotransfer.evaluation.formatting import number

names = {"result": "value", "patient": "patient", "average": "average"}
table = judged[["id", "compared", "verdict"]].set_index("id")
for name, of in names.items():
    prefix = "" if of == "value" else f"{of}_"
    points = 100 * judged[[of, f"{prefix}low", f"{prefix}high"]]
    table[name] = [number(*row) for row in points.to_numpy()]
table["first rule"] = list(judged["first_verdict"])
table["smallest"] = list((100 * judged["smallest"]).round(1))
table["p, Holm"] = list(judged["p_holm"].round(2))
brief(table, ["compared", "result", "patient", "verdict"])

# %% [markdown]
# Where the arms are, beside the {term}`frozen probe` ({numref}`tab-ablation-primary`): no arm is far
# from it in ranking, and all of them have the worse log-loss.

# %% mystnb={"figure": {"name": "tab-ablation-primary", "caption": "One network of each arm, out of fold, mean over 40x, 100x and 200x; of log-loss, lower is better."}}
from histotransfer.evaluation.intervals import mean_intervals
from histotransfer.report.tables import side_by_side

metrics = ["auroc", "accuracy", "log_loss"]
levels = {}
for arm in ["frozen-probe", *trained]:
    networks = judging.of_seeds("primary", arm)
    levels[arm] = mean_intervals(networks, "magnification", wanted=metrics)
side_by_side(levels, metrics)

# %%
losses = pd.Series(
    {arm: of_arm.loc["log_loss", "value"] for arm, of_arm in levels.items()}
)
assert losses.idxmin() == "frozen-probe"

# %% [markdown]
# ## A null result from a treatment that never happened
#
# The first edition of this study asked the same question. Its answer to C2 was a difference near 0 with a narrow interval, from thirty
# networks with gates and thirty without. It looked like a finding: gates do nothing here. It was none. Those runs kept no weights;
# `results/first-edition` says what training at the same rates had done to two networks whose weights were kept
# ({numref}`tab-ablation-dose`): `gate` is the largest distance of any gate from 1, and `moved` how far the convolutions of a group went
# from their ImageNet weights, as a share of their size (0.02 % is the rounding of the stored file).

# %% mystnb={"figure": {"name": "tab-ablation-dose", "caption": "Real tissue, first edition: how far the gates of one run and the convolutions of its final recipe had moved by the end of training."}}
first = "results/first-edition"
moved = pd.read_csv(f"{first}/movement.csv", index_col="group")["moved"]
gates = pd.read_csv(f"{first}/gates.csv", index_col="gate")
furthest = (gates[["lowest", "highest"]] - 1).abs().max(axis=1)
group = "block" + furthest.index.str[-1]
dose = pd.DataFrame({"gate": furthest.groupby(group).max(), "moved": moved})
assert dose["gate"].max() < 0.002 and dose.loc["block3", "moved"] < 0.003
dose.map("{:.2%}".format).replace("nan%", "–")

# %% [markdown]
# A gate of 1 changes nothing. No gate was further from it than a fifth of a percent, so "with SE" and "without SE" were nearly the same
# function, and a difference near 0 was to be expected before the first image was seen. More seeds and more patients would only have made
# the interval narrower around a number that answers no question. Block 3, which the stage names as unfrozen, had moved by a quarter of a
# percent: the ladder's last step was hardly taken either.
#
# Nothing in the interval shows this. The cause was a rate: gates learned at the rate of their pre-trained block, a tenth of the head's in
# block 4 and a hundredth in block 3, for about a hundred steps. Three habits prevent it:
#
# - **Measure the dose.** Every record now says how far weights and gates moved, how much the lung step changed the features, and how many
#   views an image was seen in ({py:mod}`histotransfer.evaluation.dose`).
# - **Fix the least dose beforehand**, in the rule, as one fixes the least difference.
# - **Give it a verdict of its own.** Below that dose a claim is neither undecided nor refuted but **not tested as run**, whatever its interval:

# %%
from histotransfer.evaluation.comparisons import judge

row = pd.read_csv(f"{first}/verdicts.csv", index_col="id").loc["C2"]
moving = dose["gate"].max() >= rule["dose"]["gates"]["distance"]
ends = -0.02, 0.004  # as in its result
assert f"[{ends[0]},\N{NO-BREAK SPACE}{ends[1]}]" in row["result"]
print("first edition:", row["result"])
print("first rule:   ", row["verdict"])
print("second rule:  ", judge(*ends, 0, 0.02, given=moving))

# %% [markdown]
# In the second edition gates learn at a rate of their own, and the answer looks much the same: near 0. But now it is an answer. The first
# number measured gates that did not act; the second measures gates that did move: by 0.4 on average.

# %%
assert medians.loc["se", "gates: distance"] > 0.4

# %% [markdown]
# ## What each stage adds
#
# A run's stages are states of one network: the head alone, then block 4 unfrozen, then block 3. {numref}`fig-ablation-stages` has each
# state of `se-lung`, {numref}`tab-ablation-stages-added` each minus the one before.

# %% mystnb={"figure": {"name": "fig-ablation-stages", "caption": "AUROC of one network after each stage, mean over 40x, 100x and 200x."}}
steps = {"head": "head", "block 4": "block4", "block 3": ""}
states = {
    name: judging.of_seeds("primary", "se-lung", stage=stage)
    for name, stage in steps.items()
}
aurocs = {
    name: mean_intervals(t, "magnification", wanted=["auroc"]).loc["auroc"]
    for name, t in states.items()
}
about = judged[["images", "patients"]].astype({"images": int}).iloc[0]
stages = pd.DataFrame(aurocs).T.assign(**about)
figure = figures.means_with_intervals(stages, "AUROC", nothing=0.5)

# %% mystnb={"figure": {"name": "tab-ablation-stages-added", "caption": "Each stage minus the one before: one network, paired by patient."}}
from histotransfer.evaluation.intervals import differences

metrics = ["auroc", "accuracy", "log_loss"]
added = {}
for before, after in (("head", "block 4"), ("block 4", "block 3")):
    pairs = list(zip(states[after], states[before], strict=True))
    added[after] = differences(pairs, "magnification", metrics=metrics)
side_by_side(added, metrics)

# %%
ranked = added["block 4"].loc[["auroc", "accuracy"]]
assert (ranked["low"] > 0).all() and ranked["value"].between(
    0.1, 0.12
).all()
assert added["block 3"].loc["auroc", "low"] < 0
assert 0 < added["block 3"].loc["auroc", "high"] < 0.03
assert added["block 3"].loc["log_loss", "low"] > 0  # worse

# %% mystnb={"figure": {"name": "tab-ablation-heads", "caption": "The head alone minus the frozen probe: one network of each arm, paired by patient."}}
probe = judging.of_seeds("primary", "frozen-probe")
heads = {}
for arm in ("plain", "se", "plain-lung", "se-lung"):
    alone = judging.of_seeds("primary", arm, stage="head")
    pairs = list(zip(alone, probe, strict=True))
    heads[arm] = differences(pairs, "magnification", metrics=metrics[:2])
for arm, found in heads.items():
    assert (found.loc["accuracy", "high"] < 0) == arm.endswith("lung")
side_by_side(heads, metrics[:2])

# %% [markdown]
# **After the lung step the head alone is less accurate than the frozen probe; without that step this is not shown**
# ({numref}`tab-ablation-heads`). Unfreezing block 4 adds about 11 points of AUROC and of accuracy to the head of `se-lung`. That brings it up
# to the probe and is not shown to bring it further ({numref}`tab-verdict-bar`). Unfreezing block 3 as well adds nothing that these patients
# can show, and makes log-loss worse: the network fits its training images better and is too sure of new ones (chapter {doc}`05_evaluation`).
#
# ## Where the gates sit, and how wide (N1)
#
# The paper does not state the reduction $r$. Here gates after blocks and transitions have $r = 16$; `study/se-placement.toml` puts them
# elsewhere or changes $r$. Each arm minus the network without gates, one seed, exploratory; the words in colour are what the rule of C2
# would say ({numref}`fig-ablation-placement`, {numref}`tab-ablation-placement`). Seven comparisons on one seed: where one interval leaves
# out 0 by little, that may be the luck of one training.

# %% mystnb={"figure": {"name": "fig-ablation-placement", "caption": "Networks with gates, by place and width, minus the one without: AUROC, one seed, paired by patient."}}
placed = judging.placements()
table = lines(judging, placed).assign(title=list(placed["note"]))
figure = figures.claims(table)

# %% mystnb={"figure": {"name": "tab-ablation-placement", "caption": "The same in numbers, and by patient."}}
cells = ["result", "patient", "verdict"]
brief(table.set_index("title")[[*cells, "dose"]], cells)

# %%
everywhere = "after layers, blocks and transitions"
assert (placed["low"] < 0).all() and (placed["high"] > 0).all()
short = placed.loc[placed["verdict"] == "not tested as run", "note"]
assert set(short) == {"after every layer", everywhere}

# %% [markdown]
# **No place and no width is shown to help**: every interval holds 0. Gates after every layer are no test: on average they
# end nearer to 1 than the rule asks, and hardly differ between images. With gates after blocks and transitions too, the distance is enough;
# the spread over images is not. Another rate might move them; that is another plan, with its rule fixed before.
#
# ## Colour and augmentation: do they reduce overfitting? (C6)
#
# `study/colour.toml`, networks without gates, one seed. **Overfitting** is the log-loss (nats) of an image that a network tested minus
# that of the same image by each network that trained on it. How much less of it there is with a treatment is a sum: how far the
# treatment lowers the loss of tested images (`tested`), and how far it raises that of trained ones. The second alone is no gain: fitting
# less narrows the gap as well. So the table has both, and what the treatment adds to the AUROC of test images
# ({numref}`fig-overfitting`, {numref}`tab-ablation-overfitting`).

# %% mystnb={"figure": {"name": "fig-overfitting", "caption": "Real tissue: overfitting without a treatment minus overfitting with it (nats), with 95 % intervals, paired by patient; right of the line the treatment reduces it."}}
less = judging.overfitting()
table = lines(judging, less).assign(title=list(less["note"]))
figure = figures.claims(table)

# %% mystnb={"figure": {"name": "tab-ablation-overfitting", "caption": "How much less overfitting there is with a treatment than without (nats), its two parts, and what it adds to AUROC on test images."}}
names = {"less": "value", "tested": "test_drop", "trained": "train_rise"}
names |= {"AUROC": "gain"}
table = less.set_index("note")[["verdict"]].rename_axis("treatment")
for name, of in names.items():
    prefix = "" if of == "value" else f"{of}_"
    limits = less.reindex(columns=[of, f"{prefix}low", f"{prefix}high"])
    table[name] = [number(*row) for row in limits.to_numpy(float)]
brief(table, ["less", "tested", "AUROC", "verdict"])

# %% [markdown]
# **These patients cannot say whether any of them reduces overfitting**: every interval contains 0, and the smallest effect that would show
# is a quarter to more than half a nat. What they do to ranking is clearer. Macenko's method costs AUROC, about eleven points. Vahadane's
# method, and flips and half turns, add nothing worth having. Reinhard's is not tested as run: it changed fewer tiles than the rule asks,
# because it leaves a picture alone rather than tint its glass; where it acts, ranking is worse.

# %%
found = less.set_index("note")
assert (found["low"] * found["high"] < 0).all()
assert found["smallest"].between(0.25, 0.65).all()
assert -0.12 < found.loc["Macenko", "gain"] < -0.10
assert found.loc["Macenko", "gain_high"] < 0
assert (
    found.loc[["Vahadane", "flips and half turns"], "gain_high"] < 0.02
).all()
assert found.loc["Reinhard", "not_given"] == "colours"
assert found.loc["Reinhard", "gain_high"] < 0

# %% [markdown]
# A treatment that costs AUROC may still be right. Where slides differ in colour and each class has few slides, colour is a
# shortcut, and removing it lowers the score. Tissue from elsewhere (chapter {doc}`11_external`) is the test of that, and five
# slides cannot decide it.


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
# *Medium.* A table has one row per image: `group` (the patient), and `a` and `b`, whether each arm was right. Return the mean over
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
# - Ask for the dose first: an interval does not show whether the treatment was given.
# - An ablation is a paired difference between arms that share everything else; two separate intervals are not.
# - Averaging over seeds leaves less of the network's luck. It does not make patients: their number sets the width.
# - Beat the frozen probe first; only then ask which part of the network did it.
#
# **Further reading:** {cite}`hu2018` for what SE adds on everyday photographs, where test sets have fifty thousand images.

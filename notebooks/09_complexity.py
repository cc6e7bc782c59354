# %% [markdown]
# # Complexity against accuracy
#
# **After this chapter you can**
#
# - name four costs of a network (parameters, bytes, operations, milliseconds) and say which of them changes with the
#   picture size, the gates or the precision;
# - cut a network off early and measure what its later layers add;
# - read a Pareto plot with intervals, and say why a network should not be chosen from it.
#
# **Takes** about 15 minutes to read, 6 to run (phantom tissue, two cores). Exercises, estimated: an easy
# one 5 minutes, a medium one 15, a hard one 30.
# **Needs** chapters {doc}`SE-DenseNet <03_se_densenet>` and {doc}`Evaluation <05_evaluation>`.
#
# The paper asks for a balance between complexity and accuracy (open question Q2). It does not measure one.

# %% tags=["parameters"]
profile = "phantom"
data_root = ""
seed = 0
device = "cpu"
weights = ""

# %%
import os

from histotransfer.book.chapters import begin, project_root
from histotransfer.config import ladder_config

os.chdir(project_root())  # chapters name their records from there
chosen = {"seed": seed, "device": device, "weights": weights}
root = begin(profile=profile, data_root=data_root, **chosen)
config = ladder_config(profile, chosen)

# %% [markdown]
# ## What a network costs
#
# A network has four costs, and they do not change together. {numref}`tab-complexity-costs` shows them for a convolution
# from $C$ to $C'$ channels with a $q \times q$ kernel on an $H \times W$ map:
#
# :::{table} Four costs of a convolution.
# :name: tab-complexity-costs
#
# | cost | of one convolution | grows with the picture? |
# |---|---|---|
# | parameters | $q^2\,C\,C'$ | no |
# | bytes of weights | parameters × bytes per number | no |
# | operations (multiply-adds) | $q^2\,C\,C'\,H\,W$ | in proportion to its area |
# | milliseconds | depend on the machine | roughly in proportion to its area |
#
# :::
#
# Operations are counted in {term}`GMAC`: billions of multiply-adds. {numref}`tab-complexity-depths` has the costs of the
# three published depths, with and without gates. Only the size of DenseNet-169 and DenseNet-201 is known here. Their
# ImageNet weights could not be downloaded for this book, so it says nothing about their accuracy.

# %% mystnb={"figure": {"name": "tab-complexity-depths", "caption": "DenseNets of the published depths at 224 pixels, with and without gates: what they cost."}}
import pandas as pd

from histotransfer.models.se_densenet import CONFIGURATIONS
from histotransfer.models.size import size_of

depths = ("densenet121", "densenet169", "densenet201")
gates = {"": (), " + SE": ("block", "transition")}
rows = {
    name + more: size_of(224, positions=where, **CONFIGURATIONS[name])
    for name in depths
    for more, where in gates.items()
}
pd.DataFrame(rows).T.astype({"parameters": int}).round(2)

# %% [markdown]
# Gates add parameters: two small layers per gate. They add almost no operations, because they work on one mean per
# channel. A smaller picture needs fewer operations, but exactly as many parameters.
#
# {numref}`tab-complexity-nets` has the networks that this chapter measures: DenseNet-121 cut off after each transition
# and after its last block, DenseNet-121 with gates after blocks 3 and 4 and between them, and a small network (three blocks of twelve layers, $k = 12$):

# %% mystnb={"figure": {"name": "tab-complexity-nets", "caption": "Networks that this chapter measures: millions of parameters, and GMAC per image at three picture sizes."}}
from histotransfer.experiments.complexity import NETS, SIZES, cost

rows = {}
for net in NETS:
    costs = {f"{size} px": cost(net, size, "float32") for size in SIZES}
    rows[net] = {"M parameters": costs["224 px"]["parameters"] / 1e6}
    rows[net] |= {size: own["GMAC"] for size, own in costs.items()}
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# ## Leaving early
#
# A DenseNet can be cut off after each transition: average the features there and put a linear classifier on them. Such
# a place is called an exit. Shallow features are general. Deep features were learned for the thousand classes of
# ImageNet, so the last exit need not be the best one for tissue.
#
# Here every exit of the **frozen** trunk gets a probe, on this page's own images. Predictions are {term}`out of fold`,
# split by patient ({numref}`tab-complexity-live-exits`):

# %%
from pathlib import Path

from histotransfer.experiments.complexity import run_probes

out = Path("_build/experiments") / f"{profile}-exits" / "complexity"
_ = run_probes(
    config,
    root,
    out,
    sizes=(112,),
    precisions=("float32",),
    report=lambda line: None,
)

# %% mystnb={"figure": {"name": "tab-complexity-live-exits", "caption": "This page's own data: AUROC of a probe at each exit of the frozen trunk, mean over 40x, 100x and 200x."}}
from histotransfer.evaluation.formatting import number
from histotransfer.report.complexity import complexity_table, read_nets

live = complexity_table(read_nets(out.parent)).set_index("net")
limits = live[["auroc", "low", "high"]].to_numpy()
live["AUROC"] = [number(*row) for row in limits]
live[["AUROC", "images", "patients"]]

# %% [markdown]
# ## On real tissue
#
# The same measurement on the real subset, with the profile `lite`, colours as scanned and three picture sizes. Every
# exit of the frozen trunk is probed out of fold, with one split by patient (seed 0). A small network, `small-k12`, is
# trained from scratch in every fold.
#
# In {numref}`tab-complexity-exits`, `ms` is milliseconds per image, measured with OpenVINO on the machine described in
# `results/complexity/times.json`. {numref}`fig-pareto-operations` draws AUROC against operations, and
# {numref}`fig-pareto-time` draws it against time.
#
# The records were computed with version 0.1. Its probe chose C inside the training patients. The commands below now
# use a fixed C, so they give different numbers:
#
# ```sh
# histotransfer experiment complexity probes --profile lite --data DIR \
#   --set normaliser=none
# histotransfer experiment complexity scratch --profile lite --data DIR \
#   --set normaliser=none
# histotransfer experiment complexity times
# ```

# %% mystnb={"figure": {"name": "tab-complexity-exits", "caption": "Real tissue, out of fold: each exit at three picture sizes, and the small network at 112 pixels. Costs are per image."}}
times = pd.read_csv("results/complexity/times.csv")
nets = complexity_table(read_nets("results"), times)
limits = nets[["auroc", "low", "high"]].to_numpy()
nets["AUROC"] = [number(*row) for row in limits]
whole = nets[nets["precision"] == "float32"]
whole.set_index(["net", "size"])[["GMAC", "ms", "AUROC"]].round(2)

# %% [markdown]
# All of these scores are of the same images and patients:

# %%
((images, patients),) = set(
    zip(nets["images"], nets["patients"], strict=True)
)
f"{images} images of {patients} patients (benign + malignant)"

# %% mystnb={"figure": {"name": "fig-pareto-operations", "caption": "Real tissue: AUROC (mean over 40x, 100x and 200x, out of fold, split by patient, 95 % intervals) against operations. The grey line joins the networks for which no other is both cheaper and better."}, "image": {"alt": "Points with vertical intervals over a logarithmic axis of operations, one marker per network and one colour per picture size; the intervals of most networks overlap."}}
from histotransfer.figures import pareto

figure = pareto(whole, "GMAC")

# %% mystnb={"figure": {"name": "fig-pareto-time", "caption": "The same against milliseconds per image on two cores."}, "image": {"alt": "Points with vertical intervals over a logarithmic axis of milliseconds per image."}}
figure = pareto(whole, "ms")

# %% [markdown]
# The intervals of single networks are wide because there are few patients. The difference between two networks on the
# same images, paired by patient, has a narrower interval. The tables below give that difference in AUROC twice:
# `pooled` over all images, and {term}`within folds`. The columns `is` say `lower` or `higher` where the 95 % interval
# leaves out 0. Otherwise no difference is shown: it is small, or there are too few patients to tell.
#
# These comparisons are exploratory. They were not announced in advance, so there are no p-values.
#
# **Depth.** Each earlier exit minus the whole frozen trunk (`block4`), at 224 pixels ({numref}`tab-complexity-depth-as-scanned`):

# %% mystnb={"figure": {"name": "tab-complexity-depth-as-scanned", "caption": "Real tissue: each earlier exit minus the whole frozen trunk, colours as scanned."}}
from histotransfer.report.complexity import HIGHER, exit_gaps

as_scanned = exit_gaps("results/complexity")
assert HIGHER not in as_scanned["pooled is"].to_list()
as_scanned

# %% [markdown]
# The same after Macenko's normalisation (chapter {doc}`02_normalization`), which is the profile's default
# ({numref}`tab-complexity-depth-normalised`):
#
# ```sh
# histotransfer experiment complexity probes --profile lite --data DIR \
#   --out results/complexity-macenko
# ```

# %% mystnb={"figure": {"name": "tab-complexity-depth-normalised", "caption": "The same after Macenko's normalisation."}}
normalised = exit_gaps("results/complexity-macenko")
assert normalised.loc["transition2 minus block4", "pooled is"] == HIGHER
normalised

# %% [markdown]
# With colours as scanned, no earlier exit is shown to be better than the whole trunk. After Macenko's normalisation the
# second transition is better. So "how deep must the features be?" has no single answer: it depends on how the colours
# were treated.
#
# **Picture size.** The whole trunk on smaller pictures ({numref}`tab-complexity-size`):

# %% mystnb={"figure": {"name": "tab-complexity-size", "caption": "Real tissue: the frozen trunk on smaller pictures minus the same trunk on pictures of 224 pixels."}}
from histotransfer.report.complexity import NEITHER, size_gaps

smaller = size_gaps("results/complexity")
assert set(smaller["pooled is"]) == {NEITHER}
smaller

# %% [markdown]
# No loss is shown. That does not mean that there is none: the intervals say how large it may be.
#
# **Precision.** In float16 the weights are rounded and take half the bytes. In int8 the whole trunk is quantised, with
# training images of each fold, and takes a quarter ({numref}`tab-complexity-precision`):

# %% mystnb={"figure": {"name": "tab-complexity-precision", "caption": "Real tissue: the frozen trunk in float16 and in int8, minus float32."}}
from histotransfer.report.complexity import LOWER, precision_gaps

fewer = precision_gaps("results/complexity")
int8 = fewer.filter(like="int8", axis=0)
assert list(int8["pooled is"]) == [LOWER, LOWER, NEITHER]
assert list(int8["within folds is"]) == [LOWER, NEITHER, NEITHER]
fewer

# %% [markdown]
# {numref}`tab-complexity-precision-costs` has their size and speed. float16 halves the stored bytes only. It takes as
# long as float32:

# %% mystnb={"figure": {"name": "tab-complexity-precision-costs", "caption": "The whole trunk by precision: megabytes of weights, and milliseconds per image at three picture sizes."}}
trunk = nets[nets["net"] == "block4"]
costs = trunk.pivot(index="precision", columns="size", values="ms")
assert (costs.loc["int8"] < costs.loc["float32"]).all()
costs = costs.add_prefix("ms at ").rename_axis(None, axis=1)
costs.insert(0, "MB", trunk.groupby("precision")["MB"].first())
costs.round(1)

# %% [markdown]
# int8 is faster at every size. At 224 pixels it lowers AUROC, pooled and within folds. At 160 pixels it lowers the
# pooled AUROC only. At 112 pixels no difference is shown. The regression on top chose its C anew each time,
# which is part of the difference. For another network, measure it again.
#
# **From scratch.** `small-k12` has about as many parameters as the paper states, and learned from these images alone.
# {numref}`tab-complexity-scratch` compares it with a regression on the whole frozen trunk, whose features never saw
# tissue:

# %% mystnb={"figure": {"name": "tab-complexity-scratch", "caption": "Real tissue: the small network from scratch minus a regression on the frozen trunk."}}
from histotransfer.report.complexity import scratch_gap

from_scratch = scratch_gap("results/complexity")
assert set(from_scratch["pooled is"]) == {NEITHER}
from_scratch

# %% [markdown]
# The interval is wide: there are too few patients to tell. It says how much worse the small network may be. That
# network was trained with one seed, and another seed would give another network.
#
# ## Trained networks
#
# {numref}`tab-complexity-trained` has networks that the study trained on BreakHis, from ImageNet's weights, with pictures of 112 pixels
# as scanned: without gates, and with gates (from block 3 on) after blocks, after blocks and in transitions, and everywhere (by
# its dose no test of gates, {numref}`tab-ablation-placement`). All have seed 0. The frozen trunk on the same splits is beside them.

# %% mystnb={"figure": {"name": "tab-complexity-trained", "caption": "Real tissue: networks that the study trained, and the frozen trunk: AUROC, mean over 40x, 100x and 200x, out of fold."}}
from histotransfer.report.complexity import studied_nets
from histotransfer.report.study import Study

study = Study("study", "results")
trained = complexity_table(studied_nets(study))
limits = trained[["auroc", "low", "high"]].to_numpy()
trained["AUROC"] = [number(*row) for row in limits]
assert set(trained["images"]) == {images}, "the same images as above"
trained.set_index(["net", "training"])[["parameters", "AUROC"]]

# %% [markdown]
# ## How far to trust the plot
#
# Each point is an estimate from the same few patients. Where intervals overlap, the line through the best estimates is
# partly a line through noise. The Pareto front shows which networks *could* be cheap enough. It is not there to choose
# from: a network that is picked here for its score has been tuned on test patients. To choose, probe within the training
# patients, then test once.

# %% [markdown]
# ## Check yourself
#
# <details>
# <summary>Two networks have the same number of parameters. Are they equally fast?</summary>
#
# Not necessarily. A weight of an early layer is applied at many more places than a weight of a late layer.
#
# </details>
#
# <details>
# <summary>You pick the network with the best score on the Pareto plot. Why is that score too good?</summary>
#
# It was chosen on the test patients, and the best of many estimates is partly luck.
#
# </details>
#
# <details>
# <summary>Which of the four costs does half precision change?</summary>
#
# Bytes. Parameters and operations stay the same. Milliseconds depend on the machine.
#
# </details>

# %% [markdown]
# ## Exercises
#
# ```{exercise} Twice the side
# :label: ex-complexity-scaling
#
# *Easy.* A fully convolutional trunk gets pictures of 224 pixels per side instead of 112. By which factors do its
# parameters and its operations grow?
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.complexity import check_scaling

times = {"parameters": ..., "operations": ...}

check_scaling(times)

# %% [markdown] tags=["solution"]
# ````{solution} ex-complexity-scaling
# :label: sol-complexity-scaling
# :class: dropdown
#
# The kernel slides over four times as many places. It is still the same kernel.
#
# ```python
# times = {"parameters": 1, "operations": 4}
# ```
# ````

# %% [markdown]
# ```{exercise} What a convolution costs
# :label: ex-complexity-convolution
#
# *Medium.* Return the multiply-adds of a convolution on a square map of `side` cells per side. Its `kernel` $q$ is odd,
# its padding is $(q - 1)/2$, and its `stride` divides the side.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.complexity import check_multiply_adds


def multiply_adds(inputs, outputs, kernel, side, stride): ...


check_multiply_adds(multiply_adds)

# %% [markdown] tags=["solution"]
# ````{solution} ex-complexity-convolution
# :label: sol-complexity-convolution
# :class: dropdown
#
# Every place of the output costs the same, so a stride of 2 saves three quarters.
#
# ```python
# def multiply_adds(inputs, outputs, kernel, side, stride):
#     places = (side // stride) ** 2
#     return kernel**2 * inputs * outputs * places
# ```
# ````

# %% [markdown]
# ```{exercise} The Pareto front
# :label: ex-complexity-front
#
# *Hard.* One network beats another if it is at least as cheap and at least as good, and strictly better in one of the
# two. Given the cost and the score of each network, return a boolean array: True for those that no other network beats.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.complexity import check_front


def front(cost, score): ...


check_front(front)

# %% [markdown] tags=["solution"]
# ````{solution} ex-complexity-front
# :label: sol-complexity-front
# :class: dropdown
#
# Two networks with equal cost and score do not beat each other, so both stay.
#
# ```python
# import numpy as np
#
#
# def front(cost, score):
#     kept = []
#     for c, s in zip(cost, score, strict=True):
#         as_good = (cost <= c) & (score >= s)
#         kept.append(not np.any(as_good & ((cost < c) | (score > s))))
#     return np.array(kept)
# ```
# ````

# %% [markdown]
# ## Take home
#
# - Picture size changes operations. Depth changes parameters and operations. Gates change parameters only. Precision
#   changes bytes.
# - A picture of half the side needs a quarter of the operations. No loss of AUROC is shown here, with few patients.
# - Which exit is best depends on the colours. Measure every exit before you pay for the last one.
# - Eight bits are not free: int8 lowered AUROC at 224 pixels.
# - Report a size with its accuracy, and an accuracy with its interval.
#
# **Further reading:** {cite}`huang2017`; chapter {doc}`03_se_densenet` on what the paper's own size can mean.

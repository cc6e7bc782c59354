# %% [markdown]
# # Complexity against accuracy
#
# **After this chapter you can**
#
# - say what a network costs: parameters, bytes, operations, milliseconds, and which of them a change of picture size, gates or
#   precision moves;
# - cut a network off early and measure what its later layers add;
# - read a Pareto plot with intervals, and resist choosing from it.
#
# **Takes** about 13 minutes to read, 6 to run (phantom tissue, two cores), 50 for the exercises.
# **Needs** chapters {doc}`SE-DenseNet <03_se_densenet>` and {doc}`Evaluation <05_evaluation>`.
#
# The paper asks for a balance of complexity and accuracy (open question Q2) and does not measure one.

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
# Four costs that do not move together. For a convolution from $C$ to $C'$ channels with a $q \times q$ kernel on an
# $H \times W$ map ({numref}`tab-complexity-costs`):
#
# :::{table} Four costs of a convolution.
# :name: tab-complexity-costs
#
# | cost | a convolution's share | grows with the picture? |
# |---|---|---|
# | parameters | $q^2\,C\,C'$ | no |
# | bytes of weights | parameters × bytes of a number | no |
# | operations (multiply-adds) | $q^2\,C\,C'\,H\,W$ | with its area |
# | milliseconds | depends on the machine | about with its area |
#
# :::
#
# The three published depths, with and without gates. DenseNet-169 and -201 are **sized, not judged**: no ImageNet weights
# for them can be had where this book was made, so nothing is said of their accuracy ({numref}`tab-complexity-depths`).

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
# Gates cost parameters (two small layers for every gated stack of channels) and next to no operations, since they work on
# means. A smaller picture costs fewer operations and not one parameter less. Below, DenseNet-121 left after a transition or after
# its last block, the same with gates, and a small net (three blocks of twelve layers, $k = 12$):

# %% mystnb={"figure": {"name": "tab-complexity-nets", "caption": "Nets that are judged below: millions of parameters, and billions of multiply-adds at three picture sizes."}}
from histotransfer.experiments.complexity import NETS, SIZES, cost

rows = {}
for net in NETS:
    costs = {f"{size} px": cost(net, size, "float32") for size in SIZES}
    rows[net] = {"M parameters": costs["224 px"]["parameters"] / 1e6}
    rows[net] |= {size: own["GFLOPs"] for size, own in costs.items()}
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# The columns of sizes in {numref}`tab-complexity-nets` are billions of multiply-adds an image, as `GFLOPs` above and below.

# %% [markdown]
# ## Leaving early
#
# A DenseNet can be left after each transition: pool what is there, put a linear classifier on it. Shallow features are
# general, deep ones are made for the thousand classes of ImageNet, so it is not said that the last exit is the best for
# tissue. Here every exit of the **frozen** trunk is probed out of fold, split by patient, on this chapter's own images
# ({numref}`tab-complexity-live-exits`):

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
# The same on the real subset, profile `lite`, colours as they are, at three picture sizes: every exit of the frozen trunk, one split by
# patient (seed 0), out of fold; and a small net, `small-k12`, trained from scratch in every fold. `ms` are milliseconds an image,
# measured with OpenVINO on the machine that `results/complexity/times.json` describes ({numref}`tab-complexity-exits`); against
# AUROC, operations are drawn in {numref}`fig-pareto-operations`, milliseconds in {numref}`fig-pareto-time`.
#
# ```sh
# histotransfer experiment complexity probes --profile lite --data DIR \
#   --set normaliser=none
# histotransfer experiment complexity scratch --profile lite --data DIR \
#   --set normaliser=none
# histotransfer experiment complexity times
# ```

# %% mystnb={"figure": {"name": "tab-complexity-exits", "caption": "Real tissue, out of fold: each exit at three picture sizes, the small net at 112 pixels, with operations and milliseconds an image."}}
times = pd.read_csv("results/complexity/times.csv")
nets = complexity_table(read_nets("results"), times)
limits = nets[["auroc", "low", "high"]].to_numpy()
nets["AUROC"] = [number(*row) for row in limits]
whole = nets[nets["precision"] == "float32"]
shown = ["GFLOPs", "ms", "AUROC", "images", "patients"]
whole.set_index(["net", "size"])[shown].round(2)

# %% mystnb={"figure": {"name": "fig-pareto-operations", "caption": "AUROC (mean over 40x, 100x and 200x, out of fold, split by patient, 95 % intervals) against operations. The grey line joins nets that no other beats at both."}, "image": {"alt": "Points with vertical intervals over a logarithmic axis of operations, one marker a net and one colour a picture size; the intervals of most nets overlap."}}
from histotransfer.figures import pareto

figure = pareto(whole, "GFLOPs")

# %% mystnb={"figure": {"name": "fig-pareto-time", "caption": "The same against milliseconds an image on two cores."}, "image": {"alt": "Points with vertical intervals over a logarithmic axis of milliseconds an image."}}
figure = pareto(whole, "ms")

# %% [markdown]
# Intervals of single nets overlap because the patients are the same few. Differences on the same images, paired by patient, are
# narrower; `AUROC` says which way where the 95 % interval leaves out 0, and `there` the same of AUROC within folds (chapter
# {doc}`05_evaluation`). Exploratory: nobody announced these comparisons, so no p-values.
#
# **Depth.** Each earlier exit minus the whole frozen trunk (`block4`), at 224 pixels ({numref}`tab-complexity-depth-as-scanned`):

# %% mystnb={"figure": {"name": "tab-complexity-depth-as-scanned", "caption": "Real tissue: each earlier exit minus the whole frozen trunk, colours as scanned."}}
from histotransfer.report.complexity import HIGHER, exit_gaps

as_scanned = exit_gaps("results/complexity")
assert HIGHER not in as_scanned["AUROC"].to_list()
as_scanned

# %% [markdown]
# The same once each tile's colour has been normalised by Macenko's method (chapter {doc}`02_normalization`), which is what the profile
# does if nothing else is set ({numref}`tab-complexity-depth-normalised`):
#
# ```sh
# histotransfer experiment complexity probes --profile lite --data DIR \
#   --out results/complexity-macenko
# ```

# %% mystnb={"figure": {"name": "tab-complexity-depth-normalised", "caption": "The same after Macenko's normalisation."}}
normalised = exit_gaps("results/complexity-macenko")
assert normalised.loc["transition2 minus block4", "AUROC"] == HIGHER
normalised

# %% [markdown]
# With colours as they are, no earlier exit is shown to be better than the whole trunk; under Macenko the second transition is. So "how
# deep must features be" has no answer by itself; it depends on what was done to the picture before.
#
# **Picture size.** The whole trunk on smaller pictures ({numref}`tab-complexity-size`):

# %% mystnb={"figure": {"name": "tab-complexity-size", "caption": "Real tissue: the frozen trunk on smaller pictures minus the same on 224 pixels."}}
from histotransfer.report.complexity import NEITHER, size_gaps

smaller = size_gaps("results/complexity")
assert set(smaller["AUROC"]) == {NEITHER}
smaller

# %% [markdown]
# No loss could be told from none, which is not the same as no loss: the intervals say how much it may be.
#
# **Precision.** float16 (the weights rounded) has half the bytes, int8 (the whole trunk, quantised in each fold on training images of
# that fold) a quarter ({numref}`tab-complexity-precision`):

# %% mystnb={"figure": {"name": "tab-complexity-precision", "caption": "Real tissue: the frozen trunk in float16 and in int8, minus float32."}}
from histotransfer.report.complexity import LOWER, precision_gaps

fewer = precision_gaps("results/complexity")
int8 = fewer.filter(like="int8", axis=0)
assert list(int8["AUROC"]) == [LOWER, LOWER, NEITHER]
assert list(int8["there"]) == [LOWER, NEITHER, NEITHER]
fewer

# %% [markdown]
# And their megabytes, and milliseconds an image; float16 is only stored in half and takes as long as float32
# ({numref}`tab-complexity-precision-costs`):

# %% mystnb={"figure": {"name": "tab-complexity-precision-costs", "caption": "Megabytes and milliseconds an image of the whole trunk, by picture size and precision."}}
costs = nets[nets["net"] == "block4"].pivot(
    index="size", columns="precision", values=["MB", "ms"]
)
assert (costs["ms", "int8"] < costs["ms", "float32"]).all()
costs.round(1)

# %% [markdown]
# int8 is faster at every size. At 224 pixels it costs AUROC both ways, at 160 only when folds are pooled; at 112 no cost could be told from
# none. The regression on top chose its C anew each time, which is part of the difference; measure it again for another network.
#
# **From scratch.** `small-k12` has about as many parameters as the paper states, and learned from these images alone. Minus a regression on
# the whole frozen trunk, whose features never saw tissue ({numref}`tab-complexity-scratch`):

# %% mystnb={"figure": {"name": "tab-complexity-scratch", "caption": "Real tissue: the small net from scratch minus a regression on the frozen trunk."}}
from histotransfer.report.complexity import scratch_gap

from_scratch = scratch_gap("results/complexity")
assert set(from_scratch["AUROC"]) == {NEITHER}
from_scratch

# %% [markdown]
# The two could not be told apart either; the interval says how much worse the small net may be. It has one seed, and another seed of
# a network from scratch is another network.
#
# ## Trained nets
#
# Nets that the study trained, without gates, with gates after blocks, at blocks and transitions, and everywhere: at 224 pixels, after
# Macenko's normalisation, lung tissue in between, seed 0, beside the frozen trunk on the same splits. Hold these against one another and
# not against the probes above, whose colours are as scanned. Their paired differences stand in chapter {doc}`07_ablations`
# ({numref}`tab-complexity-trained`).

# %% mystnb={"figure": {"name": "tab-complexity-trained", "caption": "Real tissue: nets that the study trained, beside the frozen trunk: AUROC, mean over 40x, 100x and 200x, out of fold."}}
from histotransfer.report.complexity import studied_nets
from histotransfer.report.study import Study

trained = complexity_table(studied_nets(Study("study", "results")))
limits = trained[["auroc", "low", "high"]].to_numpy()
trained["AUROC"] = [number(*row) for row in limits]
shown = ["parameters", "AUROC", "images", "patients"]
trained.set_index(["net", "training"])[shown]

# %% [markdown]
# ## How far to trust the plot
#
# Each point is an estimate with its interval, from the same few patients; where intervals overlap, a line through the best
# estimates is a line through noise as well. The Pareto front is drawn to show what *could* be cheap enough, not to choose:
# a net picked here for its score would have been tuned on test patients. To choose, probe inside training patients, then
# test once.

# %% [markdown]
# ## Check yourself
#
# <details>
# <summary>Two nets have the same number of parameters. Are they equally fast?</summary>
#
# No. A parameter of an early layer works at many more places than one of a late layer.
#
# </details>
#
# <details>
# <summary>Why is a net picked from the Pareto plot for its score no longer fairly judged by it?</summary>
#
# Its score was looked at on the test patients; the best of many estimates is partly luck.
#
# </details>
#
# <details>
# <summary>Which of the four costs does half precision move?</summary>
#
# Bytes. Parameters and operations stay; milliseconds depend on the machine.
#
# </details>

# %% [markdown]
# ## Exercises
#
# ```{exercise} Half the side
# :label: ex-complexity-scaling
#
# *Easy.* A fully convolutional trunk sees pictures of 224 pixels instead of 112. How many times as many parameters and operations is that?
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
# A kernel slides over four times as many places and stays the same kernel.
#
# ```python
# times = {"parameters": 1, "operations": 4}
# ```
# ````

# %% [markdown]
# ```{exercise} What a convolution costs
# :label: ex-complexity-convolution
#
# *Medium.* Return the multiply-adds of a $q \times q$ convolution on a square map of `side`, with an odd `kernel`, padding
# $(q - 1)/2$ and a `stride` that divides the side.
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
# Operations are counted where the output is: a stride of 2 saves three quarters.
#
# ```python
# def multiply_adds(inputs, outputs, kernel, side, stride):
#     places = (side // stride) ** 2
#     return kernel**2 * inputs * outputs * places
# ```
# ````

# %% [markdown]
# ```{exercise} Beaten by none
# :label: ex-complexity-front
#
# *Hard.* Given the cost and the score of each net, return a boolean array: True where no other net is as cheap and as good, and better
# in one of the two.
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
# Two nets with equal cost and score do not beat each other: both stay.
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
# - Picture size moves operations, depth moves parameters, gates move parameters only, precision moves bytes.
# - A picture of half the side costs a quarter of the operations; what it costs in AUROC could not be told from nothing here.
# - Which exit is best depends on the colours it sees: measure every exit before paying for the last one.
# - Eight bits are not free: int8 cost AUROC at 224 pixels.
# - Size without accuracy is a number; accuracy without an interval is another.
#
# **Further reading:** {cite}`huang2017`; chapter {doc}`03_se_densenet` on what the paper's own size can mean.

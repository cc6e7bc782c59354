# %% [markdown]
# # SE-DenseNet, equation by equation
#
# **After this chapter you can**
#
# - write down what a dense layer, a transition and an SE gate compute, and their shapes;
# - add attention to a network with published weights without changing what it computes;
# - count its parameters, and say what the paper's 1,068,993 and 84.7 MB can and cannot mean.
#
# **Takes** about 18 minutes to read, 1 to run (phantom tissue, two cores), 50 for the exercises.
# **Needs** convolutions, PyTorch at the level of its tutorials; no chapter before this one.

# %% tags=["parameters"]
profile = "phantom"
data_root = ""
seed = 0
device = "cpu"
weights = ""

# %%
import os

from histotransfer.book.chapters import begin, project_root

os.chdir(project_root())  # chapters name their records from there
chosen = {"seed": seed, "device": device, "weights": weights}
root = begin(profile=profile, data_root=data_root, **chosen)

# %% [markdown]
# ## The idea in words
#
# A **convolution** slides a small window over a picture and computes one number at each place, which makes a map; each pattern
# that is looked for gives a map, a **channel**. A deep network is convolutions one after the other, with simple functions between
# them (BN brings each channel to a common range, ReLU sets what is below 0 to 0).
#
# In most networks a layer sees the output of the one before. In a **DenseNet** it sees the outputs of *all* layers before, side
# by side, and adds a few channels of its own: early patterns stay in reach, and each layer can be thin. Layers that share a
# resolution form a **dense block**; between blocks a **transition** shrinks the stack and halves the resolution.
#
# **Squeeze-and-excitation** is attention to channels: from the means of all channels it computes a number for each, its **gate**,
# and multiplies the channel by it. A gate of 1 leaves its channel as it is, one near 0 mutes it. In the drawing $x_0$ enters a
# block, $H_1$ to $H_3$ are its layers; then come the formulas ({numref}`fig-dense-block`).

# %% mystnb={"figure": {"name": "fig-dense-block", "caption": "A dense block of three layers, and the SE gate on its output. Each stack is the concatenation that the next layer sees; numbers below are channels."}, "image": {"alt": "Four stacks of feature maps that grow from 64 to 160 channels by the boxes H1, H2, H3; from the last stack an arrow to a squeeze of 160 means, two small layers, and 160 gates that multiply the stack."}}
from histotransfer.figures import dense_block_with_gate

figure = dense_block_with_gate()

# %% [markdown]
# ## The dense layer
#
# In a DenseNet {cite}`huang2017` every layer sees the features of all layers before it (their equation 2;
# symbols in {numref}`tab-network-layer`):
#
# $$ x_\ell = H_\ell([x_0, x_1, \dots, x_{\ell-1}]) $$
#
# :::{table} Symbols of a dense layer.
# :name: tab-network-layer
#
# | symbol | meaning | in the code |
# |---|---|---|
# | $x_0, \dots, x_{\ell-1}$ | the block's input and the new features of each layer before | `features` |
# | $[\cdot]$ | concatenation along channels | `torch.cat(features, 1)` |
# | $H_\ell$ | BN, ReLU, 1×1 convolution to $4k$ channels, BN, ReLU, 3×3 convolution to $k$ | `norm1` to `conv2` |
# | $k$ | growth rate: new features a layer | `growth_rate` |
#
# :::
#
# The lines that are it:

# %%
from inspect import getsource

from histotransfer.models.se_densenet import DenseLayer, SEDenseNet

print(getsource(DenseLayer.forward))

# %% [markdown]
# A layer hands on only its own $k$ features, whatever it saw:

# %%
import torch

torch.manual_seed(seed)
layer = DenseLayer(channels=64, growth_rate=32, bottleneck=4, se=None)
features = [torch.randn(1, 64, 28, 28)]
layer(features).shape

# %% [markdown]
# ## The block and the transition
#
# $\ell$ layers of growth rate $k$ turn $k_0$ channels into $k_0 + \ell k$. A **transition** between two blocks keeps
# $\lfloor\theta m\rfloor$ of $m$ channels by a 1×1 convolution ($\theta = \tfrac12$ here, "compression") and halves the
# resolution by a 2×2 average pool (symbols in {numref}`tab-network-transition`):
#
# $$ m' = \lfloor\theta\,(k_0 + \ell k)\rfloor $$
#
# :::{table} Symbols of a transition.
# :name: tab-network-transition
#
# | symbol | meaning | in the code |
# |---|---|---|
# | $k_0$ | channels that enter the block | `channels` |
# | $\ell$ | layers of the block | `block_config` |
# | $\theta$ | compression | `compression` |
#
# :::

# %% [markdown]
# ## The SE gate
#
# Squeeze-and-excitation {cite}`hu2018` scales each channel by a number computed from all channels' means (their
# equations 2, 3 and 4; symbols in {numref}`tab-network-gate`):
#
# $$
# \begin{aligned}
# z_c &= \frac{1}{HW}\sum_{i,j} u_c(i,j) \\
# s &= \sigma\!\left(W_2\,\delta(W_1 z)\right) \\
# \tilde{x}_c &= s_c\,u_c
# \end{aligned}
# $$
#
# :::{table} Symbols of the SE gate.
# :name: tab-network-gate
#
# | symbol | meaning | in the code |
# |---|---|---|
# | $u$ | activations, $C \times H \times W$ | `x` |
# | $z$ | squeeze: mean of each channel | `squeezed` |
# | $W_1, W_2$ | two small layers, $C \to \max(4, C/r) \to C$ | `reduce`, `expand` |
# | $\delta, \sigma$ | ReLU, sigmoid | `torch.relu`, `torch.sigmoid` |
# | $s$ | the gates, one a channel | `gates` |
#
# :::

# %%
from histotransfer.models.se import SqueezeExcite

print(getsource(SqueezeExcite.gates))
print(getsource(SqueezeExcite.forward))

# %%
gate = SqueezeExcite(channels=256, reduction=16)
activations = torch.randn(2, 256, 14, 14)
gate.gates(activations).shape, gate(activations).shape

# %% [markdown]
# **Our deviation.** With $2\sigma(\cdot)$ and $W_2 = 0$ at the start every gate is *exactly* 1, so a network with ImageNet
# weights computes what it computed before, and "with SE against without" is a clean comparison. (A plain sigmoid that is
# biased until it rounds to 1 would not learn: its slope there is 0.)

# %%
gate.gates(activations).unique().tolist()

# %% [markdown]
# ## The whole network
#
# The paper does not state depth, growth rate or reduction; by a summary of it, gates sit inside the dense blocks and in the transitions,
# which leaves open where exactly. We use DenseNet-121, because it has
# published weights, with gates after each block and in each transition. Shapes for one 224-pixel image:

# %% mystnb={"figure": {"name": "tab-network-shapes", "caption": "SE-DenseNet-121, module by module: shape of what comes out for one picture of 224 pixels, and parameters."}}
import pandas as pd

from histotransfer.models.se_densenet import parameter_count

model = SEDenseNet().eval()
x, rows = torch.zeros(1, 3, 224, 224), []
for name, module in model.features.named_children():
    x = module(x)
    rows.append((name, tuple(x.shape[1:]), parameter_count(module)))
columns = ["module", "output (C, H, W)", "parameters"]
pd.DataFrame(rows, columns=columns).set_index("module")

# %% [markdown]
# ## Identity at the start, shown
#
# Torchvision's DenseNet-121 and ours, gates on and untrained, with the same ImageNet weights:

# %%
from torchvision.models import densenet121

from histotransfer.models.weights import imagenet_trunk, load_trunk

trunk = imagenet_trunk(weights)
load_trunk(model, trunk)
published = densenet121(weights=None, num_classes=2).eval()
published.load_state_dict(trunk.state, strict=False)
published.classifier = model.classifier
images = torch.randn(4, 3, 112, 112)
with torch.no_grad():
    same = torch.equal(model(images), published(images))
f"source of weights: {trunk.source}; equal to the last bit: {same}"

# %% [markdown]
# ## Gates learn from the first step
#
# A gate has four tensors to learn: weights and bias of each of its two layers. $W_2 = 0$ hides the first layer from the very first
# gradient, so half of the tensors have one; after one step of the optimiser all have. A few steps on phantom {term}`tiles <tile>`, the
# whole network unfrozen:

# %%
from histotransfer.datasets import breakhis
from histotransfer.stain import normaliser
from histotransfer.tiles import TileSource, load_tiles

table = breakhis.load(root).groupby("label").head(12)
tiles, _ = load_tiles(table["path"].tolist(), 64, normaliser("none"))
source = TileSource(tiles)
targets = torch.tensor((table["label"] == "malignant").to_numpy()).long()

# %%
from torch.nn.functional import cross_entropy

batch = source.batch(range(len(source)), [0] * len(source))
adam = torch.optim.Adam(model.train().parameters(), lr=1e-3)
moving = []
for _ in range(6):
    adam.zero_grad()
    cross_entropy(model(batch), targets).backward()
    own = [p for n, p in model.named_parameters() if ".se." in n]
    moving.append(sum(bool(p.grad.any()) for p in own))
    adam.step()
f"of {len(own)} gate tensors with a gradient, step by step: {moving}"

# %% [markdown]
# How far the gates are from 1 after these steps, over all channels and images: `moved` is the mean of $|s - 1|$, `by_image` how much
# a gate varies from image to image (standard deviation, mean over channels). At 0 it would be a constant, whatever the image shows.

# %% mystnb={"figure": {"name": "tab-network-gates-moved", "caption": "Gates after six steps on phantom tiles: lowest and highest, mean distance from 1, and spread over images."}}
from histotransfer.experiments.gates import gate_statistics

gate_statistics(model.eval(), source).round(4)

# %% [markdown]
# ## How far gates move in the ladder
#
# The same as {numref}`tab-network-gates-moved` for one {term}`ladder` on real tissue (`results/spine/ladder`, eight {term}`epochs <epoch>` where the study's primary arms have eleven; both
# leave blocks 1 and 2 frozen), read on its validation images (`results/gates`):

# %% mystnb={"figure": {"name": "tab-network-gates-real", "caption": "Gates of a ladder on real tissue, on its validation images: as in the table before."}}
pd.read_csv("results/gates/gates.csv", index_col="gate")

# %% [markdown]
# **They hardly move.** Blocks that stay frozen keep their gates at exactly 1. In those that are unfrozen, Adam moves a weight by about
# its learning rate a step, and a few epochs at the small rates of pre-trained blocks leave every gate within a fraction of a
# percent of 1. So this run computes almost what a plain DenseNet with the same weights would: whatever it scores says
# nothing about attention, for or against. A comparison "SE on against off" (claim C2) must show {numref}`tab-network-gates-real` beside its result.
#
# ## The paper's size (claim C7)
#
# The paper states 1,068,993 parameters and 84.7 MB. Read as float32 parameters, four bytes each, they describe two
# different networks ({numref}`tab-network-two-sizes`):

# %% mystnb={"figure": {"name": "tab-network-two-sizes", "caption": "What each of the paper's two numbers says, read as float32 parameters."}}
from histotransfer.paper import STATED_MB, STATED_PARAMETERS

pd.DataFrame({
    "parameters": [STATED_PARAMETERS, round(STATED_MB * 1e6 / 4)],
    "MB on disk": [STATED_PARAMETERS * 4 / 1e6, STATED_MB],
}, index=["its count", "its megabytes"]).round(1)  # fmt: skip

# %% [markdown]
# What nets one might think of come to, at 224 pixels and for two classes; the counts of the plain ones are those that
# their authors published:

# %% mystnb={"figure": {"name": "tab-network-candidates", "caption": "Parameters, megabytes, operations and activations of nets one might think of; the paper states 1,068,993 and 84.7 MB."}}
from histotransfer.models.size import candidates

candidates().round(1)

# %% [markdown]
# Three readings suggest themselves; the nets of the first two are in {numref}`tab-network-candidates`, the third is not:
#
# - **84.7 MB are the weights** of a large net: DenseNet-201 with gates comes near, and nearer still with the 1000 classes
#   that its published head has. Its count is far above the paper's.
# - **1,068,993 is the count** of a small net: DenseNet-40 of the CIFAR experiments with gates comes near. Its file is far
#   below the paper's.
# - **1,068,993 is what was trained**, a {term}`head` over a frozen trunk. The head that fastai puts on a DenseNet-121 by default comes
#   near, and is not the same. Its parameters:

# %%
from histotransfer.models.size import default_head

parameter_count(default_head(features=1024, num_classes=2))

# %% [markdown]
# ## Why an exact match would prove nothing
#
# Near is not equal, so one may search for a net that has exactly as many. Here are all SE-DenseNets with round values of what
# the paper does not state (three or four blocks of a few depths, growth rate, stem, bottleneck, compression, positions
# and reduction of gates, classes), counted by formula ({numref}`tab-network-grid`, {numref}`tab-network-matches`,
# {numref}`tab-network-exact`):

# %% mystnb={"figure": {"name": "tab-network-grid", "caption": "The grid that is searched: values of what the paper does not state."}}
from histotransfer.models.size import GRID, grid_size, nets_near

pd.Series({
    name: ", ".join(map(str, values))
    for name, values in GRID.items()
    if name != "positions"
}).to_frame("values")  # fmt: skip

# %% mystnb={"figure": {"name": "tab-network-matches", "caption": "What the search finds: nets with the paper's count of parameters, and with counts near it."}}
near = nets_near(STATED_PARAMETERS, window=500)
exact = near[near["parameters"] == STATED_PARAMETERS]
per_count = near["parameters"].value_counts()
pd.Series({
    "settings in the grid": f"{grid_size():,}",
    "nets with exactly the paper's count": f"{len(exact)}",
    "nets a count, mean of 1001 around it": f"{per_count.mean():.1f}",
    "of these 1001 counts, met by some net": f"{len(per_count)}",
}).to_frame("value")  # fmt: skip

# %% mystnb={"figure": {"name": "tab-network-exact", "caption": "Some of the nets with exactly the paper's count."}}
exact.drop(columns="parameters").set_index("block_config").head(6)

# %% [markdown]
# The paper's number is met by many nets that have nothing to do with each other, and so is **every** number near it. A wider
# grid would find more. A match is what one must expect of any number, so it is no evidence for any of these nets.
#
# The megabytes are no better. Summary tools print an "estimated total size" that adds the activations, which grow with the
# picture. So each of these nets has some picture size (pixels a side) at which such a tool would print 84.7 MB
# ({numref}`tab-network-sides`):

# %% mystnb={"figure": {"name": "tab-network-sides", "caption": "Picture size at which a summary tool would print 84.7 MB, over the nets with exactly the paper's count."}}
from histotransfer.models.size import pixels_for_total

nets = exact.drop(columns="parameters").to_dict("records")
sides = [pixels_for_total(STATED_MB, **net) for net in nets]
spread = pd.Series(sides).describe()[["min", "25%", "50%", "75%", "max"]]
spread.round().astype(int).to_frame("pixels a side")

# %% [markdown]
# **Verdict on C7: not a description of one float32 network.** By arithmetic the two numbers exclude each other as count and
# size of the same weights. They fit together if one of them means something else (trained parameters only, or memory with
# activations), which the paper does not state; and no search can settle which.

# %% [markdown]
# ## Check yourself
#
# <details>
# <summary>How does the SE module recalibrate feature maps, and what is that said to give a classifier?</summary>
#
# It takes the mean of each channel over the picture, sends the means through two small layers, and multiplies each
# channel by the number between 0 and 2 (here) that comes out. So a channel can be amplified or muted by what the whole
# picture shows. Whether that helps is claim C2, and to be measured.
#
# </details>
#
# <details>
# <summary>Why must the gate start at exactly 1 for a clean comparison?</summary>
#
# Then both arms start from the same function, and what differs in the end was learned by the gates.
#
# </details>
#
# <details>
# <summary>A network has exactly 1,068,993 parameters. Is it the paper's?</summary>
#
# Nothing follows: the chapter shows many unrelated nets with that count, and with every count near it.
#
# </details>

# %% [markdown]
# ## Exercises
#
# ```{exercise} Channels
# :label: ex-densenet-channels
#
# *Easy.* 64 channels enter a dense block of 6 layers with growth rate 32; a transition with compression ½ follows. How many channels
# leave the transition?
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.se_densenet import check_channels

channels = ...

check_channels(channels)

# %% [markdown] tags=["solution"]
# ````{solution} ex-densenet-channels
# :label: sol-densenet-channels
# :class: dropdown
#
# It is the row `transition1` of {numref}`tab-network-shapes`.
#
# ```python
# channels = (64 + 6 * 32) // 2
# ```
# ````

# %% [markdown]
# ```{exercise} What a gate costs
# :label: ex-densenet-gate
#
# *Medium.* Return the number of parameters of one SE gate for $C$ channels and reduction $r$, as this book builds it: two layers with
# biases, hidden width $\max(4, \lfloor C/r \rfloor)$.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.se_densenet import check_gate_parameters


def gate_parameters(channels, reduction): ...


check_gate_parameters(gate_parameters)

# %% [markdown] tags=["solution"]
# ````{solution} ex-densenet-gate
# :label: sol-densenet-gate
# :class: dropdown
#
# Two matrices of $C \times h$ numbers, $h$ biases and $C$ biases.
#
# ```python
# def gate_parameters(channels, reduction):
#     hidden = max(4, channels // reduction)
#     return 2 * channels * hidden + hidden + channels
# ```
# ````

# %% [markdown]
# ```{exercise} Fold BatchNorm into a convolution
# :label: ex-densenet-fold
#
# *Hard.* In eval mode BatchNorm is a fixed scale and shift of each channel,
#
# $$ y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta. $$
#
# Return one new convolution that computes a given convolution and the
# BatchNorm behind it. Inside a dense layer `norm2` can be folded into `conv1` like this; `norm1` cannot, for a ReLU stands
# between it and any convolution.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.se_densenet import check_fold


def fold(conv, norm): ...


check_fold(fold)

# %% [markdown] tags=["solution"]
# ````{solution} ex-densenet-fold
# :label: sol-densenet-fold
# :class: dropdown
#
# The scale goes into the kernels of its output channel, everything else into the bias.
#
# ```python
# import copy
#
# import torch
#
#
# def fold(conv, norm):
#     scale = norm.weight / (norm.running_var + norm.eps).sqrt()
#     old = 0 if conv.bias is None else conv.bias
#     bias = (old - norm.running_mean) * scale + norm.bias
#     folded = copy.deepcopy(conv)
#     folded.weight = torch.nn.Parameter(conv.weight * scale[:, None, None, None])
#     folded.bias = torch.nn.Parameter(bias)
#     return folded
# ```
# ````

# %% [markdown]
# ## Take home
#
# - Dense layers add $k$ channels each; transitions halve them.
# - A gate that starts at exactly 1 lets attention be added to published weights and compared cleanly.
# - A gate that has not moved is no attention: look before comparing.
# - A parameter count that matches proves nothing where every count matches.
#
# **Further reading:** {cite}`huang2017`, {cite}`hu2018`; chapter {doc}`04_transfer` trains this network.

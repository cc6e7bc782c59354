# %% [markdown]
# # SE-DenseNet, equation by equation
#
# **After this chapter you can**
#
# - write down what a dense layer, a transition and an SE gate compute, and their shapes;
# - add gates to a network with published weights without changing what it computes;
# - count its parameters, and say what the paper's 1,068,993 and 84.7 MB can and cannot mean.
#
# **Takes** about 21 minutes to read, 1 to run (phantom tissue, two cores). Exercises, estimated: an easy
# one 5 minutes, a medium one 15, a hard one 30.
# **Needs** convolutions, PyTorch at the level of its tutorials; no chapter before this one.

# %% tags=["parameters"]
profile = "phantom"
data_root = ""
seed = 0
device = "cpu"
weights = ""

# %%
import os

from histotransfer.book.chapters import begin, brief, project_root

os.chdir(project_root())  # chapters name their records from there
chosen = {"seed": seed, "device": device, "weights": weights}
root = begin(profile=profile, data_root=data_root, **chosen)

# %% [markdown]
# ## The idea in words
#
# A **convolution** slides a small window over a picture and computes one number at each place. The result is a map. A layer
# looks for many patterns, and each pattern gives a map of its own, called a **channel**. A deep network is a sequence of
# convolutions with simple functions between them: BN brings each channel to a common range, and ReLU sets negative numbers
# to 0.
#
# In most networks a layer gets the output of the layer before. In a **DenseNet** it gets the outputs of *all* earlier layers,
# side by side, and adds a few channels of its own. So early patterns stay available, and each layer can be thin. Layers
# with the same resolution form a **dense block**. Between two blocks a **transition** reduces the number of channels and
# halves the resolution.
#
# **Squeeze-and-excitation** (SE) is attention to channels. From the means of all channels it computes one number per channel,
# the **gate**, and multiplies the channel by it. A gate of 1 leaves its channel unchanged, and a gate near 0 mutes it. In
# {numref}`fig-dense-block`, $x_0$ enters a block, and $H_1$ to $H_3$ are its layers:

# %% mystnb={"figure": {"name": "fig-dense-block", "caption": "A dense block of three layers, and the SE gate on its output. Each row is the input of the next layer. The numbers on the left count channels."}, "image": {"alt": "Four rows of feature maps that grow from 64 to 160 channels by the boxes H1, H2, H3; from the last row an arrow to a squeeze of 160 means, two small layers, and 160 gates that multiply the row."}}
from histotransfer.figures import dense_block_with_gate

figure = dense_block_with_gate()

# %% [markdown]
# {numref}`fig-whole-network` shows the network of this book, SE-DenseNet-121. Each grey block is a dense block, and the gates
# are orange. The rest of the chapter builds it from formulas.

# %% mystnb={"figure": {"name": "fig-whole-network", "caption": "SE-DenseNet-121, from the picture at the top to the logits. Widths are numbers of channels. A line in a block is the border between two layers. `side` is the height and width of the maps, in pixels, for a picture of 224 pixels."}}
import torch

from histotransfer.figures import whole_network
from histotransfer.models.se_densenet import DenseLayer, SEDenseNet

torch.manual_seed(seed)
model = SEDenseNet().eval()
figure = whole_network(model)

# %% [markdown]
# ## The dense layer
#
# In a DenseNet {cite}`huang2017` every layer gets the features of all layers before it (their equation 2;
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
# | $k$ | growth rate: new features per layer | `growth_rate` |
#
# :::
#
# In code, $H_\ell$ is two lines. The weights are in the layer's convolutions and BN:

# %%
import torch
from torch.nn.functional import avg_pool2d, relu


def dense_layer(features, layer):
    """H of all features: BN, ReLU, 1x1 convolution; BN, ReLU, 3x3."""
    x = torch.cat(features, 1)
    x = layer.conv1(relu(layer.norm1(x)))
    return layer.conv2(relu(layer.norm2(x)))


# %% [markdown]
# A layer returns only its own $k$ features. The module computes the same, to the last bit:

# %%
torch.manual_seed(seed)
layer = DenseLayer(64, growth_rate=32, bottleneck=4, se=None).eval()
features = [torch.randn(1, 64, 28, 28)]
assert torch.equal(dense_layer(features, layer), layer(features))
dense_layer(features, layer).shape

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
#
# A block is a loop that collects features. A transition is one line:


# %%
def dense_block(x, layers):
    """Every layer gets all features before it; returns all."""
    features = [x]
    for layer in layers:
        features.append(dense_layer(features, layer))
    return torch.cat(features, 1)


def transition(x, module):
    """BN, ReLU, 1x1 convolution; the pool comes after the gate."""
    return module.conv(relu(module.norm(x)))


# %% [markdown]
# ## The SE gate
#
# Squeeze-and-excitation {cite}`hu2018` multiplies each channel by a number that is computed from the means of all channels
# (their equations 2, 3 and 4; symbols in {numref}`tab-network-gate`):
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
# | $s$ | the gates, one per channel | `gates` |
#
# :::
#
# Three equations, three lines:


# %%
def gate(x, se):
    """Scale each channel of x by its gate."""
    z = x.mean(dim=(2, 3))
    s = se.scale * torch.sigmoid(se.expand(relu(se.reduce(z))))
    return x * s[:, :, None, None]


# %%
from histotransfer.models.se import SqueezeExcite

paper = SqueezeExcite(channels=256, reduction=16, gate="standard")
activations = torch.randn(2, 256, 14, 14)
assert torch.equal(gate(activations, paper), paper(activations))
paper.gates(activations).shape, gate(activations, paper).shape

# %% [markdown]
# **Our deviation.** We use $2\sigma(\cdot)$ and start with $W_2$ and its bias at 0. Then every gate is *exactly* 1 at the start. A network
# with ImageNet weights computes what it computed before, so the comparison "with SE against without" is clean. (One could
# also bias a plain sigmoid until it rounds to 1. But its slope there is 0, so it would not learn.)

# %%
ours = SqueezeExcite(channels=256, reduction=16)
ours.scale, ours.gates(activations).unique().tolist()

# %% [markdown]
# ## The whole network
#
# The paper does not state depth, growth rate or reduction. According to a summary of it, gates are inside the dense blocks
# and in the transitions. The exact places are not given. We use DenseNet-121, because it has published weights, with gates
# after each block and in each transition. The study's networks have gates only from block 3 on, as
# blocks 1 and 2 stay as ImageNet left them (chapter {doc}`04_transfer`). {numref}`tab-network-shapes` has the shapes for one image of 224 pixels:

# %% mystnb={"figure": {"name": "tab-network-shapes", "caption": "SE-DenseNet-121, module by module: the shape of the output for one picture of 224 pixels, and the number of parameters."}}
import pandas as pd

from histotransfer.models.se_densenet import parameter_count

x, rows = torch.zeros(1, 3, 224, 224), []
for name, module in model.features.named_children():
    x = module(x)
    rows.append((name, tuple(x.shape[1:]), parameter_count(module)))
columns = ["module", "output (C, H, W)", "parameters"]
pd.DataFrame(rows, columns=columns).set_index("module")

# %% [markdown]
# The functions above, one after the other, are this network. To test them, its gates start as in the SE paper, so that they
# are not 1:


# %%
def se_densenet(x, model):
    """The whole network from the functions of this page."""
    for name, module in model.features.named_children():
        if name.startswith("denseblock"):
            *layers, se = module.children()
            x = gate(dense_block(x, layers), se)
        elif name.startswith("transition"):
            x = avg_pool2d(gate(transition(x, module), module.se), 2)
        else:
            x = module(x)
    return model.classifier(relu(x).mean(dim=(2, 3)))


# %%
moved = SEDenseNet(gate="standard").eval()
picture = torch.randn(1, 3, 64, 64)
with torch.no_grad():
    apart = se_densenet(picture, moved) - moved(picture)
apart = apart.abs().max().item()
assert apart < 1e-5
f"written out and module differ by {apart:.0e} at most"

# %% [markdown]
# ## Identity at the start, shown
#
# Torchvision's DenseNet-121 and ours get the same ImageNet weights. Ours has its untrained gates:

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
# A gate learns four tensors: the weights and the bias of each of its two layers. As long as $W_2 = 0$, the first layer gets
# no gradient. So half of the tensors have a gradient in the first step, and all of them have one after it. Here are a few
# steps on phantom {term}`tiles <tile>`, with the whole network unfrozen:

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
# {numref}`tab-network-gates-moved` shows how far the gates are from 1 after these steps. The distance from 1 is the mean of
# $|s - 1|$ over channels and images. The spread says how much a gate varies between images: its standard deviation, averaged over
# channels. If it is 0, the gate is the same for every image.

# %% mystnb={"figure": {"name": "tab-network-gates-moved", "caption": "Gates after six steps on phantom tiles: lowest and highest, mean distance from 1, and variation between images."}}
from histotransfer.experiments.gates import gate_statistics

called = {"moved": "distance from 1", "by_image": "spread over images"}
gates = gate_statistics(model.eval(), source).rename(columns=called)
spread = ["lowest", "highest", *called.values()]
brief(gates.round(4), spread)

# %% [markdown]
# ## How far gates move in the ladder
#
# {numref}`tab-network-gates-real` shows the same for one {term}`ladder` on real tissue, on its validation images (record
# `results/gates`). That ladder (`results/spine/ladder`) was trained for eight {term}`epochs <epoch>`, its gates at the rate of their block.
# The study's arms train for fifteen, with a rate for gates alone, and there gates move much further (chapter {doc}`07_ablations`). Both
# leave blocks 1 and 2 frozen.

# %% mystnb={"figure": {"name": "tab-network-gates-real", "caption": "Gates of a ladder on real tissue, on its validation images. Columns as in the table before."}}
real = pd.read_csv("results/gates/gates.csv", index_col="gate")
brief(real.rename(columns=called), spread)

# %% [markdown]
# **They hardly move.** In blocks that stay frozen, gates stay exactly 1. In unfrozen blocks, each step of Adam moves a weight
# by about the learning rate, and pre-trained blocks have a small rate. After a few epochs every gate is within a fraction
# of a percent of 1. So this network computes almost the same as a plain DenseNet with the same weights. Its score says
# nothing for or against attention. A comparison of "SE on" with "SE off" (claim C2) must show a table like
# {numref}`tab-network-gates-real` beside its result.
#
# ## The paper's size (claim C7)
#
# The paper states 1,068,993 parameters and 84.7 MB. If each parameter is a float32 number of four bytes, the two numbers
# describe two different networks ({numref}`tab-network-two-sizes`):

# %% mystnb={"figure": {"name": "tab-network-two-sizes", "caption": "What each of the paper's two numbers says, if parameters are float32."}}
from histotransfer.paper import STATED_MB, STATED_PARAMETERS

pd.DataFrame({
    "parameters": [STATED_PARAMETERS, round(STATED_MB * 1e6 / 4)],
    "MB on disk": [STATED_PARAMETERS * 4 / 1e6, STATED_MB],
}, index=["its count", "its megabytes"]).round(1)  # fmt: skip

# %% [markdown]
# {numref}`tab-network-candidates` has the sizes of likely networks, at 224 pixels and for two classes. With the
# number of classes of the original heads, those without gates have the counts that their authors published:

# %% mystnb={"figure": {"name": "tab-network-candidates", "caption": "Parameters, megabytes, operations and activations of likely networks. The paper states 1,068,993 parameters and 84.7 MB."}}
from histotransfer.models.size import candidates

candidates().round(1)

# %% [markdown]
# Three explanations are possible. The networks of the first two are in {numref}`tab-network-candidates`:
#
# - **84.7 MB is the size of the weights** of a large network. DenseNet-201 with gates comes close, and closer still with
#   the 1000 classes of its published head. But it has far more parameters than the paper states.
# - **1,068,993 is the number of parameters** of a small network. DenseNet-40 of the CIFAR experiments, with gates, comes
#   close. But its file is far smaller than the paper states.
# - **1,068,993 is the number of trained parameters**, those of a {term}`head` on a frozen trunk. The head that fastai puts
#   on a DenseNet-121 by default comes close, but is not equal. Its parameters:

# %%
from histotransfer.models.size import default_head

parameter_count(default_head(features=1024, num_classes=2))

# %% [markdown]
# ## Why an exact match would prove nothing
#
# Close is not equal. So one may search for a network with exactly this number of parameters. {numref}`tab-network-grid` is a
# grid of round values for everything that the paper does not state. A formula counts the parameters of every SE-DenseNet
# in the grid, with three or four blocks and any positions of gates. {numref}`tab-network-matches` says how many match, and
# {numref}`tab-network-exact` shows some of them:

# %% mystnb={"figure": {"name": "tab-network-grid", "caption": "The grid that is searched: values of what the paper does not state."}}
from histotransfer.models.size import GRID, grid_size, nets_near

pd.Series({
    name: ", ".join(map(str, values))
    for name, values in GRID.items()
    if name != "positions"
}).to_frame("values")  # fmt: skip

# %% mystnb={"figure": {"name": "tab-network-matches", "caption": "What the search finds: networks with the paper's number of parameters, and with numbers close to it."}}
near = nets_near(STATED_PARAMETERS, window=500)
exact = near[near["parameters"] == STATED_PARAMETERS]
per_count = near["parameters"].value_counts()
pd.Series({
    "settings in the grid": f"{grid_size():,}",
    "networks with exactly the paper's count": f"{len(exact)}",
    "networks per count, mean of 1001": f"{per_count.mean():.1f}",
    "of these 1001 counts, matched": f"{len(per_count)}",
}).to_frame("value")  # fmt: skip

# %% mystnb={"figure": {"name": "tab-network-exact", "caption": "Some of the networks with exactly the paper's number of parameters."}}
shown = ["growth_rate", "stem", "positions", "reduction"]
exact.set_index("block_config")[shown].head(6)

# %% [markdown]
# Many unrelated networks have exactly the paper's number of parameters. The same is true of **every** number close to it. A
# wider grid would find more. Any number would find a match, so a match is no evidence for any of these networks.
#
# The megabytes do not help. Summary tools print an "estimated total size" that includes the activations, and these grow
# with the picture. So for each of these networks there is a picture size at which such a tool would print 84.7 MB
# ({numref}`tab-network-sides`):

# %% mystnb={"figure": {"name": "tab-network-sides", "caption": "Picture size at which a summary tool would print 84.7 MB, over the networks with exactly the paper's number of parameters."}}
from histotransfer.models.size import pixels_for_total

nets = exact.drop(columns="parameters").to_dict("records")
sides = [pixels_for_total(STATED_MB, **net) for net in nets]
spread = pd.Series(sides).describe()[["min", "25%", "50%", "75%", "max"]]
spread.round().astype(int).to_frame("pixels per side")

# %% [markdown]
# **Verdict on C7: the two numbers do not describe one float32 network.** They cannot be the number and the size of the same
# weights. They are consistent if one of them means something else, such as trained parameters only, or memory with
# activations. The paper does not state this, and no search can decide it.

# %% [markdown]
# ## Check yourself
#
# <details>
# <summary>How does the SE module rescale feature maps, and why should that help a classifier?</summary>
#
# It takes the mean of each channel over the picture and sends the means through two small layers. Then it multiplies each
# channel by the result, here a number between 0 and 2. So the whole picture decides which channels are amplified or
# muted. Whether that helps is claim C2, and it must be measured.
#
# </details>
#
# <details>
# <summary>Why must the gate start at exactly 1 for a clean comparison?</summary>
#
# Then both arms start from the same function, and any difference at the end was learned.
#
# </details>
#
# <details>
# <summary>A network has exactly 1,068,993 parameters. Is it the paper's?</summary>
#
# That does not follow. Many unrelated networks have that number of parameters, and so it is for every number close to it.
#
# </details>

# %% [markdown]
# ## Exercises
#
# ```{exercise} Channels
# :label: ex-densenet-channels
#
# *Easy.* 64 channels enter a dense block of 6 layers with growth rate 32. A transition with compression ½ follows. How many
# channels leave the transition?
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
# *Medium.* Return the number of parameters of one SE gate for $C$ channels and reduction $r$. In this book a gate is two
# layers with biases, and their hidden width is $\max(4, \lfloor C/r \rfloor)$.
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
# Return one new convolution that computes a given convolution and the BatchNorm after it. Inside a dense layer, `norm2` can
# be folded into `conv1` like this. `norm1` cannot: a
# ReLU lies between it and the convolution after it, and what comes before it is a concatenation that other layers read too,
# each with its own BatchNorm.
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
# The scale goes into the kernels of its output channel. Everything else goes into the bias.
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
# - Each dense layer adds $k$ channels, and each transition halves their number.
# - If gates start at exactly 1, they can be added to published weights and compared cleanly.
# - A gate that has not moved gives no attention. Check this before you compare.
# - A matching number of parameters proves nothing if every number matches.
#
# **Further reading:** {cite}`huang2017`, {cite}`hu2018`; chapter {doc}`04_transfer` trains this network.

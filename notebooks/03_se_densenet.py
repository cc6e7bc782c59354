# %% [markdown]
# # SE-DenseNet, equation by equation
#
# **After this chapter you can**
#
# - write down what a dense layer, a transition and an SE gate compute, and their shapes;
# - add attention to a network with published weights without changing what it computes;
# - count its parameters and say how they relate to the paper's numbers.

# %% tags=["parameters"]
profile = "phantom"
data_root = ""
seed = 0
device = "cpu"
weights = ""

# %%
from histotransfer.chapters import begin

chosen = {"seed": seed, "device": device, "weights": weights}
root = begin(profile=profile, data_root=data_root, **chosen)

# %% [markdown]
# ## The dense layer
#
# In a DenseNet {cite}`huang2017` every layer sees the features of all layers before it (their equation 2):
#
# $$ x_\ell = H_\ell([x_0, x_1, \dots, x_{\ell-1}]) $$
#
# | symbol | meaning | in the code |
# |---|---|---|
# | $[\cdot]$ | concatenation along channels | `torch.cat(features, 1)` |
# | $H_\ell$ | BN, ReLU, 1×1 conv, BN, ReLU, 3×3 conv | `DenseLayer.forward` |
# | $k$ | growth rate: new features a layer | `growth_rate` |
#
# So channels grow by $k$ a layer. A **transition** between blocks halves them by a 1×1 convolution and the resolution by
# a 2×2 average pool.

# %%
import torch

from histotransfer.models.se_densenet import DenseLayer, SEDenseNet

layer = DenseLayer(channels=64, growth_rate=32, bottleneck=4, se=None)
features = [torch.randn(1, 64, 28, 28)]
layer(features).shape

# %% [markdown]
# ## The SE gate
#
# Squeeze-and-excitation {cite}`hu2018` scales each channel by a number computed from all channels' means:
#
# $$ z_c = \frac{1}{HW}\sum_{i,j} u_c(i,j), \qquad s = \sigma\!\left(W_2\,\delta(W_1 z)\right), \qquad \tilde{x}_c = s_c\,u_c $$
#
# | symbol | meaning | in the code |
# |---|---|---|
# | $u$ | activations, $C \times H \times W$ | `x` |
# | $z$ | squeeze: mean of each channel | `x.mean(dim=(2, 3))` |
# | $W_1, W_2$ | two small layers, $C \to C/r \to C$ | `reduce`, `expand` |
# | $\delta, \sigma$ | ReLU, sigmoid | `torch.relu`, `torch.sigmoid` |
#
# **Our deviation.** With $2\sigma(\cdot)$ and $W_2 = 0$ at the start every gate is *exactly* 1, so a network with ImageNet
# weights computes what it computed before, and "with SE against without" is a clean comparison.

# %%
from histotransfer.models.se import SqueezeExcite

gate = SqueezeExcite(channels=256, reduction=16)
gate.gates(torch.randn(2, 256, 14, 14)).unique().tolist()

# %% [markdown]
# ## The whole network
#
# The paper does not state depth, growth rate or reduction. We use DenseNet-121 with gates after each block and in each
# transition. Shapes for one 224-pixel image:

# %%
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
# ## The paper's size (claim C7)
#
# The paper states 1,068,993 parameters and 84.7 MB. In float32 a parameter is four bytes:


# %%
counts = {"the paper's count": 1_068_993, "the paper's MB": 84.7e6 / 4}
variants = {
    "DenseNet-121": (),
    "+ SE in blocks and transitions": ("block", "transition"),
    "+ SE in every layer too": ("layer", "block", "transition"),
}
for name, positions in variants.items():
    counts[name] = parameter_count(SEDenseNet(positions=positions))
sizes = pd.DataFrame({"parameters": counts}).astype(int)
sizes.assign(MB=(sizes["parameters"] * 4 / 1e6).round(1))

# %% [markdown]
# The two numbers of the paper do not describe one float32 network: its count is a twentieth of what its megabytes hold.
#
# ## Take home
#
# - Dense layers add $k$ channels each; transitions halve them.
# - A gate that starts at exactly 1 lets attention be added to published weights and compared cleanly.
# - 1,068,993 parameters and 84.7 MB contradict each other.
#
# **Further reading:** {cite}`huang2017`, {cite}`hu2018`.

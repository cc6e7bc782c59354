# %% [markdown]
# # Transfer: ImageNet, then lung, then breast
#
# **After this chapter you can**
#
# - say what freezing a layer must include for it to be truly frozen;
# - read learning curves stage by stage;
# - climb the ladder of the paper yourself, with one call.

# %% tags=["parameters"]
profile = "phantom"
data_root = ""
seed = 0
device = "cpu"
weights = ""

# %%
from histotransfer.chapters import begin
from histotransfer.config import ladder_config

chosen = {"seed": seed, "device": device, "weights": weights}
root = begin(profile=profile, data_root=data_root, **chosen)
config = ladder_config(profile, chosen)

# %% [markdown]
# ## The idea
#
# Shallow layers see edges and colours, which are the same everywhere; deep layers see what a task needs. So a network can
# be **thawed from the head down**: first the new classifier alone, then the last dense block under it, then the one before.
# What is still frozen keeps what ImageNet taught it {cite}`deng2009`.
#
# The paper climbs two rungs after ImageNet: LC25000 (lung, three classes), then BreakHis (breast, two classes). It does
# not state which layers are frozen when; the stages here are ours:

# %%
import pandas as pd

schedules = {
    "LC25000": dict(config.lc25000_schedule),
    "BreakHis": dict(config.breakhis_schedule),
}
pd.DataFrame(schedules).rename_axis("epochs, thawed down to")

# %% [markdown]
# ## Frozen means frozen
#
# fastai {cite}`howard2020` freezes weights, but by default lets BatchNorm go on learning below the frozen line. Here a frozen
# group gets no gradient *and* stays in eval mode, so its output for an image is a constant. Lower groups that do train learn
# more slowly (discriminative rates):

# %%
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.transfer import unfreezing

model = SEDenseNet()
names = [name for name, _ in unfreezing.module_groups(model)]
groups = unfreezing.parameter_groups(model)
counts = [sum(p.numel() for p in group) for group in groups]
rates = unfreezing.group_rates(
    model, config.learning_rate, config.rate_decay
)
pd.DataFrame({"parameters": counts, "peak rate": rates}, index=names)

# %% [markdown]
# ## What is frozen is computed once
#
# A frozen group always says the same about the same image. Flips and half turns are a handful of views, so all that the
# frozen groups will ever say is a finite list: it is computed when first asked for, kept on disk, and every epoch, fold,
# seed and ablation that shares the groups trains from there. A stage then costs only what it thaws. This is what is kept
# for one view of one image at each cut, in float32, unrounded:

# %%
import torch

kept = {}
with torch.no_grad():
    x = torch.zeros(1, 3, config.size, config.size)
    for cut, name in enumerate(names[:-1]):
        x = unfreezing.run_groups(model.eval(), x, cut, cut + 1)
        kept[name] = (tuple(x.shape[1:]), x.nbytes / 1000)
columns = ["shape after the group", "kB a view"]
pd.DataFrame.from_dict(kept, orient="index", columns=columns)

# %% [markdown]
# The stored activations are named by the weights that made them, the image's pixels and the view, so nothing stale is
# ever read; gates that are still exactly 1 are left out of the name, since they change nothing. Training from the cache
# and training from tiles give the same losses (the tests hold them to 0.0001 a step).
#
# ## The climb
#
# One call: load, split by patient, normalise colour, train both rungs, predict the test part when a stage ends, and write records
# beside two baselines that saw the same split: the majority class, and a logistic regression on frozen ImageNet features.
# Every stage keeps a checkpoint; a run that is killed and started again ends with the same weights, to the last bit.

# %%
from pathlib import Path

from histotransfer.study.runner import run_ladder

out = Path("_build/experiments") / profile
folder = run_ladder(config, root, out, report=lambda line: None)
folder.as_posix()

# %% mystnb={"figure": {"name": "fig-curves", "caption": "Log-loss on training and validation images, epoch by epoch; grey lines mark where a stage thaws the next block."}, "image": {"alt": "Two panels of learning curves, LC25000 and BreakHis, training and validation log-loss over epochs, with stage borders."}}
from histotransfer.figures import learning_curves
from histotransfer.study.records import read_run

run = read_run(folder)
figure = learning_curves(run.history)

# %%
columns = [
    "rung",
    "stage",
    "epoch",
    "train_log_loss",
    "validation_log_loss",
]
run.history[columns].round(3)

# %% [markdown]
# ## What a record holds
#
# Every number of this book comes from a folder like this one. The first three files are the same byte for byte when the run
# is repeated; what may differ (times, hardware, versions) stands in `provenance.json`.

# %%
sorted(path.name for path in folder.iterdir())

# %%
shown = ("experiment", "run", "profile", "data", "split", "seed")
{key: run.record[key] for key in shown}

# %% [markdown]
# Two runs are compared file by file with `histotransfer runs diff A B`. The stages on the way have records of their own
# (`ladder-after-head`, ...), so what each thaw adds can be read without training anything twice.
#
# ## Take home
#
# - Thaw from the head down; a frozen BatchNorm must also stop counting.
# - The test part is predicted when a stage ends, and nothing is chosen by it.
# - What is frozen need not be computed twice.
# - A run leaves a record from which every figure can be drawn again.
#
# The same climb on real tissue, some minutes to hours on two cores:
#
# ```sh
# histotransfer ladder --profile lite --data DIR --out results/mine
# ```
#
# Many runs, on this machine or on many: {doc}`/book/cluster`.
#
# **Further reading:** {cite}`howard2020`; chapter {doc}`05_evaluation` judges what was trained here.

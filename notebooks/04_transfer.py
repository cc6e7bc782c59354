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
# ## The climb
#
# One call: load, split by patient, normalise colour, train both rungs, predict the test part once, and write records
# beside two baselines that saw the same split: the majority class, and a logistic regression on frozen ImageNet features.

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
# ## Take home
#
# - Thaw from the head down; a frozen BatchNorm must also stop counting.
# - The test part is predicted once, at the end.
# - A run leaves a record from which every figure can be drawn again.
#
# The same climb on real tissue, some minutes to hours on two cores:
#
# ```sh
# histotransfer ladder --profile lite --data DIR --out results/mine
# ```
#
# **Further reading:** {cite}`howard2020`; chapter {doc}`05_evaluation` judges what was trained here.

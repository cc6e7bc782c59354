# %% [markdown]
# # Transfer: ImageNet, then lung, then breast
#
# **After this chapter you can**
#
# - say what freezing a layer must include for it to be truly frozen;
# - read learning curves stage by stage;
# - train the paper's two transfer steps yourself, with one call.
#
# **Takes** about 16 minutes to read, 1 to run (phantom tissue, two cores). Exercises, estimated: an easy
# one 5 minutes, a medium one 15, a hard one 30.
# **Needs** chapter {doc}`SE-DenseNet <03_se_densenet>`, and what a learning rate is.

# %% tags=["parameters"]
profile = "phantom"
data_root = ""
seed = 0
device = "cpu"
weights = ""

# %%
import os

from histotransfer.book.chapters import begin, live_config, project_root

os.chdir(project_root())  # chapters name their records from there
chosen = {"seed": seed, "device": device, "weights": weights}
root = begin(profile=profile, data_root=data_root, **chosen)
config = live_config(profile, chosen)

# %% [markdown]
# ## The idea
#
# Shallow layers see edges and textures, which many pictures share; deep layers see what a task needs. So a network can
# be **unfrozen from the head down**: first the new classifier alone, then the last dense block under it, then the one before.
# What is still frozen keeps what ImageNet taught it {cite}`deng2009`.
#
# The paper trains on two data sets after ImageNet: LC25000 (lung, three classes), then BreakHis (breast, two classes). It does
# not state which layers are frozen when; the stages here are ours. {numref}`fig-transfer-timeline` shows those of the study's arm `se-lung`:
# which groups train in which epoch, and at which peak rate.

# %% mystnb={"figure": {"name": "fig-transfer-timeline", "caption": "The study's recipe (`study/recipe.toml`) on both data sets: the groups that train in each epoch, and the peak rate of each."}}
from histotransfer.figures import unfreezing_timeline
from histotransfer.report.study import Study
from histotransfer.study.plan import planned_runs

plan = Study("study", "results").plan("primary")
recipe = next(r.config for r in planned_runs(plan) if r.arm == "se-lung")
figure = unfreezing_timeline(recipe)

# %% [markdown]
# On phantom tissue this page trains for less ({numref}`tab-transfer-schedule`). Rendered on real tissue (`profile="lite"`), this chapter and
# the two after it train with pictures of 128 pixels in place of the profile's 224, which cost this chapter alone about 20 minutes of two cores.

# %% mystnb={"figure": {"name": "tab-transfer-schedule", "caption": "Epochs of each stage on the two data sets that this page trains on."}}
import pandas as pd

schedules = {
    "LC25000": dict(config.lc25000_schedule),
    "BreakHis": dict(config.breakhis_schedule),
}
pd.DataFrame(schedules).rename_axis("epochs, unfrozen down to")

# %% [markdown]
# ## Frozen means frozen
#
# fastai {cite}`howard2020` freezes weights, but by default lets BatchNorm go on learning below the frozen line. Here a frozen
# group gets no gradient *and* stays in eval mode, so its output for an image is a constant. Lower groups that do train learn
# more slowly (discriminative rates; {numref}`tab-transfer-rates`):

# %% mystnb={"figure": {"name": "tab-transfer-rates", "caption": "Parameters and peak learning rate of each group in the short training on this page; the study's rates are in the timeline above."}}
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.transfer import unfreezing

model = SEDenseNet()
names = [name for name, _ in unfreezing.module_groups(model)]
groups = unfreezing.parameter_groups(model)
counts = [sum(p.numel() for p in group) for group in groups]
rates = unfreezing.group_rates(
    model, config.learning_rate, config.rate_decay
)
shown = [f"{rate:.0e}" for rate in rates]
pd.DataFrame({"parameters": counts, "peak rate": shown}, index=names)

# %% [markdown]
# ## The loop
#
# One stage with fastai's own `Learner`. What keeps a frozen group still is a callback. At the start of each epoch fastai puts all modules
# into train mode, then it calls `before_train`, which puts the frozen ones back into eval mode: their BatchNorm uses the means that ImageNet
# left and updates none.

# %%
from fastai.callback.core import Callback


class HoldStill(Callback):
    """Keep modules in eval mode while the rest trains."""

    def __init__(self, frozen):
        self.frozen = frozen

    def before_train(self):
        for module in self.frozen:
            module.eval()


# %% [markdown]
# `freeze_to` leaves everything below a group out of training, `fit_one_cycle` raises the rate and lets it fall again, and `lr_max` gives
# each group its own peak (`rates`, from above).

# %%
from fastai.callback.schedule import Learner
from fastai.data.core import DataLoaders
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import Adam


# %%
def one_stage(net, stage, epochs, *batches):
    """Train the groups down to a stage; validation loss, by epoch."""
    still = HoldStill(unfreezing.frozen_modules(net, stage))
    how = {"opt_func": Adam, "wd": config.weight_decay, "train_bn": False}
    how |= {"splitter": unfreezing.parameter_groups, "cbs": [still]}
    learner = Learner(
        DataLoaders(*batches), net, CrossEntropyLossFlat(), **how
    )
    learner.freeze_to(unfreezing.lowest_trained(net, stage))
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs, lr_max=rates)
    return [losses[1] for losses in learner.recorder.values]


# %% [markdown]
# Three stages on a few small tiles, with a plain DenseNet-121. `Batches(tiles, labels, batch size, seed, device)` draws the order and the
# views of an epoch from the seed alone (None: the order of the tiles, upright). So the same training can be done twice: by this loop, and by
# the module. They give the same losses.

# %%
import torch

from histotransfer.datasets import breakhis
from histotransfer.models.weights import imagenet_trunk, load_trunk
from histotransfer.stain import normaliser
from histotransfer.tiles import TileSource, load_tiles

few = breakhis.load(root).groupby("label").head(12)
pixels = load_tiles(few["path"].tolist(), 64, normaliser("none"))[0]
truth = (few["label"] == "malignant").to_numpy().astype(int)

# %%
from histotransfer.transfer.training import Batches, train_stage


def three_stages(train_one):
    torch.manual_seed(seed)
    net, losses = SEDenseNet(positions=()), []
    load_trunk(net, imagenet_trunk(weights))
    for number, stage in enumerate(["head", "block4", "block3"]):
        source = TileSource(pixels)
        train = Batches(source, truth, 8, (seed, number), "cpu")
        losses += train_one(
            net, stage, train, Batches(source, truth, 8, None, "cpu")
        )
    return losses


# %%
def by_module(net, stage, train, validation):
    rows = train_stage(net, train, validation, stage, 2, config)
    return [row["validation_loss"] for row in rows]


loop = three_stages(
    lambda net, stage, *both: one_stage(net, stage, 2, *both)
)
module = three_stages(by_module)
assert loop == module, "to the last bit"
[round(loss, 3) for loss in loop]

# %% [markdown]
# What the module adds is speed and safety: the cache of the next section, checkpoints, gates with a rate of their own. On these few
# tiles the loss is that of the images trained on, so its fall says that the loop works, and nothing more.
#
# ## What is frozen is computed once
#
# A frozen group always says the same about the same image. Flips and half turns are a handful of views, so all that the
# frozen groups will ever say is a finite list: it is computed when first asked for, kept on disk, and every epoch, fold,
# seed and ablation that shares the groups trains from there. A stage then costs only what it unfreezes. This is what is kept
# for one view of one image at each cut, in float32, unrounded ({numref}`tab-transfer-kept`):

# %% mystnb={"figure": {"name": "tab-transfer-kept", "caption": "What the cache keeps of one view of one image when all groups down to a cut are frozen."}}
kept = {}
with torch.no_grad():
    x = torch.zeros(1, 3, config.size, config.size)
    for cut, name in enumerate(names[:-1]):
        x = unfreezing.run_groups(model.eval(), x, cut, cut + 1)
        kept[name] = (tuple(x.shape[1:]), x.nbytes / 1000)
columns = [f"shape of {config.size} pixels after it", "kB per view"]
pd.DataFrame.from_dict(kept, orient="index", columns=columns)

# %% [markdown]
# The stored activations are named by the weights that made them, the image's pixels and the view, so nothing stale is
# ever read; gates that are still exactly 1 are left out of the name, since they change nothing. Training from the cache
# and training from tiles give the same losses, to 0.0001 per step.
#
# ## The training
#
# One call: load, split by patient, normalise colour, train on both data sets, predict the test part when a stage ends, and write records
# beside two baselines that saw the same split: the majority class, and a logistic regression on frozen ImageNet features.
# Every stage keeps a checkpoint; a run that is killed and started again ends with the same weights, to the last bit.

# %%
from pathlib import Path

from histotransfer.study.runner import run_ladder

out = Path("_build/experiments") / profile
folder = run_ladder(config, root, out, report=lambda line: None)
folder.as_posix()

# %% mystnb={"figure": {"name": "fig-curves", "caption": "Log-loss on training and validation images, epoch by epoch; grey lines mark where a stage unfreezes the next block."}, "image": {"alt": "Two panels of learning curves, LC25000 and BreakHis, training and validation log-loss over epochs, with stage borders."}}
from histotransfer.figures import learning_curves
from histotransfer.records import read_run

run = read_run(folder)
figure = learning_curves(run.history)

# %% [markdown]
# How to read {numref}`fig-curves`: both curves falling is learning. Training falling while validation stays or rises is memorising these
# images (overfitting, failure F1 of the next chapter). A jump at a grey line is the price of unfreezing: newly unfrozen weights first get worse
# and then better. Validation images are those of a few patients, so small steps of their curve mean little ({numref}`tab-transfer-epochs`).

# %% mystnb={"figure": {"name": "tab-transfer-epochs", "caption": "This page's training, epoch by epoch: log-loss on training and on validation images."}}
from histotransfer.evaluation.metrics import metric_name

losses = ["train_log_loss", "validation_log_loss"]
columns = ["dataset", "stage", "epoch", *losses]
epochs = run.history[columns].round(3).set_index("dataset")
epochs.rename(columns=metric_name)

# %% [markdown]
# The test patients are predicted at the end of each stage, and nothing is decided by them. After the last one, beside the two baselines
# ({numref}`tab-transfer-baselines`):

# %% mystnb={"figure": {"name": "tab-transfer-baselines", "caption": "This page's network and two baselines on the test part, all magnifications together."}}
from histotransfer.report.tables import (
    formatted,
    read_experiment,
    with_intervals,
)
from histotransfer.study.runner import RUNS

names = [name for name in RUNS if name != "lc25000"]
tested = with_intervals(read_experiment(folder.parent, names))
whole = tested[tested["magnification"] == "all"]
formatted(whole, ["accuracy", "auroc"])

# %% [markdown]
# How such a table is to be read, and what intervals can and cannot say of so few patients, is chapter {doc}`05_evaluation`.

# %% [markdown]
# ## What a record holds
#
# Every number of this book comes from a folder like this one. When the run is repeated, all files but one are the same byte for
# byte; what may differ (times, hardware, versions) is in `provenance.json`.

# %%
print(*sorted(path.name for path in folder.iterdir()), sep="\n")

# %%
shown = ("experiment", "run", "profile", "data", "split", "seed")
{key: run.record[key] for key in shown}

# %% [markdown]
# Two runs are compared file by file with `histotransfer runs diff A B`. The stages on the way have records of their own
# (`ladder-after-head`, ...), so what each stage adds can be read without training anything twice.

# %% [markdown]
# ## What the cache saves
#
# We timed two programs on the same real images, in turns (`benchmarks/unfreezing.py`). `stock` is plain fastai: it reads and augments every
# picture anew and computes the frozen blocks in every epoch. `ours` is this book's ladder; filling its cache is part of its time. Images,
# folds, epochs and batches are the same. The epochs are those of a stage with a full cache; in the full epoch nothing is frozen, so
# nothing can be kept. The single run is the first of five folds, with an empty cache, the cross-validation all five. Seconds, and how many
# times as fast ({numref}`tab-transfer-race`):

# %% mystnb={"figure": {"name": "tab-transfer-race", "caption": "Seconds of stock fastai and of this book's ladder, side by side on real images, and how many times as fast."}}
import json

race = json.loads(Path("results/bench/unfreezing.json").read_text())
seconds = pd.DataFrame(race["seconds"]).assign(times=race["ratios"])
seconds.rename(lambda name: name.replace("_", " ")).round(2)

# %% [markdown]
# Speed is useful only if the result is the same. {term}`AUROC` on validation patients, both programs and their difference (their
# augmentation and random numbers differ, so it is near 0, not 0; {numref}`tab-transfer-race-auroc`):

# %% mystnb={"figure": {"name": "tab-transfer-race-auroc", "caption": "Real tissue: AUROC on validation patients in that race (160 images in all), with 95 % intervals."}}
aurocs = race["validation_auroc"] | {
    "ours minus stock": race["validation_auroc_ours_minus_stock"]
}
pd.DataFrame(aurocs).T.round(2)

# %% [markdown]
# Does the cache change what is learned? Two runs on real images differ in that setting alone (`study/cache-check.toml`). Over a whole training
# rounding grows: logits end less than 0.02 apart. Each line is what `histotransfer runs diff` says of a column: in how many rows the two
# runs differ, and by how much at most.

# %%
from histotransfer.records import difference

lines, _ = difference(
    Path("results/cache-check/cached-s0-f0"),
    Path("results/cache-check/tiles-s0-f0"),
)
told = [line for line in lines if line.startswith(("history", "pred"))]
print(*told, sep="\n")

# %% [markdown]
# ## Check yourself
#
# <details>
# <summary>What are the two main steps of transfer in this study, and why one after the other?</summary>
#
# From ImageNet to lung tissue (LC25000), then from lung to breast (BreakHis). Each step starts where the one before
# ended, on data that are nearer to the goal: many everyday photographs teach edges and colours, some tissue of another
# organ teaches tissue, few images of the organ itself teach the task. Whether the source task adds anything is claim
# C3.
#
# </details>
#
# <details>
# <summary>Weights of a block get no gradient, and yet its output for an image changes during training. How?</summary>
#
# Its BatchNorm layers are in train mode: they normalise by the batch, and their running statistics go on counting.
#
# </details>
#
# <details>
# <summary>When is the test part predicted, and what is decided by it?</summary>
#
# Once at the end of each stage, and nothing. Epochs and rates were fixed before.
#
# </details>

# %% [markdown]
# ## Exercises
#
# ```{exercise} All views of a picture
# :label: ex-transfer-views
#
# *Easy.* Return the list of all different views of a picture $(H, W, 3)$ by turns of 90° and mirrors that have the same shape: eight of
# a square one, four of another.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.transfer import check_views


def views(image): ...


check_views(views)

# %% [markdown] tags=["solution"]
# ````{solution} ex-transfer-views
# :label: sol-transfer-views
# :class: dropdown
#
# A cache of frozen activations needs one entry for each of these views. A tile of BreakHis is a wide field squeezed to a
# square: a quarter turn would stretch it the other way, so four views are used. LC25000's fields are square and have eight.
#
# ```python
# import numpy as np
#
#
# def views(image):
#     both = (image, image[:, ::-1])
#     turned = [np.rot90(one, k) for one in both for k in range(4)]
#     return [one for one in turned if one.shape == image.shape]
# ```
# ````

# %% [markdown]
# ```{exercise} Predict the cost of one more block
# :label: ex-transfer-cost
#
# *Medium.* A stage that trains from the cache computes only what it has unfrozen. At 224 pixels block 4 has 16 layers at 7 × 7 with
# 512 channels at its entry; block 3 has 24 layers at 14 × 14 with 256, and transition 3 after it turns 1024 channels into 512.
# How many times the multiply-adds of unfreezing block 4 does unfreezing blocks 3 and 4 take? 20 % off is near enough. A layer is a
# 1 × 1 convolution to 128 channels and a 3 × 3 convolution to 32.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.transfer import check_cost

times = ...

check_cost(times)

# %% [markdown] tags=["solution"]
# ````{solution} ex-transfer-cost
# :label: sol-transfer-cost
# :class: dropdown
#
# Block 3 has not many more weights, but each works at four times as many places.
#
# ```python
# def block(channels, layers, side):
#     entering = range(channels, channels + 32 * layers, 32)
#     return sum(c * 128 + 9 * 128 * 32 for c in entering) * side**2
#
#
# block4 = block(512, 16, side=7)
# block3 = block(256, 24, side=14) + 1024 * 512 * 14**2
# times = (block3 + block4) / block4
# ```
# ````

# %% [markdown]
# ```{exercise} Freeze for good
# :label: ex-transfer-freeze
#
# *Hard.* `prepare(model, frozen)` is called before every epoch, whatever mode the network is in. Return the model in train mode with
# its part `frozen` truly frozen: it gets no gradient, and computes in training what it computes in eval mode.
# ```

# %% tags=["exercise"]
from histotransfer.book.exercises.transfer import check_prepare


def prepare(model, frozen): ...


check_prepare(prepare)

# %% [markdown] tags=["solution"]
# ````{solution} ex-transfer-freeze
# :label: sol-transfer-freeze
# :class: dropdown
#
# The order counts: `model.train()` reaches every part, so `frozen.eval()` must come after it, in every epoch.
#
# ```python
# def prepare(model, frozen):
#     model.train()
#     frozen.eval()
#     frozen.requires_grad_(False)
#     return model
# ```
# ````

# %% [markdown]
# ## Take home
#
# - Unfreeze from the head down; a frozen BatchNorm must also stop counting.
# - The test part is predicted when a stage ends, and nothing is chosen by it.
# - What is frozen need not be computed twice.
# - A run leaves a record from which every figure can be drawn again.
#
# The same training on real tissue, some minutes to hours on two cores:
#
# ```sh
# histotransfer ladder --profile lite --data DIR --out results/mine
# ```
#
# Many runs, on this machine or on many: {doc}`/book/cluster`.
#
# **Further reading:** {cite}`howard2020`; chapter {doc}`05_evaluation` judges what was trained here.

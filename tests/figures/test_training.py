import numpy as np
import pandas as pd
import pytest

from histotransfer import figures
from histotransfer.config import ladder_config
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.transfer import unfreezing


def test_learning_curves_draw_both_parts_over_all_epochs_of_a_data_set():
    history = pd.DataFrame(
        {
            "dataset": ["lc25000"] * 2 + ["breakhis"] * 3,
            "stage": ["head", "head", "head", "block4", "block4"],
            "epoch": [1, 2, 1, 1, 2],
            "train_log_loss": [0.5, 0.4, 0.3, 0.2, 0.1],
            "validation_log_loss": [0.6, 0.5, 0.4, 0.3, 0.35],
        }
    )
    first, second = figures.learning_curves(history).axes
    assert [first.get_title(), second.get_title()] == ["lc25000", "breakhis"]
    train, validation = second.lines[:2]
    assert train.get_xydata().tolist() == [[1, 0.3], [2, 0.2], [3, 0.1]]
    assert validation.get_ydata().tolist() == [0.4, 0.3, 0.35]
    assert [text.get_text() for text in second.texts] == ["head", "block4"]
    assert first.get_ylabel() == "log-loss (nats)"


def test_several_seeds_are_a_mean_and_a_band():
    run = pd.DataFrame(
        {"dataset": "breakhis", "stage": "head", "train_log_loss": [0.6, 0.3], "validation_log_loss": [0.7, 0.5]}
    )
    both = pd.concat([run.assign(seed=0), (run.assign(seed=1, validation_log_loss=[0.9, 0.6]))])
    figure = figures.learning_curves(both)
    (axis,) = figure.axes
    assert [line.get_ydata().tolist() for line in axis.lines[:2]] == [[0.6, 0.3], pytest.approx([0.8, 0.55])]
    band = axis.collections[1].get_paths()[0].vertices
    assert {tuple(np.round(vertex, 2)) for vertex in band} >= {(1, 0.7), (1, 0.9), (2, 0.5), (2, 0.6)}
    assert (
        "validation: 0.80 in epoch 1, lowest 0.55 in epoch 2, 0.55 (0.50 to 0.60 over 2 runs) in epoch 2" in figure.alt
    )


def test_compared_curves_have_a_panel_a_question():
    run = pd.DataFrame({"validation_log_loss": [0.7, 0.5, 0.6]})
    seeds = figures.by_seed(run, "validation_log_loss")
    assert seeds.index.tolist() == [1, 2, 3] and seeds[0].tolist() == [0.7, 0.5, 0.6]
    figure = figures.compared_curves({"F1": {"few": seeds}, "F2": {"with": seeds, "without": seeds + 1}})
    assert [axis.get_legend().get_title().get_text() for axis in figure.axes] == ["F1", "F2"]
    assert figure.axes[0].get_ylabel() == "log-loss (nats)"
    assert "F2, without: 1.70 in epoch 1, lowest 1.50 in epoch 2, 1.60 in epoch 3" in figure.alt


def test_failure_signatures_draw_the_arms_of_the_record():
    histories = pd.read_csv("results/failures/histories.csv")
    figure = figures.failure_signatures(histories)
    assert [len(axis.lines) for axis in figure.axes] == [2, 3, 2]
    few = histories[histories["arm"] == "few images"].groupby("epoch")["validation_log_loss"].mean()
    assert figure.axes[0].lines[1].get_ydata() == pytest.approx(few.to_numpy())
    assert "F3 slow convergence, ImageNet" in figure.alt


def test_the_timeline_is_what_unfreezing_does():
    settings = {"lc25000_schedule": "head:3,block4:2", "breakhis_schedule": "head:1,block3:2,all:4", "gate_rate": 10}
    config = ladder_config("lite", settings | {"learning_rate": 2e-3, "rate_decay": 0.4})
    figure = figures.unfreezing_timeline(config)
    model = SEDenseNet()
    names = [name for name, _ in unfreezing.module_groups(model)]
    rates = dict(zip(names, unfreezing.group_rates(model, config.learning_rate, config.rate_decay), strict=True))
    schedules = {"LC25000": config.lc25000_schedule, "BreakHis": config.breakhis_schedule}
    for axis, (dataset, schedule) in zip(figure.axes, schedules.items(), strict=True):
        assert axis.get_title(loc="left") == dataset
        groups = [label.get_text() for label in axis.get_yticklabels()]
        assert sorted(groups) == sorted(names)
        (beside,) = axis.child_axes
        shown = dict(zip(groups, [label.get_text() for label in beside.get_yticklabels()], strict=True))
        for group in names:
            epochs = [n for stage, n in schedule if names.index(group) >= unfreezing.lowest_trained(model, stage)]
            if epochs:
                assert float(shown[group]) == pytest.approx(rates[group], rel=0.05)
                assert f"{group} in {sum(epochs)} of {sum(n for _, n in schedule)} epochs" in figure.alt
            else:
                assert shown[group] == "frozen"
    assert figure.alt.endswith("Gates train with their block, at 0.02.")
    assert figure.axes[-1].get_xlabel().endswith("at 0.02.")


def test_without_a_source_task_there_is_one_timeline():
    figure = figures.unfreezing_timeline(ladder_config("phantom", {"source": "none", "se_positions": ""}))
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["BreakHis"]
    assert "Gates" not in figure.alt

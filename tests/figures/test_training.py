import numpy as np
import pandas as pd
import pytest

from histotransfer import figures


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

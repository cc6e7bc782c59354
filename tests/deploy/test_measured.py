import re

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from histotransfer.config import ladder_config
from histotransfer.datasets import breakhis, own
from histotransfer.deploy.measured import measured
from histotransfer.deploy.release import write_card
from histotransfer.records import read_run
from histotransfer.study.runner import run_ladder

pytestmark = pytest.mark.usefixtures("small_network")
SETTINGS = {"size": 48, "breakhis_schedule": "head:1,block4:1", "normaliser": "macenko", "average_views": True}


def silent(line):
    """Report nothing."""


@pytest.fixture(scope="module")
def mine(phantom_root, tmp_path_factory):
    """A run on a CSV of one's own, with the labels of one's own; and what was reported when its card was written."""
    folder = tmp_path_factory.mktemp("mine")
    table = breakhis.load(phantom_root)
    table["label"] = table["label"].map({"benign": "quiet", "malignant": "loud"})
    source = own.write_csv(table, folder / "mine.csv")
    run = run_ladder(ladder_config("phantom", SETTINGS), None, folder / "out", own=source, report=silent)
    lines = []
    card = write_card(run / "model.safetensors", report=lines.append)
    return run, card.read_text(), "\n".join(lines)


def row(text, start):
    return next(line for line in text.splitlines() if re.match(start, line))


def test_the_card_of_ones_own_network_lies_beside_it(mine):
    run, card, _ = mine
    assert (run / "model.safetensors.md").is_file()
    assert read_run(run)  # the card does not change the record
    assert "classes, in the order of the logits: loud, quiet" in card
    assert "test fold 1 of 5, seed 0" in card


@pytest.mark.parametrize(("name", "run_name"), [("network", "ladder"), ("frozen-probe", "frozen-probe")])
def test_the_network_stands_beside_the_bar_with_intervals_and_patients(mine, name, run_name):
    run, card, _ = mine
    predictions = read_run(run.parent / run_name).predictions.query("part == 'test'")
    guess = np.where(predictions["logit_loud"] > predictions["logit_quiet"], "loud", "quiet")
    accuracy = accuracy_score(predictions["truth"], guess)
    found = row(card, rf"\| all \| {name} \|")
    assert re.match(rf"\| all \| {name} \| {accuracy:.2f}( \[\d\.\d+,\s\d\.\d+\])? \|", found)
    patients = predictions.groupby("truth")["group"].nunique()
    assert found.endswith(f"| {len(predictions)} | {patients['loud']} + {patients['quiet']} |")


def test_the_lead_over_the_probe_is_the_difference_of_the_records(mine):
    run, card, _ = mine
    losses = []
    for name in ("ladder", "frozen-probe"):
        table = read_run(run.parent / name).predictions.query("part == 'test'")
        logits = table[["logit_loud", "logit_quiet"]].to_numpy()
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        losses.append(log_loss(table["truth"], chances, labels=["loud", "quiet"]))
    section = card.split("## The network minus the probe")[1]
    assert float(row(section, r"\| all \|").split(" | ")[1].split()[0]) == pytest.approx(
        losses[0] - losses[1], abs=0.006
    )


def test_the_dose_is_that_of_the_record(mine):
    run, card, _ = mine
    dose = read_run(run).record["dose"]
    moved = ", ".join(f"{name} by {share:.1%}" for name, share in dose["moved"].items() if share)
    assert "block4 by" in moved and "block1" not in moved
    assert f"- weights moved from where they started: {moved}" in card
    assert f"last epoch: {dose['training_log_loss']:.2f} nats" in card
    assert f"{dose['colours']['changed']:.0%} of training images changed" in card


def test_what_is_printed_is_what_the_card_says(mine):
    _, card, printed = mine
    for title in re.findall(r"^## (.*)$", card.split("## Metrics")[1], re.MULTILINE):
        assert title == "Limits" or title in printed
    assert set(re.findall(r"\d\.\d\d \[", card)) == set(re.findall(r"\d\.\d\d \[", printed))


def test_without_its_baselines_a_network_is_measured_alone(mine, tmp_path):
    run, _, _ = mine
    (tmp_path / "alone").mkdir()
    alone = tmp_path / "alone" / "ladder"
    alone.symlink_to(run)
    titles = [section.title for section in measured(alone / "model.safetensors")]
    assert titles == ["Metrics", "Metrics by patient", "Its probabilities", "Dose of the training"]


def test_a_dose_that_is_no_number_is_left_out(write_made_run, make_model, tmp_path):
    """A training that diverged has no log-loss."""
    from histotransfer.models.weights import save_model

    record = {"experiment": "made", "run": "ladder", "profile": "phantom", "seed": 0, "metrics": {}}
    record |= {"data": {"name": "mine"}, "config": {"fold": 0, "folds": 5}, "split": {"kind": "patient", "parts": {}}}
    record |= {"dose": {"training_log_loss": None, "moved": {"block4": 0.0}}}
    write = {"model.safetensors": lambda path: save_model(make_model(), path, {"architecture": {}})}
    folder = write_made_run(tmp_path / "made" / "ladder", record=record, extra=write)
    dose = measured(folder / "model.safetensors")[-1]
    assert dose.text == "- weights below the head stayed where they were"


def test_a_run_without_test_patients_has_no_metrics(write_made_run, make_predictions, make_model, tmp_path):
    from histotransfer.models.weights import save_model

    write = {"model.safetensors": lambda path: save_model(make_model(), path, {"architecture": {}})}
    folder = write_made_run(tmp_path / "made" / "ladder", predictions=make_predictions(part="validation"), extra=write)
    assert [section.text for section in measured(folder / "model.safetensors")] == [
        "No patient was kept for a test: not measured here."
    ]

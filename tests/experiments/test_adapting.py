import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score

from histotransfer.config import ladder_config
from histotransfer.datasets import breakhis, own, phantom
from histotransfer.deploy.predict import Predictor
from histotransfer.errors import HistotransferError
from histotransfer.experiments import adapting
from histotransfer.experiments.adapting import BEFORE, kept_apart, labelling_order, numbers, run
from histotransfer.models.weights import save_model
from histotransfer.records import image_paths
from histotransfer.report.adapting import gained, learning_curve, read_adapting
from histotransfer.splits import content_hashes
from histotransfer.study.runner import run_ladder
from histotransfer.study.tasks import foreign_task

pytestmark = pytest.mark.usefixtures("small_network")
SETTINGS = {"folds": 3, "breakhis_schedule": "head:3,block4:2", "learning_rate": 0.03, "threads": 1}


def silent(line):
    """Report nothing."""


@pytest.fixture(scope="module")
def network(phantom_root, tmp_path_factory):
    """A network trained on phantom tissue."""
    settings = {"size": 48, "source": "none", "breakhis_schedule": "head:1", "normaliser": "none", "seed": 1}
    settings |= {"average_views": True}
    folder = run_ladder(ladder_config("phantom", settings), phantom_root, tmp_path_factory.mktemp("n"), report=silent)
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def mine(phantom_root, tmp_path_factory):
    """The same tissue stained elsewhere, as a CSV of one's own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    table = breakhis.load(phantom_root)
    return own.write_csv(
        phantom.elsewhere(table[table["magnification"] == 100], folder / "pictures"), folder / "mine.csv"
    )


@pytest.fixture(scope="module")
def runs(network, mine, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "adapting"
    run(network, out, own=mine, profile="phantom", settings=SETTINGS, draws=2, report=silent)
    return read_adapting(out)


ARMS = ("majority", "frozen-probe", "head", "block4")
NUMBERS = [2, 4, 8, 16]


def test_every_arm_is_recorded_for_every_number_and_draw(runs):
    assert set(runs) == {(BEFORE, 0), *((arm, number) for arm in ARMS for number in NUMBERS)}
    assert all(len(of_draws) == (1 if arm == BEFORE else 2) for (arm, _), of_draws in runs.items())


def test_the_patients_that_are_predicted_are_the_same_whoever_was_labelled(runs):
    every = [
        run.predictions.set_index("image")[["group", "fold", "truth"]].sort_index()
        for own in runs.values()
        for run in own
    ]
    assert len(every[0]) == 24
    for other in every[1:]:
        pd.testing.assert_frame_equal(every[0], other)


def test_before_is_what_predict_says(runs, network, mine):
    (before,) = runs[BEFORE, 0]
    table = before.predictions
    files = image_paths(table["image"], mine.parent)
    found = np.array([prediction.probabilities for prediction in Predictor(network).predict(files)])
    logits = table[["logit_benign", "logit_malignant"]].to_numpy()
    np.testing.assert_allclose(found, softmax(logits, axis=1), atol=1e-4)


def test_nobody_who_was_labelled_is_predicted(mine, network, monkeypatch, tmp_path):
    """In every fold, of every number, the split of the training is by patient; and balanced by class."""
    seen = []
    labelled = adapting._labelled

    def spy(*arguments):
        seen.append(labelled(*arguments))
        return seen[-1]

    monkeypatch.setattr(adapting, "_labelled", spy)
    run(network, tmp_path / "out", own=mine, profile="phantom", settings=SETTINGS, draws=1, report=silent)
    assert len(seen) == 3 * len(NUMBERS)
    for task, number in zip(seen, np.repeat(NUMBERS, 3), strict=True):
        train, test = (task.table[task.table["split"] == part] for part in ("train", "test"))
        assert not set(train["group"]) & set(test["group"])
        assert train["group"].nunique() == number and test["group"].nunique() == 8
        assert train.groupby("label")["group"].nunique().to_list() == [number / 2] * 2
    groups = [set(task.table.loc[task.table["split"] == "train", "group"]) for task in seen]
    assert all(small <= large for small, large in zip(groups, groups[3:], strict=False))  # more hold the fewer


def test_draws_and_arms_differ_and_an_equal_run_is_equal(runs, network, mine, tmp_path):
    logits = {key: [run.predictions["logit_malignant"].to_numpy() for run in own] for key, own in runs.items()}
    assert not np.allclose(*logits["block4", 4])
    assert not np.allclose(logits["head", 4][0], logits["block4", 4][0])
    out = tmp_path / "adapting"
    run(network, out, own=mine, profile="phantom", settings=SETTINGS, draws=1, report=silent)
    again = read_adapting(out)
    for key, own_runs in again.items():
        assert own_runs[0].record == runs[key][0].record


def test_the_head_alone_moves_first_and_then_block_4(runs):
    for number in NUMBERS:
        for draw in range(2):
            head, block4 = (runs[arm, number][draw].record["dose"] for arm in ("head", "block4"))
            assert head["moved"]["head"] > 0
            assert not any(value for name, value in head["moved"].items() if name != "head")
            assert block4["moved"]["block4"] > 0 and block4["moved"]["block3"] == 0
            assert set(head) >= {"training_log_loss", "views"}
    assert runs["frozen-probe", 4][0].record["dose"] == {}


def test_learning_from_labelled_patients_teaches(network, mine, tmp_path, monkeypatch):
    """What it learnt from it knows better at the end than in the first epoch, and than one who only counts classes."""
    monkeypatch.setattr(adapting, "numbers", lambda *arguments: [16])
    settings = SETTINGS | {"breakhis_schedule": "head:40"}
    run(network, tmp_path / "out", own=mine, profile="phantom", settings=settings, draws=1, report=silent)
    (head,) = read_adapting(tmp_path / "out")["head", 16]
    losses = head.history.groupby("epoch")["train_log_loss"].mean()
    assert losses.iloc[-1] < min(losses.iloc[0], np.log(2))
    assert head.record["dose"]["training_log_loss"] == pytest.approx(losses.iloc[-1], abs=1e-4)


def test_the_curve_is_the_mean_over_draws_with_intervals(runs):
    curve = learning_curve(runs).set_index(["run", "labelled", "metric"])
    single = []
    for one in runs["block4", 8]:
        malignant = one.predictions["logit_malignant"] >= one.predictions["logit_benign"]
        single.append(accuracy_score(one.predictions["truth"] == "malignant", malignant))
    row = curve.loc["block4", 8, "accuracy"]
    assert row["value"] == pytest.approx(np.mean(single))
    assert (row["least"], row["most"]) == (min(single), max(single))
    assert row["low"] < row["value"] < row["high"]
    assert (row["images"], row["patients"], row["draws"]) == (24, "12 + 12", 2)
    gains = gained(runs, ["accuracy"]).set_index(["run", "labelled", "metric"])
    before = curve.loc[BEFORE, 0, "accuracy"]["value"]
    assert gains.loc["block4", 8, "accuracy"]["value"] == pytest.approx(row["value"] - before)


def test_patients_are_labelled_balanced_by_class(make_table):
    images = [(f"b{i}", "benign") for i in range(3)] + [(f"m{i}", "malignant") for i in range(7)]
    table = make_table([image for image in images for _ in range(2)])
    orders = [labelling_order(table, (seed,)) for seed in range(20)]
    for order in orders:
        assert sorted(order) == sorted(set(table["group"]))
        assert [group[0] for group in order[:6]] == ["b", "m"] * 3
    assert len({tuple(order) for order in orders}) > 10


def test_a_patient_of_both_classes_counts_for_each(make_table):
    """As a slide of UCSB does: after one that has both, whoever comes next is as welcome."""
    table = make_table([("x", "benign"), ("x", "malignant"), ("y", "benign"), ("z", "malignant")])
    for seed in range(10):
        order = labelling_order(table, (seed,))
        held = {label for group in order[:2] for label in table.loc[table["group"] == group, "label"]}
        assert held == {"benign", "malignant"}


def test_numbers_double_up_to_what_every_fold_has(make_table):
    table = make_table([(f"{label}{i}", label) for label in ("benign", "malignant") for i in range(10)])
    config = ladder_config("phantom", {"folds": 5})
    folds = kept_apart(table, config)
    assert numbers(table, folds, 2) == [2, 4, 8, 16]
    assert np.sum(folds, axis=0).tolist() == [1] * 20
    assert numbers(
        table[table["group"].isin(["benign0", "malignant0", "malignant1"])], [np.array([True, False, False])], 2
    ) == [2]


def test_ucsb_is_adapted_to_by_slide(network, with_ucsb, tmp_path):
    run(network, tmp_path / "out", data_root=with_ucsb, profile="phantom", settings=SETTINGS, draws=1, report=silent)
    read = read_adapting(tmp_path / "out")
    (before,) = read[BEFORE, 0]
    assert before.record["data"]["name"] == "ucsb"
    assert set(before.predictions["group"]) == {f"ytma{number}" for number in range(1, 7)}


def test_what_cannot_be_adapted_to_is_one_line(network, mine, phantom_root, with_ucsb, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text(mine.read_text().replace("malignant", "loud"))
    for arguments, trouble in (
        ({}, "one of the two"),
        ({"own": mine, "data_root": phantom_root}, "one of the two"),
        ({"own": other}, r"its labels are benign, loud, and the network's classes benign, malignant"),
        ({"own": mine, "settings": {"folds": 13}}, "too few for 13 folds"),
        ({"own": mine, "settings": {"profile": "paper"}}, "choose it with --profile"),
        ({"own": phantom_root / "BreaKHis_v1", "pattern": "("}, "."),
    ):
        with pytest.raises(HistotransferError, match=trouble) as error:
            run(network, tmp_path / "out", profile="phantom", report=silent, **arguments)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_network_is_not_adapted_to_what_it_was_trained_on(mine, network, make_model, tmp_path):
    from histotransfer.models.description import describe
    from histotransfer.models.weights import load_model
    from histotransfer.records import fingerprint

    model, metadata = load_model(network)
    known = describe(metadata, network)
    task = foreign_task(known, ladder_config("phantom", {"size": 48}), None, mine)
    metadata["data"]["fingerprint"] = fingerprint(task.images, content_hashes(task.table))
    save_model(model, tmp_path / "model.safetensors", metadata)
    with pytest.raises(HistotransferError, match="trained on these very images"):
        run(tmp_path / "model.safetensors", tmp_path / "out", own=mine, profile="phantom", report=silent)


def test_a_folder_without_records_is_said_so(tmp_path):
    with pytest.raises(HistotransferError, match="holds no record of `histotransfer experiment adapt`"):
        read_adapting(tmp_path)

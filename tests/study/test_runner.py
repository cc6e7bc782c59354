import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from histotransfer.config import ladder_config
from histotransfer.datasets import breakhis, lc25000
from histotransfer.deploy.notes import UNLIKE
from histotransfer.deploy.predict import Predictor
from histotransfer.errors import HistotransferError
from histotransfer.records import PREDICTIONS, RECORD_KEYS, image_paths, read_run
from histotransfer.report.tables import read_experiment
from histotransfer.splits import grouped_split
from histotransfer.stain import normaliser
from histotransfer.study import runner, tasks
from histotransfer.study.runner import RUNS, model_description, run_arm, run_ladder
from histotransfer.study.tasks import external_task, target_task

SETTINGS = {"size": 48, "lc25000_schedule": "head:1,block4:1", "breakhis_schedule": "head:1,block4:1", "seed": 1}
pytestmark = pytest.mark.usefixtures("small_network")
COLUMNS = ["image", "patient", "group", "magnification", "subtype", "part", "fold", "seed", "truth"]


def run(phantom_root, out, **settings):
    lines = []
    run_ladder(ladder_config("phantom", SETTINGS | settings), phantom_root, out, report=lines.append)
    return lines


@pytest.fixture(scope="module")
def lines_and_folder(phantom_root, tmp_path_factory):
    """A run with a cache of its own: a training that another test left in it would not be reported again."""
    folder, cache = tmp_path_factory.mktemp("results") / "tiny", tmp_path_factory.mktemp("empty-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HISTOTRANSFER_CACHE", str(cache))
        return run(phantom_root, folder), folder


@pytest.fixture(scope="module")
def runs(lines_and_folder):
    return {name: read_run(lines_and_folder[1] / name) for name in RUNS}


def test_the_runs_and_each_stage_are_written_and_nothing_else(lines_and_folder):
    _, folder = lines_and_folder
    names = ["frozen-probe", "ladder", "ladder-after-head", "lc25000", "majority"]
    assert sorted(path.name for path in folder.iterdir()) == names
    models = [path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")]
    assert models == ["ladder/model.safetensors"]


def test_the_network_knows_its_training_images_by_its_validation_images(lines_and_folder, runs, phantom_root):
    predictor = Predictor(lines_and_folder[1] / "ladder" / "model.safetensors")
    known, predictions = predictor.familiarity, runs["ladder"].predictions
    validation = predictions[predictions["part"] == "validation"]
    unlike = [UNLIKE in found.note for found in predictor.predict(image_paths(validation["image"], phantom_root))]
    assert np.mean(unlike) == pytest.approx(known.false_alarms, abs=1.5 / len(validation))


def test_a_run_of_a_plan_writes_no_network(phantom_root, tmp_path):
    run_arm(ladder_config("phantom", SETTINGS | {"source": "none"}), phantom_root, tmp_path, "arm", report=print)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_every_step_is_reported(lines_and_folder):
    lines, _ = lines_and_folder
    trunk = runner.imagenet_trunk()
    assert lines[0] == f"ImageNet weights: {trunk.source}, content hash {trunk.content_hash[:12]}"
    assert lines[1].split()[:7] == ["40x", "100x", "200x", "400x", "all", "patients", "groups"]
    starts = [line.split(":")[0] for line in lines[2:]]
    stages = [[f"{task}, head", f"{task}, block4"] for task in ("lc25000", "breakhis")]
    assert starts == ["majority", "frozen-probe", *stages[0], "lc25000", *stages[1], "ladder-after-head", "ladder"]


@pytest.mark.parametrize("name", RUNS)
def test_records_have_the_documented_keys(runs, name):
    record, trunk = runs[name].record, runner.imagenet_trunk()
    assert set(record) == set(RECORD_KEYS)
    assert (record["experiment"], record["run"], record["profile"], record["seed"]) == ("tiny", name, "phantom", 1)
    assert record["data"]["name"] == ("lc25000" if name == "lc25000" else "breakhis")
    assert record["config"]["imagenet"] == {"source": trunk.source, "content_hash": trunk.content_hash}
    assert record["config"]["breakhis_schedule"] == [["head", 1], ["block4", 1]]
    assert set(record["metrics"]) == {"validation", "test"}
    assert all(count == 0 for shared in record["split"]["audit"].values() for count in shared.values())
    assert sum(record["split"]["parts"].values()) == record["data"]["images"]
    assert runs[name].provenance["total_seconds"] > 0


def test_predictions_are_those_of_the_split(runs, phantom_root):
    split = grouped_split(breakhis.load(phantom_root), seed=1)
    evaluated = split[split["split"] != "train"]
    for name in ("majority", "frozen-probe", "ladder"):
        predictions = runs[name].predictions
        assert list(predictions.columns) == [*COLUMNS, "logit_benign", "logit_malignant"]
        assert set(predictions["image"]) == {Path(path).name for path in evaluated["path"]}
        assert not predictions["image"].duplicated().any()
        found = predictions.assign(path=image_paths(predictions["image"], phantom_root))
        joined = found.merge(evaluated, on="path", suffixes=("", "_true"), validate="one_to_one")
        assert (joined["truth"] == joined["label"]).all()
        assert (joined["part"] == joined["split"]).all()
        for column in ("patient", "group", "magnification", "subtype"):
            assert (joined[column] == joined[f"{column}_true"]).all(), column
    assert read_experiment(runs["ladder"].folder.parent, ["majority", "frozen-probe", "ladder"])


def test_the_source_task_is_evaluated_on_its_own_classes(runs):
    predictions = runs["lc25000"].predictions
    assert list(predictions.columns) == [*COLUMNS, *(f"logit_{label}" for label in lc25000.LABELS)]
    assert set(predictions["truth"]) == set(lc25000.LABELS)
    assert set(runs["lc25000"].record["metrics"]["test"]["image"]) == {"all"}


def test_training_images_of_a_group_are_limited(runs, phantom_root):
    split = grouped_split(lc25000.load(phantom_root), seed=1)
    train = split[split["split"] == "train"]
    parts = runs["lc25000"].record["split"]["parts"]
    assert parts["train"] == 2 * train["group"].nunique() < len(train)
    assert parts["test"] == (split["split"] == "test").sum()


def test_the_majority_baseline_is_chance(runs):
    metrics = runs["majority"].record["metrics"]["test"]["image"]["all"]
    assert (metrics["auroc"], metrics["balanced_accuracy"]) == (0.5, 0.5)
    train = runs["majority"].record["split"]["parts"]["train"]
    logits = runs["majority"].predictions[["logit_benign", "logit_malignant"]].drop_duplicates().to_numpy()
    shares = np.exp(logits[0])
    assert shares.sum() == pytest.approx(1)
    assert shares * train == pytest.approx(np.round(shares * train), abs=1e-3)


def test_history_has_a_row_an_epoch_of_every_stage(runs):
    history = runs["ladder"].history
    rows = [(task, stage, 1) for task in ("lc25000", "breakhis") for stage in ("head", "block4")]
    assert list(history[["dataset", "stage", "epoch"]].itertuples(index=False, name=None)) == rows
    assert np.isfinite(history[["train_loss", "validation_log_loss", "validation_accuracy"]]).all(axis=None)
    assert runs["majority"].history.empty
    assert len(runs["lc25000"].history) == 2
    assert len(runs["ladder"].provenance["stage_seconds"]) == 4


def test_an_equal_run_writes_equal_files(lines_and_folder, phantom_root, tmp_path):
    _, folder = lines_and_folder
    run(phantom_root, tmp_path / "tiny")
    for name in RUNS:
        for file in ("record.json", "history.csv", PREDICTIONS):
            assert (tmp_path / "tiny" / name / file).read_bytes() == (folder / name / file).read_bytes(), (name, file)


def test_the_fingerprint_says_which_images_wherever_they_lie(runs, phantom_root):
    lines = [
        f"{path.relative_to(phantom_root).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        for path in phantom_root.rglob("*.png")
    ]
    expected = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    for name in ("majority", "frozen-probe", "ladder"):
        assert runs[name].record["data"]["fingerprint"] == expected


def test_the_record_does_not_know_where_it_was_made(runs, phantom_root):
    for name in RUNS:
        record = json.dumps(runs[name].record)
        assert str(phantom_root) not in record
        assert not runs[name].predictions["image"].str.startswith("/").any()


def test_out_that_is_a_file_is_refused_before_anything_runs(phantom_root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HistotransferError, match="file: is a file; give a folder"):
        run_ladder(ladder_config("phantom"), phantom_root, tmp_path / "file", report=pytest.fail)


def test_missing_weights_are_said_before_anything_runs(phantom_root, tmp_path):
    config = ladder_config("phantom", {"weights": str(tmp_path / "none.pth")})
    with pytest.raises(HistotransferError, match=r"none\.pth: no such weights file"):
        run_ladder(config, phantom_root, tmp_path / "out", report=pytest.fail)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_the_data_sets_is_refused(tmp_path):
    with pytest.raises(HistotransferError, match="holds no BreaKHis_v1"):
        run_ladder(ladder_config("phantom"), tmp_path, tmp_path / "out", report=lambda line: None)


OWN = SETTINGS | {"breakhis_schedule": "head:1", "folds": 3, "normaliser": "none"}


@pytest.fixture
def own_csv(tmp_path):
    """A small foreign data set: 12 patients with two square pictures each, labels of their own."""
    generator = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    lines = ["path,label,patient"]
    for i in range(24):
        patient, label = i // 2, ("clear", "dark")[i // 2 % 2]
        picture = generator.integers(0, 120, (64, 64, 3)) + (120 if label == "clear" else 0)
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / f"pictures/{i}.png")
        lines.append(f"pictures/{i}.png,{label},P{patient}")
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "mine.csv"


def test_ones_own_images_are_learned_and_predicted(own_csv, tmp_path):
    lines = []
    folder = run_ladder(ladder_config("phantom", OWN), None, tmp_path / "out", own=own_csv, report=lines.append)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["frozen-probe", "ladder", "majority"]
    (table,) = (line for line in lines if "patients" in line and "\n" in line)  # before anything is trained
    assert [row.split() for row in table.splitlines()[-3:]] == [
        ["clear", "12", "6", "6"],
        ["dark", "12", "6", "6"],
        ["all", "24", "12", "12"],
    ]
    assert lines.index(table) < min(i for i, line in enumerate(lines) if "accuracy" in line)
    record = read_run(folder).record
    assert record["data"]["name"] == "own" and record["data"]["patients"] == 12
    probe = read_run(folder.parent / "frozen-probe")
    assert list(probe.predictions.filter(like="logit_")) == ["logit_clear", "logit_dark"]
    assert probe.record["metrics"]["test"]["image"]["all"]["auroc"] == 1  # brightness tells them apart
    (prediction,) = Predictor(folder / "model.safetensors").predict([tmp_path / "pictures/0.png"])
    assert prediction.label in ("clear", "dark")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", None], ids=["empty", "text", "head", "cut"])
def test_a_bad_square_picture_stops_training_in_one_line(own_csv, tmp_path, content):
    bad = tmp_path / "pictures/7.png"
    bad.write_bytes(bad.read_bytes()[:500] if content is None else content)
    with pytest.raises(HistotransferError, match=r"mine\.csv: .*pictures/7\.png: ") as error:
        target_task(ladder_config("phantom", OWN), None, own_csv)
    assert "\n" not in str(error.value)


def test_one_label_is_not_a_task(own_csv):
    own_csv.write_text(own_csv.read_text().replace("dark", "clear"))
    with pytest.raises(HistotransferError, match="only the label clear; two classes at least"):
        run_ladder(ladder_config("phantom", OWN), None, own_csv.parent / "out", own=own_csv)


def test_a_leaking_split_needs_leave_and_the_record_says_so(phantom_root, tmp_path):
    leaking = SETTINGS | {"split": "image", "breakhis_schedule": "head:1", "lc25000_schedule": "head:1"}
    with pytest.raises(HistotransferError, match=r"breakhis: the split leaks .* say allow_leakage=true"):
        run_ladder(ladder_config("phantom", leaking), phantom_root, tmp_path / "refused", report=str)
    assert not (tmp_path / "refused").exists()
    allowed = ladder_config("phantom", leaking | {"allow_leakage": True})
    record = read_run(run_ladder(allowed, phantom_root, tmp_path / "allowed", report=str)).record
    assert record["config"]["allow_leakage"] is True and record["split"]["kind"] == "image"
    assert record["split"]["audit"]["test/train"]["groups"] > 0
    assert read_run(tmp_path / "allowed/lc25000").record["split"]["kind"] == "patient"


# --- a study's runs


def arm(with_ucsb, out, name="arm", method="ladder", **settings):
    config = ladder_config("phantom", SETTINGS | {"source": "none", "breakhis_schedule": "head:1,block4:1"} | settings)
    return read_run(run_arm(config, with_ucsb, out, name, method, report=lambda line: None))


@pytest.fixture(scope="module")
def plain(with_ucsb, tmp_path_factory):
    """What the arms below differ from in one setting each."""
    return arm(with_ucsb, tmp_path_factory.mktemp("plain"))


def test_the_provenance_has_the_threads_that_the_run_had(with_ucsb, tmp_path):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        run = arm(with_ucsb, tmp_path, method="majority", threads=2)
        assert run.provenance["hardware"]["threads"] == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_arm_predicts_an_external_set_that_nothing_was_chosen_on(with_ucsb, plain, tmp_path):
    run = arm(with_ucsb, tmp_path / "arms", external=True)
    outside = run.predictions[run.predictions["part"] == "ucsb"]
    assert sorted(outside["image"]) == sorted(path.name for path in (with_ucsb / "UCSB_breast").iterdir())
    assert run.record["metrics"]["ucsb"]["image"]["all"]["images"] == 6
    assert run.record["split"]["parts"].keys() == {"train", "validation", "test"}
    inside = run.predictions[run.predictions["part"] != "ucsb"].reset_index(drop=True)
    assert inside.equals(plain.predictions)
    assert not list((tmp_path / "arms").rglob("*.safetensors"))
    first = read_run(tmp_path / "arms" / "arm-after-head")
    assert len(first.history) == 1
    assert set(first.predictions["part"]) == {"validation", "test"}


def test_colours_of_the_training_images_are_those_of_every_other_part_too(with_ucsb, tmp_path):
    settings = {"normaliser": "reinhard", "normaliser_reference": "training", "source": "none"}
    config = ladder_config("phantom", SETTINGS | settings)
    last = target_task(config, with_ucsb)
    assert external_task(last, config, with_ucsb).colours is last.colours
    described = model_description(last, config, runner.imagenet_trunk(config.weights))
    assert normaliser("reinhard", described["reference"]).fingerprint() == last.colours.fingerprint()
    published = ladder_config("phantom", SETTINGS | {"normaliser": "reinhard", "source": "none"})
    assert target_task(published, with_ucsb).colours.fingerprint() == normaliser("reinhard").fingerprint()


def test_the_training_part_is_predicted_when_overfitting_is_to_be_measured(with_ucsb, plain, tmp_path):
    run = arm(with_ucsb, tmp_path, record_training=True, record_stages=False)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir() and path.name[0] != "."] == ["arm"]
    parts = run.predictions["part"].value_counts()
    assert parts.to_dict() == run.record["split"]["parts"]
    assert run.predictions.query("part != 'train'").reset_index(drop=True).equals(plain.predictions)
    learnt = run.record["metrics"]["train"]["image"]["all"]
    assert learnt["log_loss"] == pytest.approx(plain.history["train_loss"].iloc[-1], abs=0.5)


def test_fewer_views_are_predicted_by_the_same_network(with_ucsb, plain, tmp_path):
    run = arm(with_ucsb, tmp_path, record_views=[1, 2], average_views=True, record_stages=False)
    upright = read_run(tmp_path / "arm-with-1-views")
    assert upright.predictions.equals(plain.predictions)  # which averages none
    two = read_run(tmp_path / "arm-with-2-views").predictions["logit_malignant"]
    assert not np.allclose(two, upright.predictions["logit_malignant"], atol=1e-6)
    assert not np.allclose(two, run.predictions["logit_malignant"], atol=1e-6)
    with pytest.raises(HistotransferError, match="5 views are to be averaged, but augmentation=views has 4"):
        arm(with_ucsb, tmp_path, record_views=[5], average_views=True)


def test_a_rehearsal_predicts_no_test_patient(with_ucsb, plain, tmp_path):
    run = arm(with_ucsb, tmp_path, rehearsal=True, average_views=True)
    assert set(run.predictions["part"]) == set(run.record["metrics"]) == {"validation"}
    seen = plain.predictions.query("part == 'validation'").reset_index(drop=True)
    assert run.predictions["image"].tolist() == seen["image"].tolist()
    assert not np.allclose(run.predictions["logit_malignant"], seen["logit_malignant"], atol=1e-6)  # other views too


def test_an_external_set_needs_its_own_classes(with_ucsb, tmp_path):
    with pytest.raises(HistotransferError, match=r"^external: UCSB is predicted by networks that tell benign from"):
        arm(with_ucsb, tmp_path, external=True, target="subtype")


def test_subtypes_are_learnt_on_the_same_split_by_patient(with_ucsb, plain, tmp_path):
    run = arm(with_ucsb, tmp_path, target="subtype")
    assert run.predictions["image"].tolist() == plain.predictions["image"].tolist()
    assert (run.predictions["truth"] == run.predictions["subtype"]).all()
    names = sorted(set(breakhis.load(with_ucsb)["subtype"]))
    assert [column for column in run.predictions if column.startswith("logit_")] == [f"logit_{n}" for n in names]


def test_only_some_magnifications_are_trained_on_and_all_are_tested(with_ucsb, plain, tmp_path):
    run = arm(with_ucsb, tmp_path, train_magnifications="40,100")
    seen = run.predictions.groupby("part")["magnification"].agg(set)
    assert seen["validation"] == {40, 100}
    assert seen["test"] == {40, 100, 200, 400}
    test = [own.predictions.query("part == 'test'")["image"].tolist() for own in (run, plain)]
    assert test[0] == test[1]
    with pytest.raises(HistotransferError, match=r"^train_magnifications: no training image is of 50; there are 40, "):
        arm(with_ucsb, tmp_path, train_magnifications="50")


def test_a_baseline_of_a_study_is_the_ladders(with_ucsb, runs, tmp_path):
    own = arm(with_ucsb, tmp_path, "probe", "frozen-probe", source="lc25000")
    assert own.predictions["logit_malignant"].tolist() == runs["frozen-probe"].predictions["logit_malignant"].tolist()


def test_synthetic_tissue_can_be_the_source_task(with_ucsb, phantom_root, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "resolve_root", lambda name, seed: {("phantom", 1): phantom_root}[name, seed])
    run = arm(with_ucsb, tmp_path, source="phantom", lc25000_schedule="head:1")
    assert run.history["dataset"].tolist() == ["phantom", "breakhis", "breakhis"]


def test_a_network_from_scratch_has_no_imagenet_in_it(with_ucsb, tmp_path):
    scratch = arm(with_ucsb, tmp_path, start="scratch", breakhis_schedule="all:1", se_gate="standard")
    assert scratch.record["config"]["start"] == "scratch"
    other = arm(with_ucsb, tmp_path, "other", breakhis_schedule="all:1", se_gate="standard")
    assert scratch.predictions["logit_benign"].tolist() != other.predictions["logit_benign"].tolist()


@pytest.mark.parametrize(
    "settings", [{"augmentation": "none"}, {"augmentation": "views+stain"}, {"unfreeze": "batchnorm"}]
)
def test_every_variant_of_training_leaves_a_record_of_its_own(with_ucsb, plain, tmp_path, settings):
    run = arm(with_ucsb, tmp_path, "variant", **settings)
    assert run.record["config"] | settings == run.record["config"]
    assert run.predictions["logit_benign"].tolist() != plain.predictions["logit_benign"].tolist()

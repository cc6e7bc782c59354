import shutil

import numpy as np
import pytest
import torch

from histotransfer.datasets import breakhis
from histotransfer.deploy.notes import UNLIKE
from histotransfer.deploy.predict import Predictor
from histotransfer.deploy.shipping import ship
from histotransfer.evaluation.familiarity import NEIGHBOURS
from histotransfer.evaluation.formatting import number
from histotransfer.models.weights import load_model
from histotransfer.report.coverage_of_sets import calibrated_sets, coverage_of_sets
from histotransfer.report.selection import select
from histotransfer.report.study import NotRunYet, Study
from histotransfer.report.tables import of_single_networks
from histotransfer.report.views import views_averaged
from histotransfer.study.execution import run_plan
from histotransfer.study.plan import planned_runs, read_plan
from histotransfer.study.runner import train_unrecorded

pytestmark = pytest.mark.slow


def silent(line):
    """Report nothing."""


@pytest.fixture(scope="module")
def shipped(small_network, with_ucsb, tmp_path_factory):
    """A study with two tiny recipes, done, and the network that ships; and the files."""
    tmp_path = tmp_path_factory.mktemp("shipped")
    plans = tmp_path / "study"
    plans.mkdir()
    (plans / "claims.toml").write_text("[claims]\n[rule]\nmargin = 0.5\n")
    head = 'answers = []\nprofile = "phantom"\nminutes = 1\nfolds = [0, 1, 2, 3, 4]\nseeds = [2]\n'
    settings = (
        '[settings]\nsize = 48\nsource = "none"\nrecord_stages = false\nnormaliser = "none"\naverage_views = true\n'
        'breakhis_schedule = "head:1"\nbatch_size = 8\n'
    )
    (plans / "selection.toml").write_text(
        f'experiment = "selection"\nvalidation_offsets = [1, 2]\nbaselines = ["frozen-probe"]\n{head}{settings}'
        "external = true\n[arms.one]\n[arms.other]\nlearning_rate = 0.1\n"
    )
    (plans / "views.toml").write_text(f'experiment = "views"\n{head}{settings}[arms.plain]\nrecord_views = [1]\n')
    for name in ("selection", "views"):
        run_plan(read_plan(plans / f"{name}.toml"), with_ucsb, tmp_path / "results", report=silent)
    study = Study(plans, tmp_path / "results")
    return study, ship(study, with_ucsb, tmp_path / "models", report=silent)


def test_the_network_that_ships_was_trained_on_everybody_and_is_small(shipped, phantom_root):
    _, (path, card) = shipped
    model, description = load_model(path)
    assert description["config"]["split"] == "none"
    assert description["data"]["images"] == len(breakhis.load(phantom_root))
    assert path.stat().st_size < 16e6
    assert next(model.parameters()).dtype == torch.float32
    assert "every patient of these images was trained on" in card.read_text()
    assert sorted(file.name for file in path.parent.iterdir()) == ["final.safetensors", "final.safetensors.md"]


def test_the_card_is_that_of_one_network_of_the_chosen_recipe(shipped):
    study, (_, card) = shipped
    said, chosen = card.read_text(), select(study)
    table = of_single_networks("network", chosen.networks)
    for metric in ("auroc", "accuracy"):
        row = table[(table["metric"] == metric) & (table["magnification"] == "mean")].iloc[0]
        assert number(row["value"], row["low"], row["high"]) in said
    for tables in (chosen.networks, chosen.calibrated()):
        row = of_single_networks("network", tables).query("metric == 'log_loss' and magnification == 'mean'").iloc[0]
        assert number(row["value"], row["low"], row["high"]) in said
    assert "mean of 4 networks, each alone" in said
    assert all(f"{arm} for fold {fold}" in said for fold, arm in chosen.chosen.items())
    assert f"temperature of {chosen.temperature:.2f}" in said


def test_what_happens_elsewhere_is_in_the_first_lines(shipped):
    study, (_, card) = shipped
    runs = study.runs("selection", select(study).ships)
    outside = [run.predictions.query("part == 'ucsb'") for run in runs]
    called = np.mean([(own["logit_malignant"] >= own["logit_benign"]).mean() for own in outside])
    said = f"Of 6 fields of UCSB 50% are malignant; networks of this recipe called {called:.0%} malignant"
    assert said in card.read_text().split("## Network")[0]


def test_the_temperature_is_in_the_weights(shipped, with_ucsb, tmp_path):
    """Whoever loads the file gets calibrated logits: those of the same network, divided by the temperature."""
    study, (path, _) = shipped
    chosen = select(study)
    run = next(run for run in planned_runs(study.plan("selection")) if run.arm == chosen.ships)
    config = run.config.model_copy(update={"split": "none", "fold": 0, "external": False})
    raw, _, _ = train_unrecorded(config, with_ucsb, tmp_path, report=silent)
    model, description = load_model(path)
    x = torch.rand(4, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = raw.eval()(x) / chosen.temperature
        np.testing.assert_allclose(model.eval()(x), expected, atol=0.02)  # stored as float16
    assert description["temperature"] == pytest.approx(chosen.temperature, abs=1e-4)


def test_it_says_what_is_unlike_its_training_pictures_and_when_it_cannot_tell(shipped, phantom_root):
    study, (path, card) = shipped
    predictor, said = Predictor(path), card.read_text()
    assert predictor.familiarity.false_alarms == pytest.approx(0.05, abs=0.02)
    files = breakhis.load(phantom_root)["path"][::4]
    assert np.mean([UNLIKE in found.note for found in predictor.predict(files)]) <= 0.05  # it was trained on them
    networks = select(study).calibrated()
    assert predictor.description.sets == calibrated_sets(networks)
    table = coverage_of_sets(networks, "patient").loc["malignant"]
    assert f"| patient | malignant | {number(table.covered, table.low, table.high)} |" in said
    assert f"of the {NEIGHBOURS} nearest training pictures than 95% of the pictures of held-out patients" in said


def test_it_averages_as_many_views_as_the_rule_chooses(shipped):
    """The margin of the test's rule is so wide that one view does."""
    study, (path, card) = shipped
    assert views_averaged(study, "views") == 1
    assert load_model(path)[1]["views"] == {"views": 4, "augmentation": "views", "averaged": 1}
    assert Predictor(path).views == 1
    said = "that of the picture upright; for the metrics below, the mean of the logits of 4 symmetric views"
    assert said in card.read_text()


def test_the_network_that_ships_predicts(shipped, phantom_root):
    _, (path, _) = shipped
    table = breakhis.load(phantom_root)
    found = list(Predictor(path).predict(table["path"][:4]))
    assert [result.label in breakhis.LABELS for result in found] == [True] * 4


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("selection/one-s2-f1-v2", "selection, arm one: 1 of 10 runs are not there yet"),
        ("views/plain-s2-f1-with-1-views", "views, arm plain: 1 of 5 runs are not there yet"),
    ],
)
def test_nothing_ships_before_its_recipe_and_its_views_were_chosen(shipped, phantom_root, tmp_path, missing, said):
    study = Study(shipped[0].study, tmp_path / "results")
    shutil.copytree(shipped[0].results, study.results)
    shutil.rmtree(study.results / missing)
    with pytest.raises(NotRunYet, match=said):
        ship(study, phantom_root, tmp_path / "others", report=silent)
    assert not (tmp_path / "others").exists()

import pytest

from histotransfer.records import read_run
from histotransfer.report.doses import asked, by_run, in_words, is_short, not_given, read_rule, treatments_of, typical

from .conftest import GIVEN, STUDY

RULE = read_rule(STUDY)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_runs):
    """One run of each arm of the primary experiment, by arm."""
    folder = tmp_path_factory.mktemp("results")
    write_runs(folder, "primary", {"plain": 0, "se": 0, "plain-lung": 0, "se-lung": 0})
    return {arm: read_run(folder / "primary" / f"{arm}-s0-f0") for arm in ("plain", "se", "plain-lung", "se-lung")}


def with_dose(run, **dose):
    from dataclasses import replace

    return replace(run, record={**run.record, "dose": {**GIVEN, **dose}})


def test_an_arms_treatments_follow_from_its_settings(runs):
    always = {"fine-tuning", "views"}
    assert treatments_of(runs["plain"].record["config"]) == always
    assert treatments_of(runs["se"].record["config"]) == {*always, "gates"}
    assert treatments_of(runs["plain-lung"].record["config"]) == {*always, "lung"}
    assert treatments_of({**runs["plain"].record["config"], "normaliser": "macenko"}) == {*always, "colours"}


@pytest.mark.parametrize(
    ("treatment", "dose"),
    [
        ("gates", {"gates": {"distance": 0.049, "spread": 0.5}}),
        ("gates", {"gates": {"distance": 0.5, "spread": 0.009}}),
        ("gates", {"gates": {}}),
        ("fine-tuning", {"moved": {"block3": 0.5, "block4": 0.049}}),
        ("fine-tuning", {"moved": {"block3": 0.019, "block4": 0.5}}),
        ("fine-tuning", {"training_log_loss": 0.21}),
        ("fine-tuning", {"training_log_loss": None}),
        ("lung", {"source": {"accuracy": 0.89, "cka": 0.5}}),
        ("lung", {"source": {"accuracy": 0.99, "cka": 0.96}}),
        ("lung", {"source": {"accuracy": 0.99, "cka": None}}),
        ("colours", {"colours": {"changed": 0.79, "distance": 9}}),
        ("colours", {"colours": {"changed": 1, "distance": 2.9}}),
        ("views", {"views": {"drawn": 3.4, "of": 4}}),
    ],
)
def test_each_dose_below_its_threshold_is_short(runs, treatment, dose):
    assert not is_short(runs["se-lung"], treatment, RULE["dose"][treatment])
    assert is_short(with_dose(runs["se-lung"], **dose), treatment, RULE["dose"][treatment])


def test_a_treatment_is_missing_when_more_than_one_run_of_five_is_short_of_it(runs):
    full, short = runs["se"], with_dose(runs["se"], gates={"distance": 0.001, "spread": 0.0001})
    assert not_given([[full] * 4 + [short]], ["gates"], RULE) == []
    assert not_given([[full] * 3 + [short] * 2], ["gates"], RULE) == ["gates"]
    # Runs without gates do not water an arm down, and one starved arm is enough.
    assert not_given([[runs["plain"]] * 5, [full] * 5, [short] * 5], ["gates"], RULE) == ["gates"]


def test_only_a_claim_at_a_fixed_budget_is_spared_the_training_log_loss(runs):
    slow = with_dose(runs["plain"], training_log_loss=0.4)
    for claim, missing in (("C2", ["fine-tuning"]), ("C3b", []), ("C4a", []), ("C5", [])):
        assert not_given([[slow]], ["fine-tuning"], asked(RULE["claims"][claim], RULE)) == missing, claim
    still = with_dose(runs["plain"], training_log_loss=0.4, moved={"block3": 0.0, "block4": 0.0})
    assert not_given([[still]], ["fine-tuning"], asked(RULE["claims"]["C3b"], RULE)) == ["fine-tuning"]


def test_doses_are_told_in_words(runs):
    doses = typical([[runs["plain"]], [runs["se-lung"]]], ["gates", "fine-tuning", "lung"])
    assert in_words(doses) == (
        "gates 0.30 from 1, spread 0.030; block 4 moved by 25%, block 3 by 9%; LC25000 accuracy 0.96, CKA 0.50"
    )
    assert typical([[runs["plain"]]], ["gates"]) == {}


def test_every_run_with_a_treatment_stands_beside_what_the_rule_asks(runs):
    arms = {arm: [run, with_dose(run, gates={})] for arm, run in runs.items()}
    table = by_run(arms, ["gates", "lung"], RULE)
    counts = table.groupby(["treatment", "measure", "arm"]).size().to_dict()
    gates, lung = ("se", "se-lung"), ("plain-lung", "se-lung")
    assert counts == {
        **{("gates", measure, arm): 2 for measure in ("distance", "spread") for arm in gates},
        **{("lung", measure, arm): 2 for measure in ("accuracy", "cka") for arm in lung},
    }
    distances = table.query("measure == 'distance' and arm == 'se'")["value"]
    assert distances.iloc[0] == GIVEN["gates"]["distance"] and distances.isna().iloc[1]
    assert table.groupby("measure")["threshold"].first()["cka"] == RULE["dose"]["lung"]["cka"]
    assert set(table.loc[table["at_most"], "measure"]) == {"cka"}

from pathlib import Path

import pandas as pd
import pytest

from histotransfer.evaluation.formatting import number
from histotransfer.evaluation.intervals import intervals
from histotransfer.evaluation.metrics import MEAN_OVER
from histotransfer.report.answers import answers
from histotransfer.report.rehearsal import rehearsal_patients
from histotransfer.report.study import NotRunYet, Study
from histotransfer.report.summary import (
    ENDS,
    attention,
    bar,
    caption,
    colours,
    convergence,
    larger_class,
    measured,
    picture,
    recipe,
    tally,
    verdicts,
    write_summary,
)
from histotransfer.report.tables import gap, with_intervals, within_folds, without
from histotransfer.study.plan import planned_runs, read_plan

STUDY = Path(__file__).parents[2] / "study"
BETTER = {"frozen-probe": 0, "wide-probe": 0.5, "se-lung": 1, "final": 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory, write_arms, make_predictions, write_made_run):
    folder = tmp_path_factory.mktemp("results")
    by_split = {f"{name}-{at}": shift for name, shift in (("patient", 0), ("image", 2)) for at in MEAN_OVER}
    write_arms(folder, "leakage-trained", by_split)
    for experiment in ("primary", "final", "wide-probe"):
        write_arms(folder, experiment, BETTER)
    table = make_predictions(patients=4, images=8, magnifications=MEAN_OVER, part="validation")
    for run in planned_runs(read_plan(STUDY / "rehearsal.toml")):
        if run.arm == "base":
            write_made_run(folder / "rehearsal" / run.name, predictions=table.assign(fold=run.config.fold))
    return Study(STUDY, folder)


@pytest.fixture(scope="module")
def table(study):
    """What the table of verdicts is written from."""
    return answers(study)


@pytest.fixture(scope="module")
def probed(study):
    """Both remarks on the probe."""
    return {say: say(study) for say in (bar, recipe)}


def test_the_table_has_a_line_an_answer(study, table):
    head, _, *lines = verdicts(study, table).splitlines()
    assert head.count("|") == 6 and all(line.count("|") == 6 for line in lines)
    assert len(lines) == len(table)
    for line, (claim, row) in zip(lines, table.iterrows(), strict=True):
        assert line.startswith(f"| {claim}")
        assert row["verdict"] in line and row["result"] in line


def test_the_tally_counts_verdicts_without_what_is_added_to_them():
    verdicts = ["undecided", "undecided; magnitude consistent", "contradicted here, as one float32 network"]
    said = tally(pd.DataFrame({"verdict": verdicts}))
    assert "Of the 3 lines of {numref}`tab-summary`: 2 **undecided**, 1 **contradicted here**. " in said


def test_what_a_claim_has_in_common_is_said_once(study, table):
    lines = [line for line in verdicts(study, table).splitlines() if line.startswith("| C1")]
    assert lines[0].startswith("| C1: more than 84 % test accuracy, benign against malignant, at 40x |")
    assert [line.split(" | ")[0] for line in lines[1:]] == ["| C1, at 100x", "| C1, at 200x", "| C1, at 400x"]
    assert [line.split(" | ")[3] == "as above" for line in lines] == [False, True, True, True]


def test_the_figure_shows_both_splits_beside_the_claim(study):
    figure = picture(study, measured(study))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["split by patient", "split by image", "claimed: 0.84", "larger class"]
    assert "stands at 0.84." in figure.alt and "split by image" in figure.alt
    shares = larger_class(study)
    assert shares.index.tolist() == ["40", "100", "200", "mean"] and shares.between(0.5, 1).all()
    assert figure.alt.endswith(f"mean {shares['mean']:.2f}.")


def test_the_caption_has_the_numbers_of_the_records(study):
    table = with_intervals({"a": study.within("leakage-trained", "image")}).set_index(["magnification", "metric"])
    said = caption(study, measured(study))
    assert f"split by image {number(*table.loc[('mean', 'accuracy'), ENDS])}: mean" in said
    pair = (study.within("leakage-trained", split) for split in ("patient", "image"))
    paired = gap(*pair).query("magnification == 'mean' and metric == 'accuracy'").iloc[0]
    assert f"by image minus by patient: {number(*paired[ENDS])};" in said


def test_the_remark_on_colours_has_the_verdicts_on_colours_as_scanned(study, monkeypatch):
    with pytest.raises(NotRunYet, match="colour"):
        colours(study)
    tables = {"colour": study.pooled("primary", "se-lung"), "final": study.pooled("final", "final")}
    monkeypatch.setattr(study, "pooled", lambda experiment, arm: tables[experiment])
    said = colours(study)
    for name, run in (("one seed)", tables["colour"]), ("below", tables["final"])):
        each = []
        for magnification in (40, 100, 200):
            own = run.predictions[run.predictions["magnification"] == magnification]
            _, low, high = intervals(own).loc["accuracy"]
            found = "supported here" if low >= 0.84 else "contradicted here" if high < 0.84 else "undecided"
            each.append(f"{magnification}x {found}")
        assert f"{name}: {', '.join(each)}" in said


def test_the_remark_on_attention_has_the_gate_that_moved_most(study):
    folder = study.results / "gates"
    with pytest.raises(NotRunYet, match="gates"):
        attention(study)
    folder.mkdir()
    (folder / "gates.csv").write_text("gate,lowest,highest\na,0.998,1.001\nb,1,1\n")
    assert "than 0.002. " in attention(study)


def test_the_remark_on_convergence_counts_the_runs_that_validate_on_one_class(study, monkeypatch):
    with pytest.raises(NotRunYet, match="scratch"):
        convergence(study)
    for alike, said in ((4, "In 4 of 5 runs of each arm all validation"), (0, "")):
        table = pd.DataFrame({"one_class": alike, "runs": 5}, index=["scratch", "imagenet"])
        monkeypatch.setattr("histotransfer.report.summary.judge_convergence", lambda study, table=table: table)
        assert said in convergence(study) and bool(said) == bool(convergence(study))


@pytest.mark.parametrize(("experiment", "arm", "say"), [("primary", "se-lung", bar), ("final", "final", recipe)])
def test_the_remark_on_the_probe_has_the_paired_difference_from_it(study, probed, experiment, arm, say):
    tables = (with_intervals({"a": study.pooled(experiment, name)}) for name in ("frozen-probe", arm))
    probe, ours = (own[own["magnification"] == "mean"].set_index("metric")["value"] for own in tables)
    names = {"auroc": "AUROC", "accuracy": "accuracy"} | ({"log_loss": "log-loss"} if say is recipe else {})
    for metric, name in names.items():
        assert abs(ours[metric] - probe[metric]) > 0.005
        assert f"{name} {ours[metric] - probe[metric]:.2f} [" in probed[say]


def test_the_remark_on_the_recipe_has_its_difference_within_folds(study, probed):
    assert rehearsal_patients(study) == {f"14-{patient}" for patient in range(4)}
    for left_out, said in ((set(), "Within folds AUROC differs by"), (rehearsal_patients(study), ", within folds")):
        arms = ("frozen-probe", "final")
        tables = within_folds({arm: [without(run, left_out) for run in study.runs("final", arm)] for arm in arms})
        rows = tables[(tables["metric"] == "auroc_within_folds") & (tables["magnification"] == "mean")]
        values = rows.set_index("run")["value"]
        assert f"{said} {values['final'] - values['frozen-probe']:.2f} [" in probed[recipe]


def test_the_remark_on_the_recipe_has_its_difference_from_the_better_tuned_probe(study, probed):
    runs = {"probe": study.pooled("wide-probe", "wide-probe"), "final": study.pooled("final", "final")}
    table = with_intervals(runs).query("magnification == 'mean' and metric == 'auroc'").set_index("run")["value"]
    assert f"regularised more freely: AUROC {table['final'] - table['probe']:.2f} [" in probed[recipe]


def test_the_summary_shows_what_there_is(study, table, probed, tmp_path):
    write_summary(study, tmp_path / "whole")
    write_summary(Study(STUDY, tmp_path), tmp_path / "nothing")
    whole, nothing = ((tmp_path / name / "summary.md").read_text() for name in ("whole", "nothing"))
    short, empty = ((tmp_path / name / "short.md").read_text() for name in ("whole", "nothing"))
    assert (tmp_path / "whole" / "study.png").is_file() and "{figure} whole/study.png" in short
    assert verdicts(study, table) in whole and all(said in whole for said in probed.values())
    assert sorted(path.name for path in (tmp_path / "nothing").iterdir()) == ["short.md", "summary.md"]
    assert "**not run yet**" in nothing and "**not run yet**" in empty
    assert "figure" not in nothing + empty and "The bar" not in nothing

from pathlib import Path

import pytest

from histotransfer.errors import HistotransferError
from histotransfer.study.plan import planned_runs, read_plan

STUDY = Path(__file__).parents[2] / "study"
PLANS = sorted(path for path in STUDY.glob("*.toml") if path.stem not in ("claims", "plans", "recipe"))
PLAN = """
experiment = "tiny"
answers = ["C2"]
profile = "phantom"
folds = [0, 1]
seeds = [3, 4]
minutes = 1
baselines = ["majority"]
[settings]
threads = 1
[arms.plain]
se_positions = []
[arms.se]
se_positions = ["block"]
threads = 2
"""


@pytest.fixture
def plan(tmp_path):
    def write(text=PLAN):
        path = tmp_path / "tiny.toml"
        path.write_text(text)
        return path

    return write


def test_every_arm_is_planned_for_every_fold_and_seed(plan):
    runs = planned_runs(read_plan(plan()))
    assert [run.name for run in runs] == [
        f"{arm}-s{seed}-f{fold}" for fold in (0, 1) for seed in (3, 4) for arm in ("majority", "plain", "se")
    ]
    majority, plain, se = runs[:3]
    assert [run.method for run in runs[:3]] == ["majority", "ladder", "ladder"]
    assert (plain.config.se_positions, plain.config.threads, plain.config.seed) == ((), 1, 3)
    assert (se.config.se_positions, se.config.threads, se.config.fold) == (("block",), 2, 0)
    assert majority.config.threads == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PLAN.replace("seeds = [3, 4]\n", ""), r"seeds: is missing \(each changes"),
        (PLAN.replace("minutes = 1", "minutes = 0"), r"minutes: 0 refused"),
        (PLAN.replace('"tiny"', '"Tiny Plan"'), r"experiment: 'Tiny Plan' refused"),
        (PLAN + "x = 1", r"arm se: x: unknown"),
        (PLAN + 'normaliser = "magic"', r"arm se: normaliser: 'magic' refused"),
        (PLAN.replace("folds = [0, 1]", "folds = [0, 9]"), r"arm majority: fold: 9 is too large"),
        (PLAN.replace("answers", "answer"), r"answer.*: "),
        ("experiment = ", r"not TOML"),
        ("x = " + "[" * 5000, r"not TOML"),
        ("x = " + "9" * 5000, r"not TOML"),
        (PLAN.replace("folds = [0, 1]", "folds = [0, 0]"), r"folds: \[0, 0\] refused: a number is there twice"),
        (PLAN.replace("seeds = [3, 4]", "seeds = [3, 3]"), r"seeds: \[3, 3\] refused: a number is there twice"),
        (PLAN.replace("minutes = 1", "minutes = inf"), r"minutes: inf refused"),
        (PLAN.replace("seeds = [3, 4]", f"seeds = [{2**64}]"), r"arm majority: seed: 18446744073709551616 refused"),
        (PLAN.replace("threads = 1", "threads = 100_000_000_000"), r"arm majority: threads: 100000000000 refused"),
        (
            PLAN.replace("[0, 1]", str([*range(1000)])).replace("[3, 4]", str([*range(1000)])),
            r"3000000 runs are planned, at most 10000",
        ),
    ],
)
def test_a_bad_plan_is_one_line_with_its_file(plan, text, said):
    path = plan(text)
    with pytest.raises(HistotransferError, match=said) as caught:
        read_plan(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_plan_is_said_to_be_missing(tmp_path):
    with pytest.raises(HistotransferError, match=r"nowhere\.toml: cannot be read \(No such file or directory\)$"):
        read_plan(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_books_plans_are_sound(path):
    plan = read_plan(path)
    runs = planned_runs(plan)
    assert plan.experiment == path.stem
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        assert run.config.threads == 1  # the bits of a record depend on it
        assert run.config.patience == 0  # fixed schedules: nothing is chosen on one to three benign patients
        assert run.config.split == "patient" or run.config.allow_leakage
        assert run.arm.startswith(("image", "official")) or run.config.split == "patient"
    assert set(plan.answers) <= set(_claims())


def _claims():
    import tomllib

    return tomllib.loads((PLANS[0].parent / "claims.toml").read_text())["claims"]


def test_every_claim_names_experiments_that_answer_it():
    planned = {path.stem: read_plan(path).answers for path in PLANS}
    for name, claim in _claims().items():
        for experiment in claim["experiments"]:
            if experiment in planned:
                assert name in planned[experiment], (name, experiment)

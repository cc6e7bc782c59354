import pytest

from histotransfer.errors import HistotransferError
from histotransfer.report.study import NotRunYet, Study
from histotransfer.report.views import views_averaged, worth_of_views

from .conftest import STUDY


@pytest.fixture
def study_of(tmp_path, write_runs):
    """A study whose predictions by 1 and 4 views are blurred by some noise each; all views are noise-free."""

    def made(one, four):
        arms = {"plain": 1, "jitter": 1}
        write_runs(tmp_path, "views", arms, both=True, noise=0)
        write_runs(tmp_path, "views", arms, both=True, noise=one, suffix="-with-1-views")
        write_runs(tmp_path, "views", {"jitter": 1}, both=True, noise=four, suffix="-with-4-views")
        return Study(STUDY, tmp_path)

    return made


def test_the_fewest_views_that_lose_nothing_are_chosen(study_of):
    assert views_averaged(study_of(0.01, 0.01), "views+stain") == 1
    assert views_averaged(study_of(3, 0.01), "views+stain") == 4


def test_all_views_stay_where_fewer_are_worse(study_of):
    study = study_of(3, 3)
    assert views_averaged(study, "views+stain") is None
    assert views_averaged(study, "views") is None
    gaps = worth_of_views(study, "jitter", "test")
    assert list(gaps) == [1, 4]
    assert gaps[1].loc["log_loss", "low"] > 0 and gaps[1].loc["auroc", "high"] < 0


def test_a_choice_looks_at_validation_patients_only(study_of, tmp_path, write_runs):
    study = study_of(0.01, 0.01)
    before = worth_of_views(study, "plain", "test")[1]
    write_runs(tmp_path, "views", {"plain": 1}, both=True, noise=3, suffix="-with-1-views", spoiled="test")
    assert views_averaged(study, "views") == 1
    assert not worth_of_views(study, "plain", "test")[1].equals(before)


def test_what_is_not_there_is_said(tmp_path):
    study = Study(STUDY, tmp_path)
    with pytest.raises(NotRunYet, match="views, arm plain: 5 of 5 runs"):
        views_averaged(study, "views")
    with pytest.raises(HistotransferError, match="no arm has augmentation=none"):
        views_averaged(study, "none")

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from histotransfer.errors import HistotransferError
from histotransfer.evaluation.familiarity import FALSE_ALARMS, NEIGHBOURS, Familiarity, familiarity

CHANNELS = 64


def features(count, seed, scale=1.0):
    """Features in a few directions, with noise in all."""
    basis = np.random.default_rng(0).normal(size=(10, CHANNELS))
    draw = np.random.default_rng(seed)
    return scale * (draw.normal(size=(count, 10)) @ basis + 0.3 * draw.normal(size=(count, CHANNELS)) + 2)


@pytest.fixture(scope="module")
def fitted():
    known = Familiarity.fit(features(2000, 1))
    return known.with_threshold(known.distances(features(1000, 2)))


def test_a_distance_is_scikit_learns_relative_to_that_of_the_training_pictures(fitted):
    known = features(2000, 1)
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    search = NearestNeighbors(n_neighbors=NEIGHBOURS).fit((known - mean) / deviation)
    usual = search.kneighbors()[0].mean()
    for others in (features(50, 2), features(50, 4) * 3, known[:50]):
        expected = search.kneighbors((others - mean) / deviation)[0].mean(axis=1) / usual
        assert fitted.distances(others) == pytest.approx(expected, abs=1e-3)  # kept in 16 bits


def test_new_pictures_of_the_kind_are_called_unlike_as_often_as_stated(fitted):
    assert fitted.false_alarms == pytest.approx(FALSE_ALARMS, abs=0.001)
    assert fitted.is_unlike(features(4000, 3)).mean() == pytest.approx(FALSE_ALARMS, abs=0.02)


@pytest.mark.parametrize(
    "strange",
    [features(20, 4) + 10, features(20, 4) * 3, 10 * np.random.default_rng(5).normal(size=(20, CHANNELS))],
    ids=["moved", "stretched", "other directions"],
)
def test_other_features_are_unlike(fitted, strange):
    assert fitted.is_unlike(strange).all()


def test_features_in_the_middle_of_the_training_pictures_are_not_unlike(fitted):
    assert not fitted.is_unlike(features(2000, 1).mean(axis=0, keepdims=True)).any()


def test_distances_do_not_depend_on_the_scale_of_features():
    """Networks of two folds have features of different scales; their distances are compared with one threshold."""
    one, other = (Familiarity.fit(features(500, 1, scale)) for scale in (1, 3))
    assert other.distances(features(50, 2, 3)) == pytest.approx(one.distances(features(50, 2)), rel=1e-3)


def test_what_is_stored_is_read_back(fitted):
    read = familiarity(fitted.tensors(), CHANNELS, "x")
    assert np.array_equal(read.distances(features(50, 6)), fitted.distances(features(50, 6)))
    assert (read.threshold, read.false_alarms) == (fitted.threshold, fitted.false_alarms)


def test_it_is_small_beside_a_network():
    """All of BreakHis, and the first transition of a DenseNet-121: two megabytes."""
    known = Familiarity(np.zeros(128, np.float32), np.ones(128, np.float32), np.zeros((7909, 128), np.float16))
    assert sum(array.nbytes for array in known.tensors().values()) == pytest.approx(2e6, rel=0.02)


@pytest.mark.parametrize(
    "changed",
    [
        {"mean": None},
        {"threshold": None},
        {"mean": np.zeros(3, np.float32)},
        {"scale": np.zeros(CHANNELS, np.float32)},
        {"scale": np.full(CHANNELS, np.nan, np.float32)},
        {"known": np.zeros(CHANNELS, np.float16)},
        {"known": np.zeros((NEIGHBOURS - 1, CHANNELS), np.float16)},
        {"known": np.full((9, CHANNELS), np.inf, np.float16)},
        {"known": np.float16(0)},
        {"threshold": np.float32(np.inf)},
        {"threshold": np.zeros(2, np.float32)},
    ],
)
def test_what_is_damaged_is_refused(fitted, changed):
    tensors = {name: value for name, value in (fitted.tensors() | changed).items() if value is not None}
    tensors = {name: np.asarray(value) for name, value in tensors.items()}
    with pytest.raises(HistotransferError, match=r"w\.safetensors: what it says of its training pictures"):
        familiarity(tensors, CHANNELS, "w.safetensors")


@pytest.mark.parametrize(
    "bad",
    [
        features(NEIGHBOURS, 1),
        np.ones((50, CHANNELS)),
        np.repeat(features(4, 1), NEIGHBOURS + 1, axis=0),
        np.full((50, CHANNELS), np.nan),
        np.empty((50, 0)),
    ],
    ids=["few", "all alike", "copies", "no numbers", "no features"],
)
def test_features_that_say_nothing_are_refused(bad):
    with pytest.raises(HistotransferError, match="will not say what is unlike"):
        Familiarity.fit(bad)


def test_few_pictures_do():
    known = Familiarity.fit(features(NEIGHBOURS + 1, 1))
    assert np.isfinite(known.distances(features(5, 2))).all()


def test_a_picture_whose_copies_were_trained_on_is_near():
    """The distance to a copy is 0, where rounding could leave a root of less."""
    known = Familiarity.fit(np.concatenate([features(500, 1), np.repeat(features(1, 2), NEIGHBOURS, axis=0)]))
    assert known.distances(features(1, 2)) == pytest.approx(0, abs=1e-2)

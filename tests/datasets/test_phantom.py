"""Phantom data: deterministic, true to their own physics and names, and neither trivial nor hopeless."""

import csv
import re
import shutil
from itertools import pairwise, product

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histotransfer.datasets import breakhis, phantom
from histotransfer.errors import HistotransferError
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import load_trunk
from histotransfer.stain import normaliser
from histotransfer.tiles import TileSource, load_tiles
from histotransfer.transfer.training import pooled_features

PATIENTS = range(24)
MAGNIFICATIONS = (40, 100, 200, 400)
TINY = {"size": 48, "images_per_magnification": 1, "lung_originals": 3, "lung_copies": 3}


@pytest.fixture(scope="module")
def fields():
    everything = product(PATIENTS, MAGNIFICATIONS, range(2), range(2))
    return {(p, m, i, s): phantom.breast_image(p, m, i, seed=s) for p, m, i, s in everything}


def test_an_image_is_a_function_of_its_arguments():
    a, b = (phantom.breast_image(7, 100, 3, seed=5) for _ in range(2))
    assert a.image.tobytes() == b.image.tobytes() and a.concentrations.tobytes() == b.concentrations.tobytes()
    others = [
        phantom.breast_image(*where, seed=seed) for *where, seed in [(8, 100, 3, 5), (7, 100, 4, 5), (7, 100, 3, 6)]
    ]
    assert all(not np.array_equal(a.image, other.image) for other in others)


def test_the_same_tissue_stained_as_another_patients(fields):
    own, other = fields[7, 100, 1, 0], fields[3, 100, 1, 0]
    assert np.array_equal(phantom.breast_image(7, 100, 1, stained_as=7).image, own.image)
    again = phantom.breast_image(7, 100, 1, stained_as=3)
    assert np.array_equal(again.stain_matrix, other.stain_matrix)
    assert np.array_equal(again.brightness, other.brightness)
    assert np.array_equal(again.diagnostic_mask, own.diagnostic_mask)
    # The same tissue: its amounts differ by one factor for each stain, but where pure pixels were mixed.
    for stain in (0, 1):
        a, b = (field.concentrations[..., stain].ravel() for field in (own, again))
        assert np.corrcoef(a, b)[0, 1] > 0.99
        factors = b[a > 0.1] / a[a > 0.1]
        assert np.mean(np.abs(factors / np.median(factors) - 1) < 1e-3) > 0.95


def test_light_obeys_beer_lambert(fields):
    for field in fields.values():
        hematoxylin, eosin = field.concentrations[..., 0, None], field.concentrations[..., 1, None]
        density = hematoxylin.astype(float) * field.stain_matrix[0] + eosin.astype(float) * field.stain_matrix[1]
        expected = field.brightness * np.exp(-density)
        assert np.abs(field.image - expected).max() <= 0.5 + 1e-9


def test_truth_is_physical(fields):
    for field in fields.values():
        assert field.concentrations.min() >= 0
        np.testing.assert_allclose(np.linalg.norm(field.stain_matrix, axis=1), 1)
    matrices = [fields[p, 40, 0, 0].stain_matrix for p in PATIENTS]
    assert min(np.abs(a - b).max() for i, a in enumerate(matrices) for b in matrices[:i]) > 0.01


def test_fields_show_the_lesion_and_what_lies_around_it_or_say_that_they_do_not(fields):
    shares = np.array([field.diagnostic_mask.mean() for field in fields.values()])
    assert 0.1 < (shares == 0).mean() < 0.3
    assert shares[shares > 0].min() > 0.005 and shares.max() < 0.995


def test_stains_overlap_nearly_everywhere(fields):
    for field in fields.values():
        total = field.concentrations.sum(axis=-1)
        alone = field.concentrations.min(axis=-1) < 0.05 * total
        assert alone[total > 0.05].mean() <= 0.20


def nuclear_size(field):
    """Median area in pixels of what is dark in hematoxylin."""
    labels, count = ndimage.label(field.concentrations[..., 0] > 0.6)
    return np.median(ndimage.sum_labels(np.ones(labels.shape), labels, range(1, count + 1))) if count else np.nan


def test_nuclei_grow_with_magnification(fields):
    sizes = [np.nanmedian([nuclear_size(fields[p, m, 0, 0]) for p in PATIENTS]) for m in MAGNIFICATIONS]
    assert all(b > 2 * a for a, b in pairwise(sizes))


def test_malignant_nuclei_are_more_on_average_and_the_classes_overlap():
    share = [
        np.mean([(phantom.breast_image(p, 200, i).concentrations[..., 0] > 0.6).mean() for i in range(4)])
        for p in PATIENTS
    ]
    benign, malignant = np.array(share[:12]), np.array(share[12:])
    assert malignant.mean() > benign.mean() * 1.15
    assert malignant.min() < benign.max()


def test_files_stand_in_the_official_layouts(tmp_path):
    root = phantom.write_phantom(tmp_path / "p", **TINY)
    grammar = re.compile(
        r"BreaKHis_v1/histology_slides/breast/(benign|malignant)/SOB/[a-z_]+"
        r"/SOB_([BM]_(?:A|F|PT|TA|DC|LC|MC|PC))_(\d\d-\d+[A-Z]*)/(\d+)X/SOB_\2-\3-\4-\d{3}\.png"
    )
    pngs = [path.relative_to(root).as_posix() for path in root.rglob("*.png")]
    assert len(pngs) == 24 * 4 and all(grammar.fullmatch(path) for path in pngs)
    table = breakhis.load(root)
    assert table["group"].nunique() == 24
    assert table.groupby("label")["group"].nunique().to_dict() == {"benign": 12, "malignant": 12}
    for label in ("lung_aca", "lung_n", "lung_scc"):
        files = sorted(path.name for path in (root / "lung_colon_image_set/lung_image_sets" / label).iterdir())
        with (root / "lc25000_groups" / f"{label}.csv").open() as handle:
            rows = list(csv.DictReader(handle))
        assert files == sorted(row["file"] for row in rows) and len(files) == 9
        assert sorted(row["group"] for row in rows) == sorted(["0", "1", "2"] * 3)


def test_some_patients_have_two_slides():
    root_names = {phantom.breast_name(p, 40, i).slide_id for p in PATIENTS for i in range(2)}
    assert len(root_names) > 24


def test_truth_is_made_again_from_a_file(tmp_path):
    root = phantom.write_phantom(tmp_path / "p", **TINY)
    path = next(root.rglob("*-400-*.png"))
    assert np.array_equal(phantom.truth(path).image, np.asarray(Image.open(path)))
    jpeg = next(root.rglob("lungscc2.jpeg"))
    error = phantom.truth(jpeg).image.astype(int) - np.asarray(Image.open(jpeg)).astype(int)
    assert np.abs(error).mean() < 6  # JPEG
    with pytest.raises(HistotransferError, match="lies in no phantom data set"):
        phantom.truth(tmp_path / "elsewhere.png")
    foreign = path.with_name(path.name.replace("-14-5", "-14-7"))
    shutil.copy(path, foreign)
    with pytest.raises(HistotransferError, match="was not written with"):
        phantom.truth(foreign)


def test_copies_are_near_duplicates_and_originals_are_not():
    def appearance(original, copy):
        image = phantom.lung_copy("lung_aca", original, copy).image
        return np.concatenate([image.mean(axis=(0, 1)), image.std(axis=(0, 1))])

    copies = [appearance(0, c) for c in range(4)]
    originals = [appearance(o, 0) for o in range(6)]
    within = max(np.abs(a - copies[0]).max() for a in copies[1:])
    between = np.median([np.abs(a - originals[0]).max() for a in originals[1:]])
    assert within < between
    assert not np.array_equal(phantom.lung_copy("lung_aca", 0, 0).image, phantom.lung_copy("lung_aca", 0, 1).image)


def test_writing_again_is_the_same_byte_for_byte_and_needs_the_same_settings(tmp_path):
    a, b = (phantom.write_phantom(tmp_path / name, **TINY, seed=3) for name in "ab")
    files = sorted(path.relative_to(a) for path in a.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(b) for path in b.rglob("*") if path.is_file())
    assert all((a / file).read_bytes() == (b / file).read_bytes() for file in files)
    before = (a / "phantom.json").stat().st_mtime_ns
    assert phantom.write_phantom(tmp_path / "a", **TINY, seed=3) == a.resolve()
    assert (a / "phantom.json").stat().st_mtime_ns == before
    with pytest.raises(HistotransferError, match="other settings"):
        phantom.write_phantom(tmp_path / "a", **TINY, seed=4)
    next((tmp_path / "b").rglob("*.png")).unlink()
    with pytest.raises(HistotransferError, match="holds 122 phantom images, not 123"):
        phantom.write_phantom(tmp_path / "b", **TINY, seed=3)
    (tmp_path / "other").mkdir()
    with pytest.raises(HistotransferError, match="no phantom data set"):
        phantom.write_phantom(tmp_path / "other", **TINY)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "_write_lung", cut)
    with pytest.raises(KeyboardInterrupt):
        phantom.write_phantom(tmp_path / "p", **TINY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_task_is_neither_trivial_nor_hopeless_and_leaks_by_image(trunk, tmp_path, seed):
    root = phantom.write_phantom(tmp_path / "p", seed=seed)
    table = breakhis.load(root)
    tiles, _ = load_tiles(table["path"].tolist(), 112, normaliser("none"))
    model = SEDenseNet(positions=())
    load_trunk(model, trunk)
    features = pooled_features(model, TileSource(tiles), batch_size=32)
    truth, groups = (table["label"] == "malignant").to_numpy(), table["group"].to_numpy()
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, class_weight="balanced", max_iter=5000))

    def auroc(splitter, **kwargs):
        score = cross_val_predict(probe, features, truth, cv=splitter, method="decision_function", **kwargs)
        return roc_auc_score(truth, score)

    by_patient = np.mean(
        [auroc(StratifiedGroupKFold(5, shuffle=True, random_state=s), groups=groups) for s in range(3)]
    )
    by_image = np.mean([auroc(StratifiedKFold(5, shuffle=True, random_state=s)) for s in range(3)])
    shutil.rmtree(root)
    assert 0.75 <= by_patient <= 0.92
    assert by_image >= by_patient + 0.05

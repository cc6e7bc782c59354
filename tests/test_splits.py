import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histotransfer.config import ladder_config
from histotransfer.datasets import breakhis, lc25000
from histotransfer.datasets.table import PARTS, SCHEMA
from histotransfer.errors import HistotransferError
from histotransfer.splits import (
    audit,
    content_hashes,
    grouped_split,
    image_split,
    leaks,
    make_split,
    official_split,
)

LABELS = ("benign", "malignant")
CLEAN = {"patients": 0, "groups": 0, "images": 0}

any_images = st.lists(st.tuples(st.integers(0, 24).map("g{}".format), st.sampled_from(LABELS)), min_size=1, max_size=80)
# Enough groups of each class for every split; group g has the label of its parity, sizes differ.
many_groups = st.lists(st.integers(1, 4), min_size=20, max_size=70).map(
    lambda sizes: [(f"g{g}", LABELS[g % 2]) for g, size in enumerate(sizes) for _ in range(size)]
)


@settings(max_examples=60)
@given(images=any_images, folds=st.integers(3, 6), seed=st.integers(0, 5), data=st.data())
def test_any_split_is_a_partition_by_group_or_an_error(make_table, images, folds, seed, data):
    table = make_table(images)
    fold = data.draw(st.integers(0, folds - 1))
    try:
        split = grouped_split(table, fold=fold, folds=folds, seed=seed)
    except HistotransferError as error:
        assert "\n" not in str(error)
        return
    pd.testing.assert_frame_equal(split.assign(split=""), table)  # nothing lost, nothing moved
    assert set(split["split"]) == set(PARTS)
    assert (split.groupby("group")["split"].nunique() == 1).all()
    assert (split.groupby("split")["label"].nunique() == table["label"].nunique()).all()
    SCHEMA.validate(split)


@settings(max_examples=15)
@given(images=many_groups, seed=st.integers(0, 5))
def test_folds_of_one_seed_are_disjoint_cover_the_table_and_share_the_patients_of_each_class(make_table, images, seed):
    table = make_table(images)
    splits = [grouped_split(table, fold=fold, seed=seed) for fold in range(5)]
    tested = Counter(row for split in splits for row in split.index[split["split"] == "test"])
    assert tested == Counter(table.index)
    for label, rows in table.groupby("label"):
        fair = rows["group"].nunique() / 5
        for split in splits:
            own = split[(split["split"] == "test") & (split["label"] == label)]
            assert abs(own["group"].nunique() - fair) < 1, "patients count, whoever gave the most images"


def test_five_folds_are_three_to_one_to_one(make_table):
    table = make_table([(f"g{g}", LABELS[g % 2]) for g in range(200) for _ in range(3)])
    shares = grouped_split(table)["split"].value_counts(normalize=True)
    assert shares.round(2).to_dict() == {"train": 0.6, "test": 0.2, "validation": 0.2}


@settings(max_examples=15)
@given(images=many_groups, seed=st.integers(0, 5), folds=st.integers(3, 6), data=st.data())
def test_every_patient_validates_once_and_each_pair_of_folds_is_held_out(make_table, images, seed, folds, data):
    table = make_table(images)
    offset = data.draw(st.integers(1, folds - 1))
    splits = [
        grouped_split(table, fold=fold, folds=folds, seed=seed, validation_offset=offset) for fold in range(folds)
    ]
    for fold, split in enumerate(splits):
        after = splits[(fold + offset) % folds]
        assert (split["split"] == "validation").equals(after["split"] == "test")
    validated = Counter(row for split in splits for row in split.index[split["split"] == "validation"])
    assert validated == Counter(table.index)


def test_a_split_is_fixed_by_its_seed(make_table):
    table = make_table([(f"g{g}", LABELS[g % 2]) for g in range(40)])
    assert grouped_split(table, seed=1).equals(grouped_split(table, seed=1))
    assert not grouped_split(table, seed=1).equals(grouped_split(table, seed=2))


def test_one_patient_of_a_class_cannot_be_split(make_table):
    table = make_table([("only", "benign")] * 9 + [(f"g{g}", "malignant") for g in range(9)])
    with pytest.raises(HistotransferError, match=r"benign has 1 patients .* too few for 3 folds"):
        grouped_split(table, folds=3)


def planted(make_table, folder, parts, groups, patients=None):
    """Three images in given parts; contents differ."""
    table = make_table([(group, "benign") for group in groups], folder)
    table = table.assign(split=parts, patient=patients or groups)
    for i, path in enumerate(table["path"]):
        Path(path).write_bytes(b"image %d" % i)
    return table


def test_audit_of_an_honest_split_is_all_zero(make_table, tmp_path):
    table = planted(make_table, tmp_path, ["train", "validation", "test"], ["a", "b", "c"])
    report = audit(table, content_hashes(table))
    assert report == dict.fromkeys(["test/train", "test/validation", "train/validation"], CLEAN)
    assert not leaks(report)


def test_audit_finds_a_shared_patient(make_table, tmp_path):
    table = planted(make_table, tmp_path, ["train", "test", "validation"], ["a", "b", "c"], ["p", "p", "q"])
    report = audit(table, content_hashes(table))
    assert report["test/train"] == CLEAN | {"patients": 1}
    assert report["train/validation"] == report["test/validation"] == CLEAN
    assert leaks(report)


def test_audit_finds_a_shared_group(make_table, tmp_path):
    table = planted(make_table, tmp_path, ["train", "validation", "test"], ["a", "b", "b"], ["p", "q", "r"])
    report = audit(table, content_hashes(table))
    assert report["test/validation"] == CLEAN | {"groups": 1}
    assert leaks(report)


def test_audit_finds_the_same_bytes_under_two_names(make_table, tmp_path):
    table = planted(make_table, tmp_path, ["train", "validation", "test"], ["a", "b", "c"])
    (tmp_path / "0001.png").write_bytes((tmp_path / "0000.png").read_bytes())
    report = audit(table, content_hashes(table))
    assert report["train/validation"] == CLEAN | {"images": 1}
    assert leaks(report)


def test_content_hashes_are_sha256_of_the_bytes(make_table, tmp_path):
    table = planted(make_table, tmp_path, ["train", "validation", "test"], ["a", "b", "c"])
    assert content_hashes(table).tolist() == [hashlib.sha256(b"image %d" % i).hexdigest() for i in range(3)]


@pytest.mark.parametrize("fold", range(5))
@pytest.mark.parametrize("dataset", [breakhis, lc25000], ids=["breakhis", "lc25000"])
def test_real_images_split_without_leaks(data_root, dataset, fold):
    split = grouped_split(dataset.load(data_root), fold=fold)
    report = audit(split, content_hashes(split))
    assert not leaks(report), report


def test_a_split_by_image_leaks_and_the_audit_says_so(make_table, tmp_path):
    table = make_table([(f"p{i % 12}", ("benign", "malignant")[i % 2]) for i in range(120)])
    split = image_split(table, seed=1)
    assert split["split"].value_counts().to_dict() == {"train": 72, "test": 24, "validation": 24}
    report = audit(split, table["path"])
    assert report["test/train"]["groups"] >= 9 and report["test/train"]["images"] == 0


def official_file(path, table, test_rows):
    lines = [
        f"{Path(image).name}|40|1|{'test' if i in test_rows else 'train'}" for i, image in enumerate(table["path"])
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_an_official_split_is_read_and_gets_validation_patients(make_table, tmp_path):
    table = make_table([(f"p{i % 12}", ("benign", "malignant")[i % 2]) for i in range(60)])
    split = official_split(table, official_file(tmp_path / "dsfold1.txt", table, range(0, 60, 12)))
    assert list(np.flatnonzero(split["split"] == "test")) == list(range(0, 60, 12))
    validation = set(split.loc[split["split"] == "validation", "group"])
    assert validation and not validation & set(split.loc[split["split"] == "train", "group"])
    capitals = table.assign(path=table["path"].str.replace(".png", ".PNG"))
    assert official_split(capitals, tmp_path / "dsfold1.txt")["split"].equals(split["split"])
    short = official_file(tmp_path / "short.txt", table.iloc[:-1], [])
    with pytest.raises(HistotransferError, match="is not named in"):
        official_split(table, short)
    (tmp_path / "bad.txt").write_text("a.png|40|1\n")
    with pytest.raises(HistotransferError, match=r"bad\.txt, line 1"):
        official_split(table, tmp_path / "bad.txt")
    with pytest.raises(HistotransferError, match="no such fold file"):
        official_split(table, tmp_path / "none.txt")


def test_all_official_folds_leak_by_base_number(data_root):
    for fold in range(1, 6):
        parts = breakhis.read_official_fold(data_root / f"breakhis_folds/dsfold{fold}.txt")
        sides = {
            part: {breakhis.parse_name(n).base_number for n, p in parts.items() if p == part}
            for part in ("train", "test")
        }
        assert len(parts) == 7909 and 6 <= len(sides["train"] & sides["test"]) <= 8


def test_a_configuration_chooses_its_split(make_table, tmp_path):
    table = make_table([(f"p{i % 24}", ("benign", "malignant")[i % 2]) for i in range(96)])
    (tmp_path / "breakhis_folds").mkdir()
    official_file(tmp_path / "breakhis_folds" / "dsfold3.txt", table, range(0, 96, 12))

    def chosen(**settings):
        return make_split(table, ladder_config("phantom", settings), tmp_path)["split"].tolist()

    assert chosen(split="patient", fold=1, seed=2) == grouped_split(table, fold=1, seed=2)["split"].tolist()
    assert chosen(split="image", fold=1, seed=2) == image_split(table, fold=1, seed=2)["split"].tolist()
    assert [i for i, part in enumerate(chosen(split="official", fold=2)) if part == "test"] == list(range(0, 96, 12))
    with pytest.raises(HistotransferError, match="there are 5 official folds"):
        chosen(split="official", fold=5, folds=6)


@given(
    parts=st.lists(st.sampled_from(PARTS), min_size=2, max_size=30),
    kind=st.sampled_from(["patients", "groups", "images"]),
    data=st.data(),
)
def test_the_audit_finds_any_planted_leak_and_nothing_else(parts, kind, data):
    rows = range(len(parts))
    columns = {name: [f"{name}{i}" for i in rows] for name in ("patients", "groups", "images")}
    a, b = data.draw(st.sampled_from(list(rows))), data.draw(st.sampled_from(list(rows)))
    columns[kind][a] = columns[kind][b]
    table = pd.DataFrame({"patient": columns["patients"], "group": columns["groups"], "split": parts})
    report = audit(table, pd.Series(columns["images"]))
    found = {(frozenset(pair.split("/")), what) for pair, shared in report.items() for what, n in shared.items() if n}
    assert found == ({(frozenset({parts[a], parts[b]}), kind)} if parts[a] != parts[b] else set())
    assert leaks(report) == (parts[a] != parts[b])

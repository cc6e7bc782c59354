"""Planted faults: each is named in one line, and nothing else is."""

import io
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from histotransfer.datasets import breakhis, lc25000, ucsb
from histotransfer.datasets.verify import LAYOUTS, verify
from histotransfer.errors import HistotransferError

NAMES = (
    *(f"SOB_B_A-14-22549AB-40-00{i}.png" for i in range(1, 5)),
    *(f"SOB_M_DC-14-2523-100-00{i}.png" for i in range(1, 4)),
    "SOB_M_DC-14-2773-100-001.png",
)
LUNGS = [f"{label.replace('_', '')}{i}.jpeg" for label in lc25000.LABELS for i in (1, 2)]
FIELDS = ["ytma10_010704_benign1_ccd.tif", "ytma10_010704_malignant1_ccd.tif", "ytma49_042003_benign1_ccd.tif"]


def breast(name):
    return breakhis.TREE / breakhis.parse_name(name).folder / name


def lung(name):
    return lc25000.FOLDERS[lc25000.parse_name(name)[0]] / name


def picture(path, seed, size=(48, 48), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    root = tmp_path_factory.mktemp("clean")
    for i, name in enumerate(NAMES):
        picture(root / breast(name), i)
    for i, name in enumerate(LUNGS, 100):
        picture(root / lung(name), i)
    for i, name in enumerate(FIELDS, 200):
        picture(root / ucsb.TREE / name, i)
    for label in lc25000.LABELS:
        (root / lc25000.GROUPS).mkdir(exist_ok=True)
        stem = lc25000.STEMS[label]
        (root / lc25000.GROUPS / f"{label}.csv").write_text(f"file,group\n{stem}1.jpeg,0\n{stem}2.jpeg,1\n")
    return root


@pytest.fixture
def root(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "data")


def problems(root, count=1):
    report = verify(root)
    assert not report.ok
    assert len(report.problems) == count, report.problems
    assert not any("\n" in line for line in report.problems)
    assert all(f"problem: {line}" in str(report) for line in report.problems)
    return report.problems[0] if count == 1 else report.problems


def test_a_clean_part_is_well_and_says_what_it_is(clean):
    report = verify(clean)
    assert report.ok and report.problems == ()
    assert [(part.name, part.images, part.published) for part in report.datasets] == [
        ("BreakHis", 8, 7909),
        ("LC25000", 6, 25000),
        ("UCSB", 3, 58),
    ]
    text = str(report)
    assert "BreakHis: 8 of 7,909 images (a subset)" in text
    assert re.search(r"adenosis +4/114 +0/113 +0/111 +0/106 +1/4\n", text)
    assert re.search(r"ductal_carcinoma +0/864 +4/903 +0/896 +0/788 +2/38\n", text)
    assert re.search(r"lung_aca +2/5000\n", text)
    assert "8 images are 48x48; published are 700x460 or 700x456: they were resized" in text
    assert text.endswith("nothing is wrong; subsets of BreakHis, LC25000, UCSB")


def test_phantom_data_are_clean(phantom_root):
    assert verify(phantom_root).problems == ()


def test_published_counts_add_up():
    totals = {layout.name: sum(layout.counts.values()) for layout in LAYOUTS}
    assert totals == {"BreakHis": 7909, "LC25000": 25000, "UCSB": 58}
    by_magnification = {m: sum(n for (_, at), n in LAYOUTS[0].counts.items() if at == m) for m in (40, 100, 200, 400)}
    assert by_magnification == {40: 1995, 100: 2081, 200: 2013, 400: 1820}
    assert sum(LAYOUTS[0].slides.values()) == 82


@pytest.mark.parametrize("file", [breast(NAMES[0]), lung(LUNGS[0]), ucsb.TREE / FIELDS[0]], ids=["png", "jpeg", "tif"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.9])
def test_a_cut_file_is_named(root, file, kept):
    content = (root / file).read_bytes()
    (root / file).write_bytes(content[: int(kept * len(content))])
    line = problems(root)
    assert line.startswith(f"{file.as_posix()}: ")
    assert re.search("damaged|empty file", line)


@pytest.mark.parametrize("file", [breast(NAMES[0]), lung(LUNGS[0])], ids=["png", "jpeg"])
def test_a_file_that_lacks_only_its_end_is_named(root, file):
    (root / file).write_bytes((root / file).read_bytes()[:-2])
    assert re.search("cut|damaged", problems(root))


def test_a_flipped_bit_in_a_png_is_named(root):
    path = root / breast(NAMES[0])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert problems(root).startswith(f"{breast(NAMES[0]).as_posix()}: damaged or unreadable")


def test_text_under_a_picture_name_is_named(root):
    (root / breast(NAMES[0])).write_text("hello")
    assert problems(root).startswith(f"{breast(NAMES[0]).as_posix()}: not an image")


def test_a_file_in_another_patients_folder_is_named(root):
    target = breast(NAMES[4]).parent / NAMES[0]
    (root / breast(NAMES[0])).rename(root / target)
    home = breast(NAMES[0]).parent.as_posix()
    assert problems(root) == f"{target.as_posix()}: misplaced, by its name it belongs in {home}"


def test_a_lung_image_in_another_class_and_a_field_in_a_subfolder_are_named(root):
    strayed = lc25000.FOLDERS["lung_n"] / "lungaca1.jpeg"
    (root / lung("lungaca1.jpeg")).rename(root / strayed)
    deeper = ucsb.TREE / "more" / FIELDS[0]
    (root / deeper).parent.mkdir()
    (root / ucsb.TREE / FIELDS[0]).rename(root / deeper)
    first, second = problems(root, 2)
    assert first.startswith(f"{strayed.as_posix()}: misplaced") and "lung_aca" in first
    assert second.startswith(f"{deeper.as_posix()}: misplaced")


def test_an_image_under_two_names_is_named_with_the_other(root):
    copy = breast("SOB_M_DC-14-2773-100-009.png")
    shutil.copy(root / breast(NAMES[0]), root / copy)
    first, second = sorted([breast(NAMES[0]).as_posix(), copy.as_posix()])
    assert problems(root) == f"{second}: duplicate, the same bytes as {first}"


def test_an_image_written_anew_is_a_duplicate_by_pixels(root):
    copy = root / breast("SOB_B_A-14-22549AB-40-009.png")
    with Image.open(root / breast(NAMES[0])) as image:
        image.save(copy, compress_level=0)
    assert problems(root).endswith(f": duplicate, the same pixels as {breast(NAMES[0]).as_posix()}")


def test_the_well_named_file_is_the_original(root):
    copy = breast(NAMES[0]).parent / "0 copy.png"  # sorts before it
    shutil.copy(root / breast(NAMES[0]), root / copy)
    line = problems(root)
    assert line.startswith(f"{copy.as_posix()}: misnamed, not a BreakHis file name")
    assert line.endswith(f"; duplicate, the same bytes as {breast(NAMES[0]).as_posix()}")


def test_the_published_double_slide_is_a_note(root):
    pair = [breast(f"SOB_M_{subtype}-14-13412-40-001.png") for subtype in ("DC", "LC")]
    picture(root / pair[0], 300)
    (root / pair[1]).parent.mkdir(parents=True)
    shutil.copy(root / pair[0], root / pair[1])
    report = verify(root)
    assert report.ok
    assert f"{pair[1].as_posix()}: duplicate, the same bytes as {pair[0].as_posix()}, as published" in str(report)


def test_copies_in_lc25000_are_noted_by_name_since_they_were_published(root):
    shutil.copy(root / lung("lungn1.jpeg"), root / lung("lungn2.jpeg"))
    report = verify(root)
    assert report.ok
    assert "lungn2.jpeg: duplicate, the same bytes as" in str(report)


def test_copies_in_lc25000_with_two_labels_are_a_fault(root):
    shutil.copy(root / lung("lungn1.jpeg"), root / lung("lungscc2.jpeg"))
    assert problems(root).startswith(f"{lung('lungscc2.jpeg').as_posix()}: duplicate")


@pytest.mark.parametrize("suffix", [".TXT", ".txt", ".jpg", ""])
def test_a_wrong_extension_is_named_with_what_the_file_holds(root, suffix):
    path = root / breast(NAMES[0])
    path.rename(path.with_suffix(suffix))
    wrong = breast(NAMES[0]).with_suffix(suffix).as_posix()
    shown = suffix or "missing"
    assert problems(root) == f"{wrong}: misnamed, the extension is {shown} and holds PNG, it should be .png"


@pytest.mark.parametrize("file", [breast(NAMES[0]), lung(LUNGS[0]), ucsb.TREE / FIELDS[0]], ids=["png", "jpeg", "tif"])
def test_an_ending_in_capitals_is_no_fault(root, file):
    (root / file).rename((root / file).with_suffix(file.suffix.upper()))
    report = verify(root)
    assert report.ok and sum(part.images for part in report.datasets) == 17


@pytest.mark.parametrize("level", [".", "BreaKHis_v1", "BreaKHis_v1/histology_slides", "above"])
def test_a_folder_above_the_data_set_or_in_it_will_do(root, tmp_path, level):
    given = tmp_path if level == "above" else root / level
    part = next(part for part in verify(given).datasets if part.name == "BreakHis")
    assert part.images == 8 and not part.problems
    assert not any("not looked at" in note for note in verify(given).notes)


def test_a_jpeg_under_a_png_name_is_named(root):
    path = root / breast(NAMES[0])
    buffer = io.BytesIO()
    Image.open(path).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue())
    assert problems(root) == f"{breast(NAMES[0]).as_posix()}: misnamed, the extension is .png but it holds JPEG"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("SOB_B_A-14-22549AB-41-001.png", "not a BreakHis file name"),
        ("SOB_M_A-14-22549AB-40-001.png", "contradict"),
        ("holiday.png", "not a BreakHis file name"),
        ("holiday.bmp", "not a name of BreakHis"),
    ],
)
def test_a_name_outside_the_grammar_is_named(root, name, why):
    path = breast(NAMES[0]).parent / name
    picture(root / path, 400)
    line = problems(root)
    assert line.startswith(f"{path.as_posix()}: misnamed, ") and why in line


def test_stray_files_are_named_and_documents_noted(root):
    for name in ("Thumbs.db", ".DS_Store", "._copy.png", "notes.db", "README.txt"):
        (root / breakhis.TREE / name).write_text("not a picture")
    (root / lc25000.TREE / "broken.jpeg").symlink_to(root / "nowhere")
    notes, broken = problems(root, 2)
    assert notes == f"{breakhis.TREE.as_posix()}/notes.db: stray file, not an image"
    assert "note: passed over: system files (3)\n" in str(verify(root))
    assert f"note:   {root / breakhis.TREE}/Thumbs.db: system files" in str(verify(root, verbose=True))
    assert broken.startswith(f"{lc25000.TREE.as_posix()}/broken.jpeg: misnamed, not an LC25000 file name")
    assert f"note: {breakhis.TREE.as_posix()}/README.txt: no picture, not counted" in str(verify(root))


def test_a_name_that_is_not_utf8_can_be_printed(root):
    (root / ucsb.TREE / os.fsdecode(b"n\xe4her.tif")).write_text("x")
    assert "misnamed" in str(verify(root)).encode("utf-8").decode("utf-8")


def test_a_linked_folder_is_looked_at(root):
    folder = breast(NAMES[0]).parents[1]
    (root / folder).rename(root.parent / "elsewhere")
    (root / folder).symlink_to(root.parent / "elsewhere")
    assert verify(root).datasets[0].images == 8 and verify(root).ok


def test_a_few_odd_sizes_among_others_are_named(root):
    picture(root / breast(NAMES[0]), 0, size=(48, 47))
    assert problems(root) == f"{breast(NAMES[0]).as_posix()}: odd size, 48x47 among images of 48x48"


def test_both_published_sizes_are_right_and_a_resized_one_among_them_is_odd(root):
    for i, name in enumerate(NAMES):
        picture(root / breast(name), i, size=(700, 456 if i == 1 else 460))
    assert verify(root).ok
    picture(root / breast(NAMES[0]), 0, size=(224, 224))
    assert problems(root) == f"{breast(NAMES[0]).as_posix()}: odd size, 224x224 among images of 700x460"


def test_a_grey_picture_is_named(root):
    path = root / breast(NAMES[0])
    with Image.open(path) as image:
        grey = image.convert("L")
    grey.save(path)
    assert ": grey picture; a colour picture is needed" in problems(root)


def test_every_fault_is_collected(root):
    (root / breast(NAMES[0])).write_bytes(b"")
    (root / lung(LUNGS[0])).write_bytes(b"x")
    (root / ucsb.TREE / FIELDS[0]).rename(root / ucsb.TREE / "field.tif")
    lines = problems(root, 3)
    assert [line.split(": ")[0].split("/")[-1] for line in lines] == [NAMES[0], LUNGS[0], "field.tif"]
    assert str(verify(root)).endswith("3 problems")


def test_names_are_compared_with_the_official_list(root):
    (root / "breakhis_folds").mkdir()
    listed = [*NAMES[1:], "SOB_M_PC-14-9146-400-001.png"]
    (root / "breakhis_folds" / "dsfold1.txt").write_text("".join(f"{name}|40|1|train\n" for name in listed))
    assert problems(root).startswith(f"{breast(NAMES[0]).as_posix()}: not published")
    (root / breast(NAMES[0])).unlink()
    report = verify(root)
    assert report.ok
    assert report.datasets[0].missing == ("SOB_M_PC-14-9146-400-001.png",)
    assert "note: of the 4 slides 3 are whole, 0 are there in part and 1 are absent; 1 published" in str(report)
    assert "note: SOB_M_PC-14-9146-400-001.png: missing" in str(report)


def test_a_list_that_is_no_list_is_one_fault(root):
    (root / "breakhis_folds").mkdir()
    path = root / "breakhis_folds" / "dsfold1.txt"
    lines = "".join(f"{name}|40|1|train\n" for name in NAMES)
    path.write_text(f"\ufeff{lines}\n\n", encoding="utf-8")
    assert verify(root).ok
    for content, trouble in (
        (b"", "empty"),
        (b"<html>404</html>\n", "line 1"),
        (b"name|magnification|fold|train\n", "not a BreakHis file name"),
        (lines.encode("utf-16"), "no text in UTF-8"),
    ):
        path.write_bytes(content)
        line = problems(root)
        assert line.startswith("breakhis_folds/dsfold1.txt: ") and trouble in line


def test_more_than_was_published_is_a_fault(root, monkeypatch):
    counts = LAYOUTS[2].counts | {("benign", 0): 1}
    small = replace(LAYOUTS[2], counts=counts)
    monkeypatch.setattr("histotransfer.datasets.verify.LAYOUTS", (*LAYOUTS[:2], small))
    assert problems(root) == "UCSB: benign images: 2, published are 1"


def test_lung_images_need_duplicate_groups(root):
    (root / lc25000.GROUPS / "lung_aca.csv").write_text("file,group\nlungaca1.jpeg,0\n")
    (root / lc25000.GROUPS / "lung_scc.csv").write_text("file\n")
    first, second = problems(root, 2)
    assert first == "lc25000_groups/lung_scc.csv: needs the columns file,group, each file once and no empty cell"
    assert second == f"{lung('lungaca2.jpeg').as_posix()}: in no duplicate group of lc25000_groups/lung_aca.csv"
    shutil.rmtree(root / lc25000.GROUPS)
    assert "note: lc25000_groups/lung_n.csv is not there: lung_n cannot be split" in str(verify(root))


def test_lists_of_groups_that_are_half_done_are_a_fault_and_said_by_class(root):
    """As a search for them leaves them that was killed after a class. Colon, of which nobody asked, may have none."""
    picture(root / lc25000.FOLDERS["colon_aca"] / "colonca1.jpeg", 500)
    (root / lc25000.GROUPS / "lung_n.csv").unlink()
    (root / lc25000.GROUPS / "lung_scc.csv").write_text("file\n")
    half, broken = problems(root, 2)
    assert half == ("lc25000_groups/lung_n.csv: missing, the lists are half done: `histotransfer data groups` goes on")
    assert broken.startswith("lc25000_groups/lung_scc.csv: needs the columns")
    said = str(verify(root))
    by_class = "lung_aca: 2 images in 2 groups; lung_n: no list; lung_scc: a list that cannot be read"
    assert f"note: lc25000_groups: {by_class}" in said
    assert "note: lc25000_groups/colon_aca.csv is not there: colon_aca cannot be split" in said


def test_a_number_beyond_the_published_is_a_fault(root):
    path = lc25000.FOLDERS["colon_aca"] / "colonca5001.jpeg"
    picture(root / path, 500)
    assert problems(root).startswith(f"{path.as_posix()}: misnamed, not published, colon_aca is numbered from 1 to")


def test_folders_that_are_not_looked_at_are_said(root):
    (root / "other").mkdir()
    assert "note: not looked at: other" in str(verify(root))


def test_a_folder_without_data_sets_is_refused(tmp_path):
    for folder, why in ((tmp_path, "holds none of BreaKHis_v1"), (tmp_path / "nowhere", "no such folder")):
        with pytest.raises(HistotransferError, match=f"{folder}: {why}"):
            verify(folder)


def test_one_worker_finds_the_same(root):
    (root / breast(NAMES[0])).write_bytes(b"x")
    assert verify(root, workers=1) == verify(root, workers=4)


def test_the_real_subset_is_described_exactly(data_root):
    report = verify(data_root)
    assert report.problems == ()
    assert [(part.name, part.images) for part in report.datasets] == [
        ("BreakHis", 1361),
        ("LC25000", 2220),
        ("UCSB", 58),
    ]
    text = str(report)
    assert re.search(r"mucinous_carcinoma +49/205 +38/222 +126/196 +25/169 +7/9\n", text)
    assert "1,361 images are 224x224" in text and "58 images are 448x384" in text
    assert text.endswith("nothing is wrong; subsets of BreakHis, LC25000")

"""Chapter 13: a table of one's own images that can be split honestly."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from histotransfer.book.exercises import NotYet, require, self_check
from histotransfer.datasets.own import load_csv, load_folders
from histotransfer.datasets.table import image_table
from histotransfer.errors import HistotransferError

FILES = ("a1.png", "a2.png", "b1.png", "c1.png")
SLIDES = ("benign/P01_s1_001.png", "benign/P01_s2_001.png", "benign/P12_s1_001.png", "malignant/P03_s1_014.png")


@self_check
def check_csv(text: str) -> str:
    """Exercise `ex-own-csv`: a CSV that `datasets.own` accepts, with patients in it."""
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            (Path(folder) / name).touch()
        path = Path(folder) / "images.csv"
        path.write_text(text, encoding="utf-8")
        try:
            table = load_csv(path)
        except HistotransferError as error:
            raise NotYet(str(error).replace(f"{path}: ", "")) from error
        read = {Path(row.path).name: (row.label, row.patient) for row in table.itertuples()}
    require(set(read) == set(FILES), f"the files are {', '.join(FILES)}")
    require(read["a1.png"][1] == read["a2.png"][1], "a1 and a2 are of one patient")
    require(len({patient for _, patient in read.values()}) == 3, "there are three patients")
    labels = {name: label for name, (label, _) in read.items()}
    require(labels == dict.fromkeys(FILES, "benign") | {"c1.png": "malignant"}, f"the labels came out as {labels}")
    return "every row says whose image it is."


@self_check
def check_pattern(pattern: str) -> str:
    """Exercise `ex-own-pattern`: a pattern that names the patient, not the slide."""
    with tempfile.TemporaryDirectory() as folder:
        for name in SLIDES:
            file = Path(folder) / name
            file.parent.mkdir(exist_ok=True)
            file.touch()
        try:
            table = load_folders(folder, pattern)
        except HistotransferError as error:
            raise NotYet(str(error).replace(f"{Path(folder).resolve()}: ", "")) from error
    patients = sorted(set(table["group"]))
    require(
        patients != sorted(set(table["patient"])) or len(patients) < 4, f"{patients}: P01 stands there as two people"
    )
    require(patients == ["P01", "P03", "P12"], f"the people kept together are {patients}")
    return "two slides of one person stay on one side of every split."


@self_check
def check_most_folds(most_folds: Callable[[pd.DataFrame], int]) -> str:
    """Exercise `ex-own-folds`: the largest number of patient-disjoint folds in which each class is tested."""
    for benign, malignant in ((4, 9), (7, 3)):
        people = [(f"b{i}", "benign") for i in range(benign)] + [(f"m{i}", "malignant") for i in range(malignant)]
        rows = [
            {
                "path": f"/made/{name}-{i}.png",
                "dataset": "made",
                "label": label,
                "patient": f"{name} slide {i % 2}",
                "group": name,
            }
            for name, label in people
            for i in range(5)
        ]
        table = image_table(rows, where="exercise")
        folds, fewest = int(most_folds(table)), min(benign, malignant)
        about = f"{benign} benign and {malignant} malignant patients: {folds} folds"
        require(folds <= benign + malignant, f"{about}; count people, not images")
        require(folds != 2 * fewest, f"{about}; two slides of one person cannot be in two folds: count `group`")
        require(folds <= fewest, f"{about}; in one of them a class would have nobody to test")
        require(folds == fewest, f"{about}; more are possible")
    return "the rarer class sets the limit, however many images it has."

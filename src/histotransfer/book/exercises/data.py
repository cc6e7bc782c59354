"""Chapter 01: who an image belongs to."""

from collections.abc import Callable, Mapping, Set

import numpy as np
import pandas as pd

from histotransfer.book.exercises import require, self_check
from histotransfer.datasets.table import image_table
from histotransfer.splits import grouped_split

SEEDS = 20  # a split that has both classes only by luck lacks one under some of them
Images = list[tuple[str, str, str, int]]  # base number, letters of the slide, label, images
PEOPLE: Images = [
    ("14-1", "AB", "benign", 3),
    ("14-1", "CD", "benign", 2),
    ("14-2", "", "benign", 1),
    ("14-3", "", "malignant", 4),
    ("14-4", "A", "malignant", 2),
    ("14-5", "", "malignant", 1),
]


def _table(people: Images) -> pd.DataFrame:
    rows = [
        {
            "path": f"/made/{group}{letters}-{i}.png",
            "dataset": "made",
            "label": label,
            "patient": group + letters,
            "group": group,
        }
        for group, letters, label, images in people
        for i in range(images)
    ]
    return image_table(rows, where="exercise")


@self_check
def check_people(people: Callable[[pd.DataFrame], pd.Series]) -> str:
    """Exercise `ex-data-people`: independent patients of each label."""
    table = _table(PEOPLE)
    found = people(table)
    require(isinstance(found, Mapping | pd.Series), "return one number per label, as a Series or a dictionary")
    counts = {label: int(count) for label, count in dict(found).items()}
    by_label = table.groupby("label")
    require(counts != by_label.size().to_dict(), "these are images; how many people do they come from?")
    require(
        counts != by_label["patient"].nunique().to_dict(),
        "these are slide ids: 14-1AB and 14-1CD may be one person, and the strict reading says so",
    )
    require(counts == by_label["group"].nunique().to_dict(), f"for the made table this gives {counts}")
    return "the table has more rows than slides and more slides than people; evidence is counted in people."


@self_check
def check_leaking(leaking: Callable[[pd.DataFrame], set[str]]) -> str:
    """Exercise `ex-data-leak`: base numbers that are in more than one part."""
    table = _table(PEOPLE)
    honest = table.assign(split=table["group"].map(lambda group: "test" if group in ("14-2", "14-5") else "train"))
    by_slide = table.assign(split=table["patient"].map(lambda slide: "test" if slide == "14-1CD" else "train"))
    by_image = table.assign(split=["train", "validation", "test"] * (len(table) // 3) + ["train"] * (len(table) % 3))
    found = leaking(honest)
    require(isinstance(found, Set | list), f"return a set of base numbers; this is a {type(found).__name__}")
    require(set(found) == set(), "it accuses a split that keeps every base number in one part")
    require(set(leaking(by_image)), "it finds nothing where one person's images are in all three parts")
    require(
        set(leaking(by_slide)) == {"14-1"},
        "one split holds slide 14-1CD out and trains on 14-1AB: ask who the person is, not which slide it was",
    )
    parts = by_image.groupby("group")["split"].nunique()
    require(set(leaking(by_image)) == set(parts.index[parts > 1]), "it does not name all of those who leak")
    return "no pixel was looked at: who an image is of suffices to find this leak."


@self_check
def check_test_mask(test_mask: Callable[[pd.DataFrame, int], np.ndarray]) -> str:
    """Exercise `ex-data-split`: about a fifth of the patients as a test part, none divided, both classes in it."""
    people = [(f"14-{i}", "", "benign" if i % 3 else "malignant", 1 + i % 4) for i in range(30)]
    people += [(f"14-{i}", "B", "benign" if i % 3 else "malignant", 2) for i in range(8)]
    table = _table(people)
    masks = []
    for seed in range(SEEDS):
        mask = np.asarray(test_mask(table, seed))
        require(mask.shape == (len(table),) and mask.dtype == bool, "return one True or False for each row")
        masks.append(mask)
        test, train = set(table["group"][mask]), set(table["group"][~mask])
        require(test and train, "one of the two parts is empty")
        require(not test & train, f"{len(test & train)} of {len(test)} test patients are also in training")
        require(set(table["label"][mask]) == {"benign", "malignant"}, "the test part lacks a class: stratify by label")
        require(0.1 <= len(test) / 30 <= 0.3, f"{len(test)} of 30 patients are tested; a fifth was asked for")
    require(any((mask != masks[0]).any() for mask in masks), "every seed gives the same split")
    require((np.asarray(test_mask(table, 0)) == masks[0]).all(), "one seed gives two splits: nobody can repeat it")
    ours = grouped_split(table, seed=0)["split"].eq("test").sum()
    return f"of {len(table)} images yours tests {masks[0].sum()}, `grouped_split` {ours}: patients are of unequal size."

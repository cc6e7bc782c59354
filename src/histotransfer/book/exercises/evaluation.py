"""Chapter 05: what an interval says, what a patient's score is, how patients are redrawn."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from histotransfer.book.exercises import letters, require, self_check

MISREADINGS = {
    "a": "an interval that holds 0 says that no difference is shown, not that the two are equal",
    "d": "the interval is about the mean over patients; it says nothing of single patients",
}
RIGHT = {"b", "c", "e"}


@self_check
def check_statements(statements: Iterable[str]) -> str:
    """Exercise `ex-evaluation-interval`: which statements an interval of a difference carries."""
    chosen = letters(statements)
    for letter, why in MISREADINGS.items():
        require(letter not in chosen, f"({letter}) does not follow: {why}")
    require(chosen == RIGHT, f"what you chose follows, and {len(RIGHT - chosen)} more of the statements as well")
    return "not telling two methods apart is a statement about the evidence, not about the methods."


@self_check
def check_recognition_rate(recognition_rate: Callable[[pd.DataFrame], float]) -> str:
    """Exercise `ex-evaluation-prr`: the patient recognition rate of unequal patients."""
    right = {"14-1": [1] * 9 + [0], "14-2": [0, 0], "14-3": [1, 0, 0, 0], "14-4": [1]}
    predictions = pd.DataFrame([{"patient": slide, "right": bool(r)} for slide, marks in right.items() for r in marks])
    rate, expected = recognition_rate(predictions), np.mean([np.mean(marks) for marks in right.values()])
    by_image = predictions["right"].mean()
    require(np.ndim(rate) == 0, "this is one share per patient; average them")
    require(abs(rate - by_image) > 1e-9, f"{rate:.3f} is the share of images: the patient with ten counts ten times")
    votes = np.mean([np.mean(marks) > 0.5 for marks in right.values()])
    require(abs(rate - votes) > 1e-9, f"{rate:.3f} is a vote of each patient's images; a share of them was asked for")
    require(abs(rate - expected) < 1e-9, f"{rate:.3f}, where it should be {expected:.3f}")
    return f"{expected:.3f}, where the share of right images is {by_image:.3f}."


@self_check
def check_redraw(redraw: Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]) -> str:
    """Exercise `ex-evaluation-redraw`: one redraw of a bootstrap over patients."""
    images = {f"14-{i}": 2 + i for i in range(8)}
    table = pd.DataFrame([{"group": group, "image": f"{group}-{i}"} for group, n in images.items() for i in range(n)])
    generator, sizes, repeated, drawn_times = np.random.default_rng(0), set(), False, pd.Series(0, index=list(images))
    for _ in range(300):
        drawn = redraw(table, generator)
        times = drawn["image"].value_counts()
        require(set(times.index) <= set(table["image"]), "a redraw holds images of the table only")
        per_group = times.groupby(times.index.map(table.set_index("image")["group"])).agg(["nunique", "size", "max"])
        whole = (per_group["nunique"] == 1).all() and (per_group["size"] == per_group.index.map(images)).all()
        require(whole, "a patient comes with all images or none, and each image as often as the patient was drawn")
        require(
            per_group["max"].sum() == len(images),
            f"draw {len(images)} patients, as many as there are; who is drawn twice comes with each image twice",
        )
        repeated |= bool((per_group["max"] > 1).any())
        drawn_times = drawn_times.add(per_group["max"], fill_value=0)
        sizes.add(len(drawn))
    require(repeated, "nobody is ever drawn twice: draw with replacement")
    require(len(sizes) > 1, "every redraw has the same number of images; patients have different numbers of them")
    often = drawn_times.max() > 400 or drawn_times.min() < 200  # 300 on average, with a deviation of 16
    require(not often, "patients with many images are drawn more often: draw from the *different* patients")
    one, other = (redraw(table, np.random.default_rng(1)) for _ in range(2))
    require(one["image"].tolist() == other["image"].tolist(), "one generator must give one redraw: use `generator`")
    return "redrawing images instead would pretend that a patient's tenth image is a new patient."

import pytest

from histotransfer.evaluation.sets import CANNOT_TELL, answer

NAMES = ["benign", "malignant"]


@pytest.mark.parametrize(
    ("benign", "limit", "expected"),
    [
        (0.9, 0.5, "benign"),
        (0.1, 0.5, "malignant"),
        (0.55, 0.7, CANNOT_TELL),  # both are left
        (0.55, 0.2, CANNOT_TELL),  # none is
        (0.55, 0.5, "benign"),
    ],
)
def test_an_answer_is_one_class_or_none(benign, limit, expected):
    assert answer([benign, 1 - benign], NAMES, limit) == expected


def test_without_a_limit_there_is_no_answer():
    assert answer([0.9, 0.1], NAMES, None) == ""

"""Names compared as people read them."""

import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from histotransfer.datasets.identities import clean, is_missing, is_part, spellings

text = st.text(st.characters(codec="utf-8"), max_size=12)
plain = st.from_regex(r"[A-Za-z]{1,4}[1-9][0-9]{0,4}", fullmatch=True)


@given(text)
def test_a_clean_name_is_clean(name):
    once = clean(name)
    assert clean(once) == once == once.strip()
    assert unicodedata.is_normalized("NFC", once)


@given(text)
def test_normal_forms_of_one_name_are_one_name(name):
    assert clean(unicodedata.normalize("NFD", name)) == clean(unicodedata.normalize("NFC", name))


@given(plain, st.sampled_from([" ", "\u00a0", "\u200b", "\ufeff", "\u00ad", "\t", "\u2060", "\u200e", "\ufe0f", "\0"]))
def test_what_is_invisible_makes_no_other_name(name, invisible):
    assert clean(name + invisible) == clean(invisible + name) == name


@given(plain, plain)
def test_names_that_differ_otherwise_stay_apart(one, other):
    assume(one.lower() != other.lower())
    assert spellings([one, other]) == []


@given(st.sets(text.map(clean), max_size=6))
def test_spellings_are_groups_of_the_names_given(names):
    groups = spellings(names)
    assert all(len(group) > 1 for group in groups)
    grouped = [name for group in groups for name in group]
    assert len(grouped) == len(set(grouped)) and set(grouped) <= names


@pytest.mark.parametrize(
    "pair",
    [
        ("Benign", "benign"),
        ("STRASSE", "straße"),
        ("0", "0.0"),
        ("14", "14.00"),
        ("14", "14,0"),
        ("1422549", "01422549"),
        ("P1", "P01"),
        ("14-022", "14-22"),
        ("P 1", "P1"),
        ("14-22549", "14\u201322549"),
        ("14-22549", "14\u221222549"),
        ("14", "\uff11\uff14"),
        ("ﬁbroma", "fibroma"),
        ("P0", "P00"),
        ('"B0"', "B0"),
        ("'007", "7"),
        ("P_7", "P-7"),
        ("P 7", "P7"),
        ("14/22549", "14-22549"),
        ("14.5", "14,5"),
        ("Smith J.", "Smith J"),
        ("\u0420\u04101", "PA1"),
        ("b\u0435nign", "benign"),
        ("\u0391\u0392", "AB"),
        ("\u0661\u0662", "12"),
    ],
)
def test_names_that_people_may_read_as_one(pair):
    assert spellings(pair) == [sorted(pair)]


@pytest.mark.parametrize(
    "names",
    [
        ("14-22549AB", "14-22549CD"),
        ("P1", "P10"),
        ("1.5", "1.05"),
        ("a", "b"),
        ("1", "1.1"),
        ("10", "1"),
        ("P1 1", "P11"),
        ("P1-1", "P11"),
        ("HER2+", "HER2-"),
        ("HER2-", "HER2"),
        ("\u0915\u093f", "\u0915\u0940"),
        ("\u0438", "\u0448"),
    ],
)
def test_names_that_are_two(names):
    assert spellings(names) == []


@pytest.mark.parametrize(
    "name",
    ["", "nan", "NaN", "NA", "n/a", "None", "NULL", "#N/A", "<NA>", "unknown", "?", "--", "\u2014", "N.A.", "#REF!",
     "#DIV/0!", "(null)", "undefined", "-nan", "1.#QNAN", "not known", "1.41093E+06"],
)  # fmt: skip
def test_what_stands_for_no_name(name):
    assert is_missing(name)


@pytest.mark.parametrize("name", ["Nan Li", "na-1", "nil", "0", "known", "E+1", "1E5", "#7"])
def test_names_that_only_begin_so(name):
    assert not is_missing(name)


@pytest.mark.parametrize(
    "label",
    ["train", "Test", "val", "validation", "TRAINING", "test_set", "valid", "train data", "trn", "holdout", "fold1",
     "Fold 2", "train1", "Train (1)", "split0", "eval"],
)  # fmt: skip
def test_parts_of_a_split_are_no_classes(label):
    assert is_part(label)


@pytest.mark.parametrize("label", ["benign", "tested", "trained", "protest", "normal", "1", "folded", "cv"])
def test_classes_are_no_parts(label):
    assert not is_part(label)

import matplotlib as mpl

from histotransfer import figures


def test_classes_are_told_apart_by_the_colour_blind_palette():
    assert figures.CLASS_COLOURS["benign"] != figures.CLASS_COLOURS["malignant"]
    with mpl.rc_context():
        figures.use_style()
        assert mpl.rcParams["figure.facecolor"] == "white"

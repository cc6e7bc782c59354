import matplotlib as mpl
from IPython.core.formatters import DisplayFormatter

from histotransfer import figures
from histotransfer.records import read_run


def test_ipython_publishes_the_alt_text_with_the_picture():
    figure = figures.learning_curves(read_run("results/spine/ladder").history)
    formatter = DisplayFormatter()
    formatter.formatters["image/png"].for_type(type(figure), lambda drawn: b"picture")
    data, metadata = formatter.format(figure)
    assert data["image/png"] == b"picture"
    assert metadata["image/png"] == {"alt": figure.alt}


def test_classes_are_told_apart_by_the_colour_blind_palette():
    assert figures.CLASS_COLOURS["benign"] != figures.CLASS_COLOURS["malignant"]
    with mpl.rc_context():
        figures.use_style()
        assert mpl.rcParams["figure.facecolor"] == "white"

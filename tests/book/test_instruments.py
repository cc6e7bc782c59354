"""What a reader moves: its numbers against the module's, by keyboard, without a network, and without JavaScript."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from scipy.stats import beta

from histotransfer.book.instruments import bet_on_leakage, stain_sliders, stained, threshold_slider
from histotransfer.datasets.phantom import breast_image
from histotransfer.evaluation.formatting import number
from histotransfer.evaluation.metrics import MALIGNANT, patient_table, scores
from histotransfer.records import read_run
from histotransfer.report.tables import gap, with_intervals

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "book/_static"
FIELD = breast_image(0, 200, 0, size=64)
CHAPTERS = {"stains": "02_normalization", "threshold": "05_evaluation", "bet": "06_leakage"}


@pytest.fixture(scope="module")
def predictions():
    random = np.random.default_rng(0)
    truth = np.repeat(["benign", "malignant"], 30)
    logit = random.normal(np.where(truth == "malignant", 1, -1), 2)
    groups = [f"p{i // 3}" for i in range(60)]
    return pd.DataFrame(
        {"image": map(str, range(60)), "group": groups, "truth": truth, "logit_benign": 0.0, "logit_malignant": logit}
    )


@pytest.fixture(scope="module")
def leakage():
    """Table and gap of the real records."""
    names = {"by patient": "breakhis-by-patient", "by image": "breakhis-by-image"}
    runs = {name: read_run(ROOT / "results/leakage" / run) for name, run in names.items()}
    return with_intervals(runs), gap(*runs.values(), metrics=["auroc"])


def numbers(made):
    return json.loads(BeautifulSoup(made.data, "html.parser").script.text)


def of_patients(predictions, at):
    """Sensitivity and specificity by patient, counted one by one."""
    table = patient_table(predictions)
    called = pd.Series(scores(table) >= at)
    ill = table["truth"] == MALIGNANT
    return int((called & ill).sum()), int(ill.sum()), int((~called & ~ill).sum()), int((~ill).sum())


def share(count, of):
    """With the interval of Clopper and Pearson, by the quantiles of its two beta distributions."""
    low = beta.ppf(0.025, count, of - count + 1) if count else 0
    high = beta.ppf(0.975, count + 1, of - count) if count < of else 1
    return f"{number(count / of, low, high)} ({count} of {of} patients)"


def test_the_static_views_hold_the_modules_numbers(predictions, leakage):
    made = BeautifulSoup(threshold_slider(predictions).data, "html.parser")
    hit, ill, passed, well = of_patients(predictions, 0.5)
    assert share(hit, ill) in made.text and share(passed, well) in made.text
    table, difference = leakage
    known = numbers(bet_on_leakage(table, difference))
    by_image = table.query("run == 'by image' and metric == 'auroc' and magnification == 'mean'").iloc[0]
    assert known["splits"]["by image"][known["magnifications"].index("mean")] == [
        by_image["value"],
        by_image["low"],
        by_image["high"],
    ]
    pictures = BeautifulSoup(stain_sliders(FIELD).data, "html.parser")("img")
    assert len(pictures) == 3 and all(picture["alt"] for picture in pictures)


def test_every_instrument_is_short_and_loads_nothing():
    for path in (STATIC / "instruments").glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert path.stem in CHAPTERS and len(text.splitlines()) < 150
        assert not re.search(r"\bfetch\(|\bimport\b|XMLHttpRequest|https?://(?!www\.w3\.org/2000/svg)", text)


@pytest.fixture
def shown(browser, served, tmp_path):
    """A function: a page with one instrument, open in a browser, and what it asked for."""
    context = browser.new_context(viewport={"width": 360, "height": 800})
    (tmp_path / "_static").symlink_to(STATIC)

    def show(name, made):
        script = f'<script defer src="_static/instruments/{name}.js"></script>'
        (tmp_path / "page.html").write_text(
            f'<!doctype html><meta charset=utf-8><link rel=icon href="data:,">{script}<main>{made.data}</main>'
        )
        page = context.new_page()
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(f"{address}/page.html")
        page.locator(".instrument-live").wait_for()
        assert {url.rpartition("/")[2] for url in page.asked if url.startswith("http")} == {"page.html", f"{name}.js"}
        return page

    with served(tmp_path) as address:
        yield show
    context.close()


def pixels(page):
    return np.array(
        page.evaluate(
            """() => { const one = document.querySelector('canvas');
            return [...one.getContext('2d').getImageData(0, 0, one.width, one.height).data]; }"""
        )
    ).reshape(64, 64, 4)[..., :3]


@pytest.mark.slow
def test_sliders_draw_what_the_law_gives(shown):
    page = shown("stains", stain_sliders(FIELD))
    assert np.abs(pixels(page) - FIELD.image).max() <= 2  # amounts are sent in 255 steps
    sliders = page.locator("input[type=range]")
    sliders.nth(0).focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    sliders.nth(1).focus()
    page.keyboard.press("End")
    assert page.locator("output").all_inner_texts() == ["× 0.50", "× 2.00"]
    assert np.abs(pixels(page) - stained(FIELD, (0.5, 2)).astype(int)).max() <= 3
    told = [float(one) for one in re.findall(r"\d\.\d\d", page.locator(".instrument-told").inner_text())]
    density = (FIELD.concentrations * np.array([0.5, 2])) @ FIELD.stain_matrix
    assert told == pytest.approx(density.mean(axis=(0, 1)), abs=0.01)
    page.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert page.locator("output").all_inner_texts() == ["× 1.00", "× 1.00"]


@pytest.mark.slow
def test_the_threshold_counts_patients_as_the_module_does(shown, predictions):
    page = shown("threshold", threshold_slider(predictions))
    slider = page.locator("input[type=range]")
    slider.focus()
    for key, at in (("", 0.5), ("ArrowRight", 0.51), ("Home", 0.0), ("End", 1.0)):
        if key:
            page.keyboard.press(key)
        hit, ill, passed, well = of_patients(predictions, at)
        words = page.locator("td").all_inner_texts()
        assert page.locator("output").inner_text() == f"{at:.2f}"
        assert words == [
            share(hit, ill),
            share(passed, well),
            str(ill - hit),
            str(well - passed),
        ]
        assert page.locator("circle.wrong").count() == ill - hit + well - passed


@pytest.mark.slow
def test_the_answer_comes_after_the_bet(shown, leakage):
    table, difference = leakage
    page = shown("bet", bet_on_leakage(table, difference))
    row = difference.query("metric == 'auroc' and magnification == 'mean'").iloc[0]
    assert f"{row['value']:.2f}" not in page.locator("main").inner_text() and not page.locator("svg").count()
    page.locator("input").focus()
    page.keyboard.type("0.05")
    page.keyboard.press("Enter")
    told = page.locator(".instrument-told").inner_text()
    assert f"It rose by {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" in told
    assert f"{abs(0.05 - row['value']):.2f} too {'high' if row['value'] < 0.05 else 'low'}" in told
    page.locator("input[type=radio]").first.focus()
    page.keyboard.press("ArrowDown")
    title = page.locator("svg title").text_content()
    of_split = table.query("run == 'by image' and metric == 'auroc'").set_index("magnification")["value"]
    assert title.startswith("AUROC, split by image: ")
    assert dict(re.findall(r"(\w+) (\d\.\d\d)", title.partition(": ")[2])) == {
        at: f"{value:.2f}" for at, value in of_split.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(("name", "chapter"), CHAPTERS.items())
def test_on_its_page_it_fits_a_phone_and_a_screen_reader(browser, address, accessibility, name, chapter):
    context = browser.new_context(viewport={"width": 360, "height": 800})
    page = context.new_page()
    page.goto(f"{address}/notebooks/{chapter}.html")
    live = page.locator(f"[data-instrument={name}] .instrument-live")
    live.wait_for()
    if name == "bet":
        live.locator("input").fill("0.1")
        live.get_by_role("button").click()
    assert live.evaluate("one => one.scrollWidth <= one.parentElement.clientWidth + 1")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert accessibility(page) == []
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "chapter"), CHAPTERS.items())
def test_without_javascript_its_static_view_stands_there(browser, address, name, chapter):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/notebooks/{chapter}.html")
    assert page.locator(f"[data-instrument={name}] .instrument-static").is_visible()
    assert not page.locator(".instrument-live").count()
    context.close()

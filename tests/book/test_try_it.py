"""The page "Try it" in a browser, against `predict`: with networks of each kind that it knows, and that which ships."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from histotransfer.datasets.phantom import breast_image
from histotransfer.deploy.browser import FIELDS, WARNING, write_for_browser
from histotransfer.deploy.notes import UNLIKE
from histotransfer.deploy.predict import SHIPPED, Prediction, Predictor, Trouble
from histotransfer.deploy.rows import of_patient
from histotransfer.evaluation.familiarity import Familiarity
from histotransfer.models.se_densenet import WithFeatures
from histotransfer.models.weights import save_model
from histotransfer.pictures import resize
from histotransfer.stain import StainJitter

ROOT = Path(__file__).parents[2]
TOLERANCE = 0.005  # of a probability; what the page states
REFUSED = ["grey", "dark", "small", "transparent", "text"]
MANY = 600_000  # milliseconds: sixteen views on a machine that has much else to do

pytestmark = pytest.mark.slow

BASE = {"classes": ["benign", "malignant"], "size": 96, "profile": "lite", "imagenet": "none", "reference": []}
KINDS = {
    "as scanned, upright": {"normaliser": "none", "views": {"views": 1, "augmentation": "none"}},
    "all turns": {
        "normaliser": "none",
        "views": {"views": 8, "augmentation": "views"},
        "sets": {"picture": 0.6, "patient": 0.5},
    },
    "normalised and jittered, with gates": {
        "normaliser": "macenko",
        "views": {"views": 4, "augmentation": "views+stain", "averaged": 6},
        "temperature": 1.5,
        "sets": {"picture": 0.45},
    },
}


def field(patient=15, size=120):
    return breast_image(patient, 200, 0, size=size).image.copy()


def made_pictures(folder):
    """Ordinary ones, those that get a note, and those that are refused."""
    tissue = field()
    pen = tissue.copy()
    cv2.line(pen, (10, 15), (110, 80), (20, 130, 60), 9)
    speck = np.full_like(tissue, 240)
    speck[50:64, 50:64] = tissue[:14, :14]
    one_colour = np.full_like(tissue, (200, 120, 190))
    pictures = {
        "benign": field(3, 131),
        "malignant": tissue,
        "wide": field(16, 200)[:130],
        "enlarged": field(4, 40),
        "strip": field(17, 200)[:50],
        "pen": pen,
        "glass": speck,
        "one-colour": one_colour,
        "red-and-blue": np.where(np.arange(120)[:, None, None] < 60, (220, 40, 40), (60, 60, 220)).astype(np.uint8)
        + 0 * tissue,
        "blurred": cv2.GaussianBlur(tissue, (0, 0), 5),
        "exact": field(5, 96),
        "grey": np.repeat(tissue[..., :1], 3, axis=2),
        "dark": tissue // 6,
        "small": tissue[:12],
    }
    paths = []
    for name, pixels in pictures.items():
        paths.append(folder / f"{name}.png")
        Image.fromarray(pixels).save(paths[-1])
    clear = np.dstack([tissue, np.full(tissue.shape[:2], 128, np.uint8)])
    Image.fromarray(clear).save(folder / "transparent.png")
    (folder / "text.png").write_text("no picture")
    return [*paths, folder / "transparent.png", folder / "text.png"]


@pytest.fixture(scope="module", params=KINDS)
def made(request, make_model, tmp_path_factory):
    """A page with a small network: its folder, the network's file."""
    root = tmp_path_factory.mktemp("site")
    model = make_model(positions=("transition",)) if "gates" in request.param else make_model(positions=())
    model = model.half().float()
    architecture = {
        "num_classes": 2,
        "block_config": [2, 2, 2, 2],
        "growth_rate": 8,
        "stem_features": 16,
        "reduction": 4,
    }
    architecture["positions"] = ["transition"] if "gates" in request.param else []
    beside = {}
    if "sets" in KINDS[request.param]:
        features = WithFeatures(model).eval()
        with torch.inference_mode():
            random = np.random.default_rng(0)
            known = np.concatenate(
                [features(torch.randn(8, 3, 96, 96) * scale).numpy()[:, 2:] for scale in random.uniform(0.5, 2, 4)]
            )
        fitted = Familiarity.fit(known)
        beside = fitted.with_threshold(fitted.distances(known) * 1.5).tensors()
    weights = root / "network.safetensors"
    save_model(model.half(), weights, BASE | KINDS[request.param] | {"architecture": architecture}, beside)
    for name in ("try-it", "onnxruntime"):
        shutil.copytree(ROOT / "book/_static" / name, root / "_static" / name)
    write_for_browser(weights, root / "_static/try-it")
    # A page of its own, with what stands on the book's.
    (block,) = re.findall(r"```\{raw\} html\n([\s\S]*?)\n```", (ROOT / "book/try-it.md").read_text(encoding="utf-8"))
    (root / "book").mkdir()
    (root / "book/try-it.html").write_text(
        f"<!doctype html><meta charset=utf-8><link rel=icon href=data:,><title>Try it</title><main>{block}</main>"
    )
    return root, weights


@pytest.fixture
def page(browser):
    """A page that notes what it asked for and what went wrong on it."""
    context = browser.new_context(viewport={"width": 360, "height": 800})
    one = context.new_page()
    one.asked, one.trouble = [], []
    one.on("request", lambda request: one.asked.append(request.url))
    one.on("console", lambda message: one.trouble.append(message.text) if message.type == "error" else None)
    one.on("pageerror", lambda error: one.trouble.append(str(error)))
    yield one
    context.close()


def loaded(page, address):
    page.goto(f"{address}/book/try-it.html")
    page.locator("[data-part=load]").wait_for()
    assert not [
        url for url in page.asked if url.endswith((".onnx", ".gz", "worker.js"))
    ]  # nothing heavy before it is asked for
    page.keyboard.press("Tab")
    page.locator("[data-part=load]").focus()
    page.keyboard.press("Enter")
    page.locator("[data-part=pictures]").wait_for(timeout=MANY)
    assert page.evaluate("document.activeElement.id") == "try-it-file"


def answers(page, count):
    """What the page says of each picture: the answer's list as a dict, or why there is none."""
    page.locator(".try-it-answers > li").nth(count - 1).wait_for(timeout=MANY)
    return [said(one) for one in page.locator(".try-it-answers > li").all()]


def said(card):
    if not card.locator("dl").count():
        return card.inner_text()
    assert WARNING in card.inner_text()
    values = {one.get_attribute("data-value"): one.inner_text() for one in card.locator("dd[data-value]").all()}
    return values | {"chances": json.loads(card.locator("dl").get_attribute("data-chances"))}


def compare(predictions, found):
    for expected, shown in zip(predictions, found, strict=True):
        if isinstance(expected, Trouble):
            assert isinstance(shown, str) and Path(expected.file).name in shown, (expected, shown)
            continue
        assert isinstance(shown, dict), (expected, shown)
        assert shown["notes"] == (expected.note or "none"), expected.file
        assert np.abs(np.subtract(shown["chances"], expected.probabilities)).max() < TOLERANCE, (expected, shown)
        assert shown.get("set", "") == expected.set, expected.file
        if max(expected.probabilities) > 0.5 + TOLERANCE:
            assert shown["answer"].startswith(f"{expected.label}, "), expected.file


def test_the_page_says_what_predict_says(made, served, page, tmp_path):
    root, weights = made
    predictor, pictures = Predictor(weights), made_pictures(tmp_path)
    expected = list(predictor.predict(pictures))
    notes = " ".join(one.note for one in expected if isinstance(one, Prediction))
    assert all(note in notes for note in ("too little tissue", "pen ink", "unusual size", "out of focus"))
    assert [Path(one.file).stem for one in expected if isinstance(one, Trouble)] == REFUSED
    if predictor.familiarity:
        assert any("unlike" in one.note for one in expected if isinstance(one, Prediction))
    with served(root) as address:
        loaded(page, address)
        page.locator("#try-it-file").set_input_files(pictures)
        compare(expected, answers(page, len(pictures)))
        assert all(url.startswith((address, "blob:", "data:")) for url in page.asked)
        good = [one for one in expected if isinstance(one, Prediction)]
        patient, spread = of_patient("one", good, predictor.description)
        together = page.locator("[data-part=patient]")
        compare([patient], [said(together)])
        shown = float(together.locator("[data-spread]").get_attribute("data-spread"))
        assert shown == pytest.approx(spread, abs=10 * TOLERANCE)
        temperature = predictor.description.temperature
        assert ("temperature 1.50" in together.inner_text()) == (temperature == 1.5)
        page.locator("[data-part=clear]").click()
        assert not page.locator(".try-it-answers > li").count() and not together.is_visible()
    assert page.trouble == []


def test_the_network_that_ships_gives_the_answers_of_predict(address, page, accessibility):
    """On the site: the page's own phantoms, and what its readers are told."""
    pictures = [ROOT / "_build/html/_static/try-it" / f"{name}.png" for name in FIELDS]
    loaded(page, address)
    words = page.locator("main").inner_text()
    assert WARNING.rstrip(".") in words
    stated = float(re.search(r"Load the network \((\d+) MB\)", page.locator("[data-part=load]").text_content())[1])
    sizes = [
        (ROOT / "_build/html" / url.split("/", 3)[3]).stat().st_size
        for url in page.asked
        if url.endswith((".onnx", ".gz"))
    ]
    assert len(sizes) == 2 and abs(sum(sizes) / 1e6 - stated) <= 1
    late = []
    page.route(f"**/{pictures[0].name}", lambda route: late.append(route))  # answers keep the order of the clicks
    for button in page.locator(".try-it-phantom").all():
        button.focus()
        page.keyboard.press("Enter")
    for route in late:
        route.continue_()
    found = answers(page, len(pictures))
    compare(list(Predictor(SHIPPED).predict(pictures)), found)
    said = [one["notes"].split("; ") for one in found]
    assert {"pen ink", "too little tissue"} <= set().union(*said)
    assert any(notes == [UNLIKE] for notes in said)  # nothing else is odd about drawn tissue
    assert all(url.startswith((address, "blob:", "data:")) for url in page.asked)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert accessibility(page) == [] and page.trouble == []


def test_without_javascript_the_page_says_so(address, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/book/try-it.html")
    assert page.get_by_text("JavaScript is off in this browser").is_visible()
    assert not page.locator("[data-part=load]").is_visible()
    context.close()


@pytest.mark.parametrize(("height", "width", "size"), [(61, 47, 32), (32, 90, 32), (20, 17, 48), (300, 201, 64)])
def test_pictures_are_squeezed_to_the_last_bit_as_pillow_does(served, page, height, width, size):
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with served(ROOT / "book/_static") as address:
        page.goto(f"{address}/try-it/LICENSE-not-there")
        got = page.evaluate(
            """async ([pixels, width, height, size]) =>
                [...(await import('/try-it/picture.js')).resize({pixels, width, height}, size)]""",
            [pixels.ravel().tolist(), width, height, size],
        )
    assert np.array_equal(got, resize(pixels, size).ravel())


def test_draws_of_jitter_are_those_of_numpy(served, page):
    tile = field(size=40)
    with served(ROOT / "book/_static") as address:
        page.goto(f"{address}/try-it/not-there")
        drawn = page.evaluate(
            """async ([tile, known]) => {
                const draws = await import('/try-it/draws.js'), stains = await import('/try-it/stains.js');
                const own = stains.stainsOf(tile, known);
                return [1, 2, 3].map(number => {
                    const {alpha, beta} = draws.draw(Uint8ClampedArray.from(tile), number, known.jitter);
                    return [...stains.jittered(tile, own, alpha, beta, known)];
                });
            }""",
            [tile.ravel().tolist(), settings()],
        )
    jitter = StainJitter()
    for number, got in enumerate(drawn, start=1):
        expected = jitter(tile, number).ravel().astype(int)
        assert np.abs(np.array(got) - expected).max() <= 1
        assert (np.array(got) != expected).mean() < 0.01


def settings():
    from histotransfer.deploy.browser import _settings
    from histotransfer.models.description import Description

    architecture = {"num_classes": 2}
    known = Description(
        **BASE
        | KINDS["as scanned, upright"]
        | {"architecture": architecture, "views": {"views": 1, "augmentation": "none"}}
    )
    return json.loads(json.dumps(_settings(known)))

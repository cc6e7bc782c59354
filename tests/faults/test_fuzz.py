"""Files with one thing wrong: weights, records, plans, tables, pictures. Each is taken or refused in one line, quickly.

Every input is a sound file in which one value, key or stretch of bytes was changed. `HISTOTRANSFER_FUZZ` is how many
are tried of each kind (2,500).
"""

import copy
import io
import json
import math
import os
import shutil
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from histotransfer.config import ladder_config
from histotransfer.datasets.own import load
from histotransfer.deploy.predict import Predictor
from histotransfer.errors import HistotransferError
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.pictures import decode
from histotransfer.records import difference
from histotransfer.study.plan import read_plan

pytestmark = pytest.mark.slow
EXAMPLES = int(os.environ.get("HISTOTRANSFER_FUZZ", "2500"))
SECONDS = 10
many = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    st.sampled_from([0, -1, 10**9, 2**64, 10**4000, math.nan, math.inf]),
    st.sampled_from(["224", "", "a\nb", "\x1b[2J", "9" * 5000, [[]], {}]),
    st.integers(2, 3000).map(lambda depth: ("deep", depth)),
)  # fmt: skip


def places(value, path=()):
    """Every place in nested lists and dictionaries."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


@st.composite
def changed(draw, sound):
    """A copy of nested values with one of them replaced, removed or joined by another."""
    value = copy.deepcopy(sound)
    *before, last = draw(st.sampled_from([path for path in places(value) if path]))
    holder = value
    for key in before:
        holder = holder[key]
    kind = draw(st.sampled_from(["replace", "remove", "add"]))
    if kind == "remove":
        del holder[last]
    elif kind == "add" and isinstance(holder, dict):
        holder[draw(st.text(max_size=20))] = draw(ODD)
    else:
        holder[last] = draw(ODD)
    return value


def as_json(value):
    """As text: deep places are written as such, for Python's own writer would not go there."""
    if isinstance(value, tuple):
        return "[" * value[1] + "]" * value[1]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {as_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_json, value)) + "]"
    if isinstance(value, int) and abs(value) > 10**3000:
        return "1" + "0" * 4500  # Python refuses to write it
    return json.dumps(value)


def taken_or_refused(read):
    """`read` succeeds or says in one line what is wrong, within `SECONDS`."""
    begin = time.monotonic()
    try:
        read()
    except HistotransferError as error:
        assert "\n" not in str(error) and 0 < len(str(error)) < 2000
    assert time.monotonic() - begin < SECONDS


ARCHITECTURE = {"num_classes": 2, "positions": ["block"], "reduction": 16, "gate": "identity"}
ARCHITECTURE |= {"block_config": [1, 1], "growth_rate": 4, "stem_features": 4}
DESCRIPTION = {
    "architecture": ARCHITECTURE,
    "classes": ["benign", "malignant"],
    "size": 32,
    "profile": "phantom",
    "views": {"views": 4, "augmentation": "views"},
    "normaliser": "reinhard",
    "reference": [[60.0, 10.0, -5.0], [9.0, 9.0, 9.0]],
    "imagenet": "random",
    "config": ladder_config("phantom").model_dump(mode="json"),
    "data": {"name": "breakhis", "images": 10, "patients": 5, "fingerprint": "0"},
    "temperature": 1.5,
}
TENSORS = SEDenseNet(**ARCHITECTURE).state_dict()


def network(description, tensors=TENSORS):
    """A weights file; its header is written here, for the description may be what safetensors would not write."""
    content = save(tensors)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length]) | {"__metadata__": {"histotransfer": description}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("fuzz")
    Image.fromarray(np.full((40, 40, 3), 200, np.uint8)).save(base / "a.png")
    return base


def predicted(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    list(Predictor(folder / "model.safetensors").predict([folder / "a.png"]))


@many
@given(changed(DESCRIPTION))
def test_descriptions_of_networks(folder, description):
    taken_or_refused(lambda: predicted(folder, network(as_json(description))))


@many
@given(st.data())
def test_tensors_and_bytes_of_networks(folder, data):
    content = network(json.dumps(DESCRIPTION))
    if data.draw(st.booleans()):
        tensors = dict(TENSORS)
        name = data.draw(st.sampled_from(sorted(tensors)))
        other = data.draw(st.sampled_from([torch.zeros(1), torch.zeros(0), torch.zeros(2, 2, dtype=torch.int8), None]))
        del tensors[name]
        if other is not None:
            tensors[data.draw(st.sampled_from([name, "x", ""]))] = other
        content = network(json.dumps(DESCRIPTION), tensors)
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        content = content[:at] + data.draw(st.binary(max_size=16)) + content[at + data.draw(st.integers(0, 16)) :]
    taken_or_refused(lambda: predicted(folder, content))


RUN = Path(__file__).parents[1] / "samples" / "version_0_1" / "records" / "primary" / "se-lung-s0-f0"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    base = tmp_path_factory.mktemp("runs")
    return shutil.copytree(RUN, base / "one"), shutil.copytree(RUN, base / "other")


@many
@given(changed(json.loads((RUN / "record.json").read_text())))
def test_records(runs, record):
    (runs[1] / "record.json").write_text(as_json(record), encoding="utf-8", errors="surrogatepass")
    taken_or_refused(lambda: difference(*runs))


PLAN = {
    "experiment": "tiny",
    "answers": ["C2"],
    "profile": "phantom",
    "folds": [0, 1],
    "seeds": [0],
    "minutes": 1.5,
    "settings": {"threads": 1, "size": 48, "breakhis_schedule": [["head", 1]], "se_positions": ["block"]},
    "arms": {"plain": {"se_positions": []}, "se": {"mixup": 0.2, "seed": 3}},
}


def as_toml(value):
    """JSON's values in TOML; what TOML lacks is written as it is, and refused."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {as_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}.get(text := as_json(value), text)


@many
@given(changed(PLAN))
def test_plans(folder, plan):
    lines = [f"{json.dumps(key)} = {as_toml(value)}" for key, value in plan.items()]
    (folder / "tiny.toml").write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    taken_or_refused(lambda: read_plan(folder / "tiny.toml"))


ROWS = [
    ["path", "label", "patient", "magnification"],
    ["c.png", "benign", "Pc", "40x"],
    ["d.png", "malignant", "Pd", "40x"],
]
CELLS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "\0", "9" * 5000, "=1+1", '"', "../c.png", ".", "c.png\n", "\ufeff", "path", "p1", "4O", "40,0", "nan"]
    ),
)


@many
@given(st.data())
def test_tables_of_ones_own_pictures(folder, data):
    for row in ROWS[1:]:
        if not (folder / row[0]).exists():
            Image.fromarray(np.full((40, 40, 3), ord(row[0][0]), np.uint8)).save(folder / row[0])
    rows = [list(row) for row in ROWS]
    row = rows[data.draw(st.integers(0, len(rows) - 1))]
    kind = data.draw(st.sampled_from(["cell", "more", "fewer", "bytes"]))
    if kind == "cell":
        row[data.draw(st.integers(0, len(row) - 1))] = data.draw(CELLS)
    elif kind == "more":
        row.append(data.draw(CELLS))
    elif kind == "fewer":
        del row[data.draw(st.integers(0, len(row) - 1)) :]
    content = "\n".join(map(data.draw(st.sampled_from([",", ";", "\t"])).join, rows)).encode(errors="surrogatepass")
    if kind == "bytes":
        at = data.draw(st.integers(0, len(content) - 1))
        content = content[:at] + data.draw(st.binary(max_size=16)) + content[at + data.draw(st.integers(0, 16)) :]
    (folder / "own.csv").write_bytes(content)
    taken_or_refused(lambda: load(folder / "own.csv"))


@pytest.fixture(scope="module")
def files():
    """A picture of noise in each container."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8))
    contents = []
    for kind in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "JPEG2000"):
        noise.save(content := io.BytesIO(), kind)
        contents.append(content.getvalue())
    return contents


@many
@given(st.data())
def test_pictures(folder, files, data):
    content = data.draw(st.sampled_from(files))
    at = data.draw(st.integers(0, len(content) - 1))
    content = content[:at] + data.draw(st.binary(max_size=16)) + content[at + data.draw(st.integers(0, 16)) :]
    (folder / "broken").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    taken_or_refused(lambda: decode(folder / "broken"))

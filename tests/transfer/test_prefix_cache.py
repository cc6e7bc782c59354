import errno
import multiprocessing
import os
import time

import numpy as np
import pytest
import torch

from histotransfer import files
from histotransfer.config import ladder_config
from histotransfer.errors import HistotransferError
from histotransfer.stain import StainJitter
from histotransfer.tiles import JitteredSource, Subset, TileSource
from histotransfer.transfer import prefix_cache
from histotransfer.transfer.prefix_cache import (
    ActivationStore,
    CachedSource,
    cached_source,
    clear_cache,
    list_cache,
    prefix_key,
)
from histotransfer.transfer.training import Batches, predict_logits, train_stage
from histotransfer.transfer.unfreezing import run_groups

CUTS = {"block3": 3, "block4": 4, "head": 5}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HISTOTRANSFER_CACHE", str(tmp_path))
    return tmp_path / "prefix"


@pytest.fixture(scope="module")
def tiles():
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)


def every_view(source):
    """Rows and views of every item in every view."""
    rows, views = np.divmod(np.arange(len(source) * source.views), source.views)
    return rows, views


# --- keys


def test_untrained_gates_share_the_key_of_the_plain_network(make_model):
    plain = make_model(positions=())
    gated = make_model(positions=("layer", "block", "transition"))
    gated.load_state_dict(plain.state_dict(), strict=False)
    for stop in range(1, 6):
        assert prefix_key(plain, stop, "cpu") == prefix_key(gated, stop, "cpu")
    with torch.no_grad():
        gated.features.transition2.se.expand.bias[0] = 0.1  # group 2
    same = [prefix_key(plain, stop, "cpu") == prefix_key(gated, stop, "cpu") for stop in range(1, 6)]
    assert same == [True, True, False, False, False]


@pytest.mark.parametrize("name", ["conv0.weight", "norm0.running_var", "denseblock2.denselayer1.norm2.bias"])
def test_any_weight_or_statistic_below_the_cut_changes_the_key(make_model, name):
    model = make_model()
    before = [prefix_key(model, stop, "cpu") for stop in range(1, 6)]
    assert len(set(before)) == 5
    with torch.no_grad():
        model.features.state_dict()[name].view(-1)[0] += 1
    after = [prefix_key(model, stop, "cpu") for stop in range(1, 6)]
    assert [a != b for a, b in zip(before, after, strict=True)] == [stop > ("2" in name) * 2 for stop in range(1, 6)]


def test_a_standard_gate_counts_even_with_zero_weights(make_model):
    identity, standard = (make_model(positions=("block",), gate=gate) for gate in ("identity", "standard"))
    standard.load_state_dict(identity.state_dict())  # sigmoid(0) is one half, not 1
    assert prefix_key(identity, 2, "cpu") != prefix_key(standard, 2, "cpu")


def test_what_may_change_the_last_digit_changes_the_key(make_model):
    model, threads = make_model(), torch.get_num_threads()
    keys = {prefix_key(model, 4, "cpu"), prefix_key(model, 4, "cuda")}
    try:
        torch.set_num_threads(threads + 1)
        keys.add(prefix_key(model, 4, "cpu"))
    finally:
        torch.set_num_threads(threads)
    assert len(keys) == 3
    assert prefix_key(model, 4, "cpu") in keys


def test_the_head_is_no_part_of_any_prefix(make_model):
    model = make_model()
    before = prefix_key(model, 5, "cpu")
    torch.nn.init.normal_(model.classifier.weight)
    assert prefix_key(model, 5, "cpu") == before


# --- activations


@pytest.mark.parametrize("stop", CUTS.values())
def test_cached_activations_are_those_of_the_network(make_model, tiles, stop):
    model, source = make_model().eval(), TileSource(tiles, views=8)
    rows, views = every_view(source)
    cached = cached_source(source, model, (), stop, "cpu")
    found = cached.batch(rows, views)
    with torch.no_grad():
        expected = run_groups(model, source.batch(rows, views), 0, stop)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found.ndim == 2 or found.is_contiguous(memory_format=torch.channels_last)


def test_an_item_has_the_same_bits_whoever_it_was_asked_for_with(make_model, tiles):
    model, source = make_model().eval(), TileSource(tiles, views=4)
    rows, views = every_view(source)
    whole = cached_source(source, model, (), 4, "cpu").batch(rows, views)
    order = np.random.default_rng(1).permutation(len(rows))
    start = 0
    for size in (1, 2, 3, 5, 7, 11, 13):
        part = order[start : start + size]
        start += size
        assert torch.equal(cached_source(source, model, (), 4, "cpu").batch(rows[part], views[part]), whole[part])


def test_cuts_on_the_way_are_stored_and_used(make_model, tiles, folder):
    model, source = make_model().eval(), TileSource(tiles)
    rows, views = every_view(source)
    direct = cached_source(source, model, (), 5, "cpu").batch(rows, views)
    staged = cached_source(source, model, CUTS.values(), 5, "cpu")
    torch.testing.assert_close(staged.batch(rows, views), direct, rtol=1e-5, atol=1e-6)
    staged.flush()
    assert {kept.prefix for kept in list_cache()} == {prefix_key(model, stop, "cpu") for stop in (3, 4, 5)}

    class Refuses(TileSource):
        def batch(self, rows, views):
            raise AssertionError("the tiles were asked for again")

    for stop in (3, 4, 5):
        again = cached_source(Refuses(tiles), model, CUTS.values(), stop, "cpu")
        assert again.batch(rows, views).shape[0] == len(rows)


def test_nothing_is_computed_before_it_is_asked_for(make_model, tiles):
    model, source = make_model().eval(), TileSource(tiles)
    seen = []
    hook = model.features.conv0.register_forward_hook(lambda module, x, y: seen.append(len(x[0])))
    cached = cached_source(source, model, (), 5, "cpu")
    assert seen == []
    cached.batch(np.array([3, 4]), np.array([0, 1]))
    assert seen == [prefix_cache.CHUNK]
    cached.batch(np.array([4, 3, 4]), np.array([1, 0, 1]))
    assert len(seen) == 1
    hook.remove()


def test_the_same_picture_is_stored_once_wherever_it_comes_from(make_model, tiles):
    model = make_model().eval()
    twice = TileSource(np.concatenate([tiles[:2], tiles[:2]]))
    cached = cached_source(twice, model, (), 5, "cpu")
    x = cached.batch(np.arange(4), np.zeros(4, dtype=int))
    assert torch.equal(x[:2], x[2:])
    cached.flush()
    part = cached_source(TileSource(tiles[1:2]), model, (), 5, "cpu")
    assert torch.equal(part.batch(np.array([0]), np.array([0])), x[1:2])
    assert part.store._pending == {}  # it was on disk


def test_draws_of_jitter_are_views_of_their_own(make_model, tiles):
    model, plain = make_model().eval(), TileSource(tiles[:3], views=4)
    jittered = JitteredSource(plain, StainJitter(), draws=3)
    rows, views = every_view(jittered)
    keys = jittered.keys(rows, views)
    assert len(set(keys)) == 3 * 12
    assert jittered.keys(rows[:4], views[:4]) == plain.keys(np.zeros(4, dtype=int), np.arange(4))
    torch.testing.assert_close(
        cached_source(jittered, model, (), 4, "cpu").batch(rows, views),
        run_groups(model, jittered.batch(rows, views), 0, 4),
        rtol=1e-5,
        atol=1e-5,
    )
    assert JitteredSource(plain, StainJitter(seed=1)).keys(rows[4:5], views[4:5]) != keys[4:5]


# --- training


def train(model, source, stage, *, start, epochs=3, views_of=None):
    targets = np.arange(24) % 2
    config = ladder_config("phantom", {"batch_size": 8, "learning_rate": 0.01, "rate_decay": 1})
    return train_stage(
        model,
        Batches(source, targets, 8, (7,), "cpu"),
        Batches(source, targets, 8, None, "cpu"),
        stage,
        epochs,
        config,
        start=start,
    )


@pytest.mark.parametrize("stage", CUTS)
def test_training_on_the_cache_is_training_on_the_tiles(make_model, tiles, stage):
    source = TileSource(tiles)
    on_tiles, on_cache = make_model(), make_model()
    plain = train(on_tiles, source, stage, start=0)
    cached = cached_source(source, on_cache.eval(), CUTS.values(), CUTS[stage], "cpu")
    stored = train(on_cache, cached, stage, start=CUTS[stage])
    assert [row["train_loss"] for row in stored] == pytest.approx([row["train_loss"] for row in plain], abs=1e-4)
    logits = [predict_logits(model, source, 8) for model in (on_tiles, on_cache)]
    probabilities = [torch.from_numpy(own).softmax(dim=1) for own in logits]
    torch.testing.assert_close(*probabilities, atol=1e-3, rtol=0)
    assert not np.allclose(logits[0], predict_logits(make_model(), source, 8), atol=1e-3)  # it has moved


def test_a_stage_below_the_cut_is_refused(make_model, tiles):
    model = make_model()
    with pytest.raises(ValueError, match=r"^stage block3 trains group 3, which the source has already applied"):
        train(model, cached_source(TileSource(tiles), model, (), 4, "cpu"), "block3", start=4)


def test_a_part_of_a_cached_source_is_that_part(make_model, tiles):
    cached = cached_source(TileSource(tiles), make_model().eval(), (), 5, "cpu")
    rows = np.array([5, 3, 9])
    zeros = np.zeros(3, dtype=int)
    part = Subset(cached, rows)
    assert (len(part), part.views) == (3, 4)
    assert torch.equal(part.batch(np.arange(3), zeros), cached.batch(rows, zeros))


# --- on disk


def key(number):
    return number.to_bytes(prefix_cache.KEY_BYTES, "big")


def filled(folder, numbers, name="p"):
    store = ActivationStore(folder / name)
    for number in numbers:
        store.put(key(number), np.full((2, 2, 3), number, dtype=np.float32))
    store.flush()
    return store


def values(store, numbers):
    return store.get([key(number) for number in numbers])[:, 0, 0, 0].tolist()


def reopened(folder, name="p"):
    store = ActivationStore(folder / name)
    store.refresh()
    return store


def test_what_is_flushed_is_found_again(folder):
    filled(folder, range(5))
    store = filled(folder, range(5, 7))
    store.put(key(9), np.full((2, 2, 3), 9, dtype=np.float32))
    assert key(9) in store
    store.refresh()
    assert values(store, [6, 9, 0, 6]) == [6, 9, 0, 6]
    again = reopened(folder)
    assert key(9) not in again
    assert values(again, [3, 5]) == [3, 5]
    assert again.rebuilt == 0


def test_a_full_segment_is_written_by_itself(folder, monkeypatch):
    monkeypatch.setattr(prefix_cache, "SEGMENT_BYTES", 2 * 2 * 2 * 3 * 4)
    store = ActivationStore(folder / "p")
    for number in range(5):
        store.put(key(number), np.full((2, 2, 3), number, dtype=np.float32))
    assert len(list((folder / "p").iterdir())) == 2
    assert values(reopened(folder), range(4)) == [0, 1, 2, 3]


def damage(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # a single bit of an activation
    path.write_bytes(content)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-9])


def cut_in_header(path):
    path.write_bytes(path.read_bytes()[:4])


def empty(path):
    path.write_bytes(b"")


def not_a_segment(path):
    path.write_bytes(b"something else altogether" * 10)


@pytest.mark.parametrize("harm", [damage, cut_off, cut_in_header, empty, not_a_segment])
def test_a_harmed_segment_is_thrown_away_and_made_anew(folder, harm):
    filled(folder, range(3))
    filled(folder, range(3, 6))
    paths = sorted((folder / "p").iterdir())
    harm(paths[0])
    store = reopened(folder)
    assert store.rebuilt == 1
    assert sorted((folder / "p").iterdir()) == paths[1:]
    assert sum(key(number) in store for number in range(6)) == 3
    for start in (0, 3):
        if key(start) not in store:
            filled(folder, range(start, start + 3))
    assert values(reopened(folder), range(6)) == list(range(6))
    assert sorted((folder / "p").iterdir()) == paths


def test_a_segment_of_another_prefix_is_foreign(folder):
    filled(folder, range(3), "p")
    filled(folder, range(3), "q")
    (segment,) = (folder / "q").iterdir()
    segment.rename(folder / "p" / segment.name)
    store = reopened(folder, "p")
    assert store.rebuilt == 1
    assert values(store, range(3)) == [0, 1, 2]


def test_a_full_disk_is_one_line_and_leaves_nothing(folder, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(
        HistotransferError,
        match=r"p: activations cannot be stored \(No space left on device\); free some space, set HISTOTRANSFER_CACHE",
    ):
        filled(folder, range(3))
    assert list((folder / "p").iterdir()) == []


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(folder):
    filled(folder, range(2))
    old, new = folder / "p" / "a.1.part", folder / "p" / "b.2.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * files.STALE_SECONDS,) * 2)
    store = reopened(folder)
    assert not old.exists()
    assert new.exists()
    assert values(store, [0, 1]) == [0, 1]


def _fill(folder, first):
    store = ActivationStore(folder / "p")
    for number in range(first, first + 30):
        store.put(key(number), np.full((2, 2, 3), number, dtype=np.float32))
        if number % 3 == 0:
            store.flush()
    store.flush()


def test_two_processes_fill_one_folder(folder):
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_fill, args=(folder, first)) for first in (0, 15)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    store = reopened(folder)
    assert (store.rebuilt, values(store, range(45))) == (0, list(range(45)))
    assert not list(folder.rglob("*.part"))


def test_another_process_segments_are_seen_without_reopening(make_model, tiles):
    model = make_model().eval()
    first, second = (cached_source(TileSource(tiles), model, (), 5, "cpu") for _ in range(2))
    rows, views = every_view(first)
    x = first.batch(rows, views)
    assert isinstance(first, CachedSource)
    first.flush()
    seen = []
    model.features.conv0.register_forward_hook(lambda *_: seen.append(1))
    assert torch.equal(second.batch(rows, views), x)
    assert seen == []


def test_the_cache_is_listed_and_cleared(folder):
    assert list_cache() == []
    assert clear_cache() == 0
    filled(folder, range(3), "p")
    filled(folder, range(3), "q")
    filled(folder, range(3, 6), "q")
    listed = {kept.prefix: kept for kept in list_cache()}
    assert {name: kept.segments for name, kept in listed.items()} == {"p": 1, "q": 2}
    assert clear_cache() == sum(kept.size for kept in listed.values()) > 6 * 48
    assert list_cache() == []

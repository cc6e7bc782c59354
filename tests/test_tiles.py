import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import normalize, to_tensor

from histotransfer.errors import HistotransferError
from histotransfer.pictures import decode, resize
from histotransfer.stain import normaliser
from histotransfer.tiles import TileSource, load_tiles, view

COLOURS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def test_views_are_the_eight_symmetries_of_the_square():
    square = np.arange(9).reshape(3, 3)
    found = [view(square, number) for number in range(8)]
    turns = [np.rot90(m, k) for m in (square, square.T) for k in range(4)]
    assert {a.tobytes() for a in map(np.ascontiguousarray, found)} == {np.ascontiguousarray(a).tobytes() for a in turns}
    assert len({np.ascontiguousarray(a).tobytes() for a in found}) == 8
    assert np.array_equal(found[0], square)


def test_the_first_four_views_keep_the_aspect():
    field = np.arange(6).reshape(2, 3)
    expected = [field, np.fliplr(field), np.flipud(field), np.rot90(field, 2)]
    for number, turned in enumerate(expected):
        assert np.array_equal(view(field, number), turned)


@pytest.mark.parametrize("count", [4, 8])
def test_views_are_a_group(count):
    square = np.arange(9).reshape(3, 3)
    seen = {view(square, n).tobytes() for n in range(count)}
    for first, second in itertools.product(range(count), repeat=2):
        assert view(view(square, first), second).tobytes() in seen


def test_view_turns_channels_alike():
    tile = np.arange(4 * 4 * 3).reshape(4, 4, 3)
    assert np.array_equal(view(tile, 5)[..., 2], view(tile[..., 2], 5))


def test_a_batch_is_what_torchvisions_transforms_make():
    tiles = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    rows, views = np.array([3, 0, 3]), np.array([0, 6, 5])
    batch = TileSource(tiles, views=8).batch(rows, views)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    for x, row, number in zip(batch, rows, views, strict=True):
        expected = normalize(to_tensor(np.ascontiguousarray(view(tiles[row], number))), mean, std)
        torch.testing.assert_close(x, expected, rtol=0, atol=0)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_load_tiles_decodes_resizes_and_normalises(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, picture in zip(paths, (COLOURS, COLOURS[::-1]), strict=True):
        Image.fromarray(picture).save(path)
    tiles, fallbacks = load_tiles(paths, 32, normaliser("none"))
    assert np.array_equal(tiles, [resize(COLOURS, 32), resize(COLOURS[::-1], 32)])
    assert fallbacks == []
    reinhard = normaliser("reinhard")
    assert np.array_equal(load_tiles(paths, 32, reinhard)[0][1], reinhard.transform(resize(COLOURS[::-1], 32)))


def test_load_tiles_counts_what_could_not_be_normalised(tmp_path):
    Image.new("RGB", (40, 40), "white").save(tmp_path / "glass.png")
    tiles, fallbacks = load_tiles([tmp_path / "glass.png"], 32, normaliser("macenko"))
    assert (tiles == 255).all()
    assert [fallback.name for fallback in fallbacks] == [str(tmp_path / "glass.png")]


def test_load_tiles_stops_at_a_bad_file_by_name(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG")
    with pytest.raises(HistotransferError, match=r"bad\.png: "):
        load_tiles([tmp_path / "bad.png"], 32, normaliser("none"))


def test_real_full_size_fields_are_resized_like_the_subset(data_root):
    """The subset's files were resized from the same fields, so halfway sizes must be close."""
    path = sorted((data_root / "breakhis_fullsize").glob("*.png"))[0]
    field = decode(path)
    assert field.shape[:2] in {(460, 700), (456, 700)}
    small = decode(next((data_root / "BreaKHis_v1").rglob(path.name)))
    assert np.abs(resize(field, 224).astype(int) - small).mean() < 2

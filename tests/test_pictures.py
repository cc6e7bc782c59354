import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from histotransfer.errors import HistotransferError
from histotransfer.pictures import decode, resize

COLOURS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def file_bytes(array, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width, height) -> bytes:
    """A PNG that is all promise: a header, and hardly any pixels."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def with_alpha(lowest):
    alpha = np.full((40, 50, 1), 255, dtype=np.uint8)
    alpha[0, 0] = lowest
    return np.concatenate([COLOURS, alpha], axis=2)


def sixteen_bit():
    return cv2.imencode(".png", COLOURS[..., ::-1].astype(np.uint16) * 257)[1].tobytes()


PNG = file_bytes(COLOURS)


def decoded(tmp_path, content, name="field.png"):
    path = tmp_path / name
    path.write_bytes(content)
    return decode(path)


@pytest.mark.parametrize(
    "content",
    [
        PNG,
        file_bytes(COLOURS, "TIFF"),
        file_bytes(COLOURS, "BMP"),
        file_bytes(with_alpha(255)),
        sixteen_bit(),
    ],
    ids=["png", "tiff", "bmp", "opaque alpha", "16-bit colour"],
)
def test_colour_pictures_are_decoded_to_their_pixels(tmp_path, content):
    found = decoded(tmp_path, content)
    assert found.dtype == np.uint8
    assert np.array_equal(found, COLOURS)


def test_a_palette_picture_is_decoded_to_its_colours(tmp_path):
    four = np.array([[200, 50, 90], [10, 20, 30], [250, 240, 230], [90, 80, 160]], dtype=np.uint8)
    picture = Image.fromarray(np.arange(1600, dtype=np.uint8).reshape(40, 40) % 4, "P")
    picture.putpalette(four.tobytes())
    picture.save(tmp_path / "palette.png")
    assert np.array_equal(decode(tmp_path / "palette.png"), four[np.arange(1600).reshape(40, 40) % 4])


def test_a_jpeg_is_decoded_as_another_decoder_does(tmp_path):
    smooth = cv2.resize(COLOURS, (200, 160), interpolation=cv2.INTER_CUBIC)
    content = file_bytes(smooth, "JPEG", quality=95)
    other = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded(tmp_path, content, "x.jpeg").astype(int) - other).max() <= 2


@pytest.mark.parametrize(
    ("content", "trouble"),
    [
        (b"", "empty file"),
        (b"hello, this is text", "not an image"),
        (PNG[: len(PNG) // 2], "damaged or unreadable"),
        (PNG[:20], "damaged or unreadable|not an image"),
        (file_bytes(COLOURS, "TIFF")[:60], "damaged or unreadable|not an image"),
        (png_header(60_000, 60_000), "more than 50,000,000"),
        (png_header(10_000, 10_000), "10000x10000 pixels, more than 50,000,000"),
        (png_header(7_000, 7_000), "damaged or unreadable"),
        (file_bytes(COLOURS[..., 0].copy()), "grey picture"),
        (file_bytes(COLOURS[..., 0].astype(np.uint16) * 257), "grey picture"),
        (file_bytes(COLOURS[..., :2].copy()), "grey picture"),
        (file_bytes(COLOURS[..., 0] > 99), "grey picture"),
        (file_bytes(with_alpha(254)), "partly transparent"),
        (file_bytes(with_alpha(0)), "partly transparent"),
        (file_bytes(COLOURS[:1, :1]), "1x1 pixels are too few"),
        (file_bytes(COLOURS[:15]), "50x15 pixels are too few"),
    ],
    ids=[
        "empty", "text", "cut off", "cut off in the header", "cut off TIFF",
        "60000x60000", "10000x10000", "49 million pixels missing",
        "grey", "16-bit grey", "grey with alpha", "black and white", "a transparent pixel", "a hole", "1x1", "strip",
    ],
)  # fmt: skip
def test_other_pictures_are_refused_in_one_line_that_names_the_file(tmp_path, content, trouble):
    with pytest.raises(HistotransferError, match=trouble) as error:
        decoded(tmp_path, content)
    assert str(error.value).startswith(f"{tmp_path / 'field.png'}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["missing.png", "folder", "folder/missing.png", "file/below.png", "nul\0.png"])
def test_what_is_no_file_is_refused_in_one_line(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(HistotransferError) as error:
        decode(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(error.value)


FILES = [PNG, *(file_bytes(COLOURS, kind) for kind in ("JPEG", "TIFF", "GIF", "WEBP", "BMP"))]


@settings(max_examples=150)
@given(
    content=st.sampled_from(FILES),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    kept=st.floats(0, 1),
)
def test_a_damaged_file_is_an_array_or_one_line(tmp_path_factory, content, changes, kept):
    damaged = bytearray(content)
    for place, byte in changes:
        damaged[int(place * len(damaged))] = byte
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged[: round(kept * len(damaged))])
    try:
        array = decode(path)
    except HistotransferError as error:
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)
    else:
        assert (array.dtype, array.ndim, array.shape[2]) == (np.uint8, 3, 3)


@pytest.mark.parametrize("size", [32, 50, 224])
def test_resize_is_pillows_bicubic(size):
    expected = Image.fromarray(COLOURS).resize((size, size), Image.Resampling.BICUBIC)
    assert np.array_equal(resize(COLOURS, size), np.asarray(expected))


def test_resize_leaves_a_picture_of_the_right_size_alone():
    assert np.array_equal(resize(COLOURS[:, :40], 40), COLOURS[:, :40])

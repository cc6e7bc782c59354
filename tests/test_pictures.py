import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from histotransfer.errors import HistotransferError
from histotransfer.pictures import ENDINGS, decode, pixels_hash, resize, symmetric_views

COLOURS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def file_bytes(array, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 40\n%%EndComments\nshowpage\n%%EOF\n"


def png_header(width, height, pixels=bytes(1000)) -> bytes:
    """A PNG that is all promise: a header, and hardly any pixels."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


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
    picture = Image.frombytes("P", (40, 40), bytes(i % 4 for i in range(1600)))
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
        (png_header(700, 460, bytes([0, *b"\xc8\x64\x96" * 700] * 10)), "holds 2% of its pixels"),
        (EPS, "not an image"),
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
        "10 of 460 rows", "EPS in a PNG's name",
        "grey", "16-bit grey", "grey with alpha", "black and white", "a transparent pixel", "a hole", "1x1", "strip",
    ],
)  # fmt: skip
def test_other_pictures_are_refused_in_one_line_that_names_the_file(tmp_path, content, trouble):
    with pytest.raises(HistotransferError, match=trouble) as error:
        decoded(tmp_path, content)
    assert str(error.value).startswith(f"{tmp_path / 'field.png'}: ")
    assert "\n" not in str(error.value)


# --- as a viewer shows it

TISSUE = cv2.resize(COLOURS, (60, 40), interpolation=cv2.INTER_CUBIC)
TURNS = {  # EXIF orientation to what puts the stored pixels upright
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_followed(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decoded(tmp_path, file_bytes(TISSUE, kind, exif=exif, **options))
    assert np.array_equal(found, TURNS[orientation](TISSUE))


def test_a_turned_jpeg_shows_what_its_upright_twin_shows(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    turned = decoded(tmp_path, file_bytes(np.ascontiguousarray(np.rot90(TISSUE)), "JPEG", quality=98, exif=exif))
    upright = decoded(tmp_path, file_bytes(TISSUE, "JPEG", quality=98))
    assert np.abs(turned.astype(int) - upright).mean() < 4


@pytest.mark.parametrize("exif", [b"Exif\0\0rubbish", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0"])
def test_exif_that_cannot_be_read_turns_nothing(tmp_path, exif):
    plain = decoded(tmp_path, file_bytes(TISSUE, "JPEG"))
    assert np.array_equal(decoded(tmp_path, file_bytes(TISSUE, "JPEG", exif=exif)), plain)


def profile(swapped=False) -> bytes:
    """sRGB as an ICC profile; or one in which red and green have changed places."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if not swapped:
        return content
    count = struct.unpack(">I", content[128:132])[0]
    table = content[132 : 132 + 12 * count]
    return (
        content[:132]
        + table.replace(b"rXYZ", b"____").replace(b"gXYZ", b"rXYZ").replace(b"____", b"gXYZ")
        + (content[132 + 12 * count :])
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_a_profile_that_means_srgb_changes_no_pixel(tmp_path, kind):
    plain = decoded(tmp_path, file_bytes(TISSUE, kind))
    assert np.array_equal(decoded(tmp_path, file_bytes(TISSUE, kind, icc_profile=profile())), plain)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_another_colour_profile_is_converted(tmp_path, kind):
    patch = np.full((40, 60, 3), (200, 60, 90), np.uint8)
    patch[:20] = (230, 220, 225)
    red, green, _ = decoded(tmp_path, file_bytes(patch, kind, icc_profile=profile(swapped=True)))[30, 30]
    assert green > red + 50


LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@pytest.mark.parametrize("content", [b"no profile", b"\0" * 200, profile()[:300], LAB])
def test_a_profile_that_cannot_be_followed_is_named(tmp_path, content):
    with pytest.raises(HistotransferError, match=r"its colour profile \(.*\) cannot be followed") as error:
        decoded(tmp_path, file_bytes(TISSUE, icc_profile=content))
    assert "\n" not in str(error.value)


def of_mode(mode, kind, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(TISSUE).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (of_mode("CMYK", "TIFF"), "CMYK without a colour profile"),
        (of_mode("CMYK", "JPEG"), "CMYK without a colour profile"),
        (of_mode("CMYK", "JPEG", icc_profile=profile()), r"its colour profile \(sRGB.*\) cannot be followed"),
    ],
)
def test_a_colour_space_that_is_not_read_is_called_by_its_name(tmp_path, content, name):
    with pytest.raises(HistotransferError, match=name):
        decoded(tmp_path, content)


def test_lab_is_not_called_grey(tmp_path):
    lab = ImageCms.applyTransform(
        Image.fromarray(TISSUE),
        ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"),
    )
    lab.save(tmp_path / "lab.tif")
    with pytest.raises(HistotransferError, match="the colour space LAB is not read; save it as RGB"):
        decode(tmp_path / "lab.tif")


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP", "PNG", "MPO", "AVIF"])
def test_several_pages_or_frames_are_refused_with_their_number(tmp_path, kind):
    pages = [Image.fromarray(np.roll(TISSUE, 7 * i)) for i in range(3)]
    pages[0].save(tmp_path / "x", kind, save_all=True, append_images=pages[1:])
    with pytest.raises(HistotransferError, match="x: holds 3 pages or frames; save the one"):
        decode(tmp_path / "x")


GREY = np.repeat(TISSUE[..., :1], 3, axis=2)


def with_scale_bar(array):
    marked = array.copy()
    marked[-2:, -5:] = (255, 0, 0)
    return marked


@pytest.mark.parametrize(
    "content",
    [
        file_bytes(GREY),
        file_bytes(GREY, "JPEG", quality=60),
        file_bytes(GREY, "WEBP", quality=60),
        file_bytes(GREY, "GIF"),
        file_bytes(GREY[..., 0], "BMP"),
        file_bytes(np.concatenate([GREY, np.full_like(GREY[..., :1], 255)], axis=2)),
        of_mode("L", "TIFF"),
        cv2.imencode(".png", GREY.astype(np.uint16) * 257)[1].tobytes(),
        file_bytes(GREY, icc_profile=profile()),
        file_bytes(with_scale_bar(GREY)),
    ],
    ids=["rgb", "jpeg", "webp", "gif", "bmp", "alpha", "tiff", "16 bits", "profile", "scale bar"],
)
def test_grey_is_told_by_its_pixels(tmp_path, content):
    with pytest.raises(HistotransferError, match="grey picture; a colour picture is needed"):
        decoded(tmp_path, content)


@pytest.mark.parametrize("level", [0, 5, 243, 255])
def test_a_picture_of_one_brightness_shows_no_tissue_but_is_not_grey(tmp_path, level):
    assert np.unique(decoded(tmp_path, file_bytes(np.full((40, 40, 3), level, np.uint8)))) == [level]


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("kind", [".png", ".tif"])
def test_few_bits_in_a_16_bit_file_are_too_dark(tmp_path, kind, bits):
    few = (TISSUE.astype(np.uint16) * 257) >> (16 - bits)
    few[0, 0] = 65535  # a hot pixel
    cv2.imwrite(str(tmp_path / f"x{kind}"), few[..., ::-1])
    with pytest.raises(HistotransferError, match="too dark, hardly a pixel reaches 64 of 255"):
        decode(tmp_path / f"x{kind}")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_png_whose_last_row_is_black_is_whole(tmp_path, mode):
    pixels = COLOURS.copy()
    pixels[-1] = 0
    picture = Image.fromarray(pixels).convert(mode)
    picture.save(tmp_path / "x.png")
    np.testing.assert_array_equal(decode(tmp_path / "x.png"), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "JPEG2000", "GIF", "TIFF", "BMP"])
def test_a_truncated_picture_is_refused_in_one_line(tmp_path, kind, kept):
    content = file_bytes(TISSUE, kind)
    with pytest.raises(HistotransferError, match="damaged") as error:
        decoded(tmp_path, content[: int(kept * len(content))])
    assert "\n" not in str(error.value)


def test_a_flipped_bit_in_a_png_is_refused(tmp_path):
    for place in range(60, len(PNG) - 20, len(PNG) // 20):
        flipped = bytearray(PNG)
        flipped[place] ^= 4
        with pytest.raises(HistotransferError, match="damaged"):
            decoded(tmp_path, bytes(flipped))


def test_ordinary_pictures_are_pillows_to_the_last_bit(tmp_path):
    for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "JPEG2000"):
        content = file_bytes(TISSUE, kind)
        expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        assert np.array_equal(decoded(tmp_path, content), expected), kind


@pytest.mark.parametrize("content", [b"", b"text", PNG[:200], file_bytes(COLOURS[:1, :1])])
def test_views_of_a_file_that_cannot_be_opened_are_one_line(tmp_path, content):
    (tmp_path / "field.png").write_bytes(content)
    with pytest.raises(HistotransferError, match=r"field\.png: ") as error:
        symmetric_views([tmp_path / "field.png"])
    assert "\n" not in str(error.value)


def test_views_depend_on_the_shape(tmp_path):
    (tmp_path / "square.png").write_bytes(file_bytes(COLOURS[:, :40]))
    (tmp_path / "wide.png").write_bytes(PNG)
    assert symmetric_views([tmp_path / "square.png"]) == 8
    assert symmetric_views([tmp_path / "square.png", tmp_path / "wide.png"]) == 4


def test_equal_pixels_have_equal_hashes_whatever_holds_them(tmp_path):
    hashes = {pixels_hash(decoded(tmp_path, file_bytes(COLOURS, kind))) for kind in ("PNG", "TIFF", "BMP")}
    assert len(hashes) == 1
    assert pixels_hash(COLOURS[:, ::-1]) not in hashes
    assert pixels_hash(COLOURS.reshape(50, 40, 3)) not in hashes


def test_endings_are_those_of_pictures():
    assert {".png", ".jpg", ".jpe", ".jfif", ".tif", ".webp", ".jp2", ".avif", ".gif", ".bmp"} <= ENDINGS
    assert not {".pdf", ".txt", ".csv", ".h5", ".eps", ".svs", ""} & ENDINGS


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

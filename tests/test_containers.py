"""Files that a decoder reads without a word and that are not what it shows; and whole ones, which stay as they are."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from histotransfer.errors import HistotransferError
from histotransfer.pictures import decode

COLOURS = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
TISSUE = cv2.GaussianBlur(COLOURS, (0, 0), 3) // 2 + np.array([110, 60, 100], dtype=np.uint8)
GLASS = np.where(np.arange(64)[:, None, None] < 20, TISSUE, np.uint8(244))  # its lower part is even, as cut ones are
ADOBE = (31_270, 32_900, 64_000, 33_000, 21_000, 71_000, 15_000, 6_000)
P3 = struct.pack(">BBBB", 12, 13, 0, 1)


def saved(kind, array=TISSUE, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def png_with(name, data):
    """A PNG with one more chunk behind its header."""
    content, chunk = saved("PNG"), name + data
    return content[:33] + struct.pack(">I", len(data)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


def interlaced(passes):
    """A PNG in the seven passes of Adam7, of which it holds the first few."""
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in steps[:passes] for row in TISSUE[y::dy, x::dx])

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", TISSUE.shape[1], TISSUE.shape[0], 8, 2, 0, 0, 1)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def halved(content, tail=b""):
    return content[: len(content) // 2] + tail


def emptied(content, begin, end):
    """The same number of bytes, a part of them zero: a download into a file that had its size before."""
    start, stop = int(begin * len(content)), int(end * len(content))
    return content[:start] + bytes(stop - start) + content[stop:]


def tiff_with(tag, value, array=TISSUE, **options):
    """A TIFF, little endian, in which the first value of a tag is another."""
    content = bytearray(saved("TIFF", array, **options))
    at = struct.unpack_from("<I", content, 4)[0]
    for entry in range(at + 2, at + 2 + 12 * struct.unpack_from("<H", content, at)[0], 12):
        found, kind, count = struct.unpack_from("<HHI", content, entry)
        if found == tag:
            form = {3: "<H", 4: "<I"}[kind]
            place = entry + 8 if count * struct.calcsize(form) <= 4 else struct.unpack_from("<I", content, entry + 8)[0]
            struct.pack_into(form, content, place, value)
    return bytes(content)


def planes_of_16_bits():
    """An uncompressed TIFF whose red, green and blue lie one after the other, 16 bits each."""
    height, width, _ = TISSUE.shape
    data = (TISSUE.astype("<u2") * 257).transpose(2, 0, 1).tobytes()
    plane, first = len(data) // 3, 8
    after = first + len(data)
    bits, starts, sizes = after, after + 6, after + 18
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 3, starts), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 3, sizes), (284, 3, 1, 2),
    ]  # fmt: skip
    extra = struct.pack("<HHH", 16, 16, 16)
    extra += struct.pack("<III", *(first + plane * i for i in range(3))) + struct.pack("<III", plane, plane, plane)
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, after + len(extra)) + data + extra + directory


def bitmap_with(kind, profile=b""):
    """A bitmap of version 5 that says `kind` of its colours."""
    pixels = TISSUE[::-1, :, ::-1].tobytes()
    header = struct.pack("<IiiHHIIiiII", 124, 96, 64, 1, 24, 0, len(pixels), 0, 0, 0, 0) + bytes(16) + kind + bytes(48)
    header += struct.pack("<IIII", 4, 124 + len(pixels), len(profile), 0)
    return (
        b"BM" + struct.pack("<IHHI", 14 + 124 + len(pixels) + len(profile), 0, 0, 14 + 124) + header + pixels + profile
    )


def swapped_colours():
    """A profile whose red means blue: sRGB's, with two of its primaries exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    place = {bytes(profile[at : at + 4]): at + 4 for at in range(132, 132 + 12 * profile[131], 12)}
    red, blue = place[b"rXYZ"], place[b"bXYZ"]
    profile[red : red + 8], profile[blue : blue + 8] = profile[blue : blue + 8], profile[red : red + 8]
    return bytes(profile)


def in_jp2(profile):
    """JPEG 2000 in a file whose colours are those of a profile."""
    content = saved("JPEG2000")
    at = content.index(b"colr") - 4
    size = struct.unpack_from(">I", content, at)[0]
    box = struct.pack(">I4sBBB", 11 + len(profile), b"colr", 2, 0, 0) + profile
    head = content.index(b"jp2h") - 4
    longer = struct.pack(">I", struct.unpack_from(">I", content, head)[0] + len(box) - size)
    return content[:head] + longer + content[head + 4 : at] + box + content[at + size :]


def decoded(tmp_path, content):
    path = tmp_path / "field"
    path.write_bytes(content)
    return decode(path)


JPEG, NO_END, EARLY, EMPTY = saved("JPEG", quality=90), "has no end", "ends early", "is empty"
PLAIN_HUFFMAN = {"quality": 90, "optimize": False}
BAD = {
    "JPEG without an end": (halved(JPEG, b"\0" * 9), NO_END + "|damaged"),
    "JPEG, last third zero": (emptied(JPEG, 0.67, 1), NO_END + "|damaged"),
    "JPEG cut and closed": (halved(saved("JPEG", COLOURS), b"\xff\xd9"), EARLY),
    "JPEG cut and closed, progressive": (halved(saved("JPEG", COLOURS, progressive=True), b"\xff\xd9"), EARLY),
    "JPEG zero inside": (emptied(saved("JPEG", COLOURS, **PLAIN_HUFFMAN), 0.5, 0.6), EMPTY),
    "PNG in three of seven passes": (interlaced(3), "holds .% of its pixels"),
    "PNG in six of seven passes": (interlaced(6), "holds 50% of its pixels"),
    "PNG of linear light": (png_with(b"gAMA", struct.pack(">I", 100_000)), "not sRGB .gamma 1.00"),
    "PNG of other primaries": (png_with(b"cHRM", struct.pack(">8I", *ADOBE)), "not sRGB .other primaries"),
    "PNG of Display P3": (png_with(b"cICP", P3), "not sRGB .cICP"),
    "TIFF in planes of 16 bits": (planes_of_16_bits(), "16 bits in separate planes"),
    "TIFF twice as tall": (tiff_with(257, 128), "parts of the TIFF"),
    "TIFF without a strip": (tiff_with(273, 0), "parts of the TIFF"),
    "TIFF with an empty strip": (tiff_with(279, 0), "parts of the TIFF"),
    "WebP, last third zero": (emptied(saved("WEBP", COLOURS, quality=90), 0.67, 1), EMPTY),
    "AVIF, last third zero": (emptied(saved("AVIF", COLOURS, quality=90), 0.67, 1), EMPTY + "|damaged"),
    "JPEG 2000, last third zero": (emptied(saved("JPEG2000", COLOURS), 0.67, 1), EMPTY + "|damaged"),
    "AVIF of Display P3": (saved("AVIF", quality=90).replace(b"nclx\0\1", b"nclx\0\14"), "not sRGB"),
    "bitmap with a profile elsewhere": (bitmap_with(b"KNIL"), "not sRGB .a profile in another file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_a_decoder_forgives_is_refused(name, tmp_path):
    content, why = BAD[name]
    with pytest.raises(HistotransferError, match=why) as error:
        decoded(tmp_path, content)
    assert str(error.value).startswith(str(tmp_path / "field")) and "\n" not in str(error.value)


def test_more_than_8_bits_in_jpeg_2000_are_refused(tmp_path):
    grey = np.asarray(Image.fromarray(TISSUE).convert("L")).astype(np.uint16) * 257
    content = bytearray(saved("JPEG2000", grey))
    at = content.index(b"\xff\x4f\xff\x51")
    assert content[at + 42] == 15  # 16 bits, less one
    content = bytearray(saved("JPEG2000"))
    at = content.index(b"\xff\x4f\xff\x51")
    for band in range(3):
        content[at + 42 + 3 * band] = 11
    with pytest.raises(HistotransferError, match="JPEG 2000 of 12 bits"):
        decoded(tmp_path, bytes(content))


WHOLE = {
    "JPEG": saved("JPEG", quality=90),
    "progressive": saved("JPEG", quality=90, progressive=True),
    "optimised": saved("JPEG", quality=90, optimize=True),
    "not subsampled": saved("JPEG", quality=90, subsampling=0),
    "in parts": saved("JPEG", quality=90, restart_marker_rows=1),
    "even at its end": saved("JPEG", GLASS, quality=90),
    "even, progressive": saved("JPEG", GLASS, quality=90, progressive=True),
    "even, optimised": saved("JPEG", np.full((640, 960, 3), 244, np.uint8), quality=90, optimize=True),
    "even, in parts": saved("JPEG", GLASS, quality=90, restart_marker_rows=1),
    "with a film behind it": saved("JPEG", quality=90) + bytes(5000) + b"\xff\xd9" + bytes(5000),
    "with a preview": saved("JPEG", quality=90, exif=b"Exif\0\0" + bytes(2000)),
    "PNG of sRGB's gamma": png_with(b"gAMA", struct.pack(">I", 45455)),
    "PNG that says sRGB": png_with(b"sRGB", b"\0"),
    "PNG of sRGB's code": png_with(b"cICP", struct.pack(">BBBB", 1, 13, 0, 1)),
    "interlaced PNG": interlaced(7),
    "TIFF": saved("TIFF"),
    "TIFF, LZW": saved("TIFF", compression="tiff_lzw"),
    "TIFF, JPEG": saved("TIFF", compression="jpeg"),
    "bitmap of version 5": bitmap_with(b"BGRs"),
    "WebP": saved("WEBP", GLASS, quality=90),
    "WebP, lossless": saved("WEBP", GLASS, lossless=True),
    "AVIF": saved("AVIF", GLASS, quality=90),
    "JPEG 2000": saved("JPEG2000", GLASS),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_picture_is_what_another_program_shows(name, tmp_path):
    with Image.open(io.BytesIO(WHOLE[name])) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decoded(tmp_path, WHOLE[name]), expected)


@pytest.mark.parametrize(
    "written", [in_jp2, lambda profile: bitmap_with(b"DEBM", profile)], ids=["JPEG 2000", "bitmap"]
)
def test_profiles_that_pillow_does_not_look_for_are_followed(written, tmp_path):
    profile = swapped_colours()
    followed = decoded(tmp_path, saved("PNG", icc_profile=profile))
    assert not np.array_equal(followed, TISSUE)
    assert np.array_equal(decoded(tmp_path, written(profile)), followed)


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", "TIFF", "WEBP", "BMP", "JPEG", "DDS"])
def test_damage_anywhere_is_one_line_or_a_picture(kind, tmp_path):
    content, generator = saved(kind), np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for at in generator.integers(0, min(len(content), 4000), 4):
            damaged[at] ^= int(generator.integers(1, 256))
        try:
            assert decoded(tmp_path, bytes(damaged)).dtype == np.uint8
        except HistotransferError as error:
            assert "\n" not in str(error)

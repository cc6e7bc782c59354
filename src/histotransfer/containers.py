"""What a picture's file holds and Pillow reads past: data that is cut, colours that are not sRGB, samples misread.

A decoder fills what is missing with grey or black and says nothing, and shows numbers that mean other colours. `fault`
looks at the file itself. The numbers are those of the formats' standards: PNG (W3C), JPEG (ITU-T T.81), TIFF 6.0, JPEG
2000 (ITU-T T.800), ISO 14496-12 and 23008-12 for AVIF, Microsoft's bitmap header of version 5.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

ZEROS = 256  # bytes of nothing that no compressed picture ends with
JPEG_ZEROS = 64  # in a row, where zeros are no code for "the block is over"
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the type of colours that a PNG's header names
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
SRGB_GAMMA, SRGB_POINTS = 1 / 2.2, (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
SRGB_LIKE = (
    {1, 2, 5, 6},
    {1, 2, 6, 13, 14, 15},
)  # codes of primaries and of transfer (ITU-T H.273) that mean sRGB, or nothing
BMP_PROFILE = 14 + 112  # of a header of version 5, behind the file's own of 14 bytes
CUT, OTHER_COLOURS = "damaged or cut ({}); copy or save it anew", "its colours are not sRGB ({}); convert it to sRGB"


def profile(image: Image.Image, content: bytes) -> bytes | None:
    """The ICC profile that a file holds, also where Pillow does not look: in JPEG 2000 and in bitmaps."""
    if image.format == "JPEG2000" and (box := re.search(rb"(....)colr\x02..", content[:4096], re.DOTALL)):
        return content[box.end() : box.start() + int.from_bytes(box[1], "big")]
    if image.format == "BMP" and _bmp_colours(content) == b"DEBM":
        start, size = struct.unpack_from("<II", content, BMP_PROFILE)
        return content[14 + start : 14 + start + size]
    return image.info.get("icc_profile")


def fault(image: Image.Image, content: bytes) -> str:
    """Why a file is not what its decoder makes of it, with what to do; empty if nothing is found.

    Args:
        image: opened from the file, before it is turned.
        content: the whole file.

    Raises:
        OSError, ValueError, SyntaxError, struct.error, zlib.error: damaged.
    """
    return _FAULTS.get(image.format or "", _zeros_at_the_end)(image, content)


def _jpeg(image: Image.Image, content: bytes) -> str:
    start, zeros_end_blocks = _jpeg_scan(content)
    end = content.find(b"\xff\xd9", start)  # never within coded blocks; phones add films behind it
    if end < 0:
        return CUT.format("the JPEG has no end")
    progressive = image.info.get("progressive")
    if not (zeros_end_blocks or progressive) and bytes(JPEG_ZEROS) in content[start:end]:
        return CUT.format("a part of the JPEG is empty")
    corner = np.asarray(_last(image, 4, 4)).reshape(-1, len(image.getbands())).astype(int)
    if not progressive and np.ptp(corner, axis=0).max() > 2:  # what is missing is filled with one colour
        return ""
    with Image.open(io.BytesIO(content[:end] + b"\x55" * ZEROS + content[end:])) as longer:
        # Behind a whole picture more data are not read; in place of missing ones they are.
        return "" if np.array_equal(np.asarray(longer), np.asarray(image)) else CUT.format("the JPEG ends early")


def _last(image: Image.Image, columns: int, rows: int) -> Image.Image:
    return image.crop((image.width - columns, image.height - rows, image.width, image.height))


def _jpeg_scan(content: bytes) -> tuple[int, bool]:
    """Where the coded blocks of a JPEG begin, and whether zeros there mean "the block is over", as in an even area."""
    at, zeros_end_blocks = 2, False
    while at + 4 <= len(content) and content[at] == 0xFF:
        kind, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        table = at + 4
        while kind == 0xC4 and table + 17 < at + 2 + length:  # code tables, of which a segment may hold several
            if content[table] == 0x10:  # of brightness; the first of its symbols has the code of zeros
                zeros_end_blocks = content[table + 17] == 0
            table += 17 + sum(content[table + 1 : table + 17])
        at += 2 + length
        if kind == 0xDA:
            break
    return at, zeros_end_blocks


def _png(image: Image.Image, content: bytes) -> str:
    if b"IEND\xae\x42\x60\x82" not in content:
        return CUT.format("the PNG has no end")
    if image.info.get("interlace") or not np.asarray(_last(image, image.width, 1)).any():
        has, needs = _png_bytes(content)
        if has < needs:
            return CUT.format(f"holds {has / needs:.0%} of its pixels")
    cicp = re.search(rb"cICP(..)", content[: content.find(b"IDAT")], re.DOTALL)
    if cicp and not (cicp[1][0] in SRGB_LIKE[0] and cicp[1][1] in SRGB_LIKE[1]):
        return OTHER_COLOURS.format("cICP")
    if {"icc_profile", "srgb"} & image.info.keys() or cicp:
        return ""
    if abs(image.info.get("gamma", SRGB_GAMMA) / SRGB_GAMMA - 1) > 0.05:
        return OTHER_COLOURS.format(f"gamma {image.info['gamma']:.2f}, not {SRGB_GAMMA:.2f}")
    if np.abs(np.subtract(image.info.get("chromaticity", SRGB_POINTS), SRGB_POINTS)).max() > 0.02:
        return OTHER_COLOURS.format("other primaries")
    return ""


def _png_bytes(content: bytes) -> tuple[int, int]:
    """Bytes of rows in a PNG, and how many its header promises; Pillow leaves missing rows black."""
    width, height, depth, colours = struct.unpack_from(">IIBB", content, 16)
    passes = ADAM7 if content[28] else ((0, 0, 1, 1),)
    needs = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        needs += rows * (1 + -(-columns * depth * PNG_CHANNELS[colours] // 8)) if columns > 0 < rows else 0
    inflate, has, at = zlib.decompressobj(), 0, 8
    while at + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        data = content[at + 8 : at + 8 + length]
        while name == b"IDAT" and data:
            has += len(inflate.decompress(data, 2**20))  # at most: it may be a bomb
            data = inflate.unconsumed_tail
        at += 12 + length
    return has + len(inflate.flush()), needs


def _tiff(image: Image.Image, content: bytes) -> str:
    tags: Mapping[int, Any] = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    width, height = tags.get(256, image.width), tags.get(257, image.height)  # as stored; Pillow turns the picture
    bits, samples = max(np.atleast_1d(tags.get(258, 1))), tags.get(277, 1)
    planes, plain = (samples if tags.get(284) == 2 else 1), tags.get(259, 1) == 1
    if planes > 1 and bits > 8 and plain:
        return f"{bits} bits in separate planes are not read; save it as RGB with 8 bits"
    if tiled := 324 in tags:
        needs = -(-width // tags[322]) * -(-height // tags[323]) * planes
    else:
        needs = -(-height // min(tags.get(278, height), height)) * planes
    starts, sizes = (np.atleast_1d(tags.get(tag, 0)).astype(int) for tag in ((324, 325) if tiled else (273, 279)))
    if len(starts) < needs or not starts.all() or not sizes.all() or (starts + sizes).max() > len(content):
        return CUT.format("parts of the TIFF are not there")
    row = -(-width * int(bits) * (1 if planes > 1 else samples) // 8)
    if plain and not tiled and sizes.sum() < row * height * planes:
        return CUT.format("parts of the TIFF are not there")
    return ""


def _bmp(image: Image.Image, content: bytes) -> str:
    return OTHER_COLOURS.format("a profile in another file") if _bmp_colours(content) == b"KNIL" else ""


def _bmp_colours(content: bytes) -> bytes:
    """How a bitmap of version 5 describes its colours: four letters, back to front."""
    return content[70:74] if int.from_bytes(content[14:18], "little") >= 124 else b""


def _jpeg2000(image: Image.Image, content: bytes) -> str:
    sizes = content.find(b"\xff\x4f\xff\x51")
    bits = [(content[at] & 0x7F) + 1 for at in range(sizes + 42, sizes + 42 + 3 * content[sizes + 41], 3)]
    if sizes >= 0 and max(bits, default=8) > 8:
        return f"JPEG 2000 of {max(bits)} bits is not read; save it with 8 bits"
    return _zeros_at_the_end(image, content)


def _avif(image: Image.Image, content: bytes) -> str:
    codes = re.search(rb"colrnclx.(.).(.)", content, re.DOTALL)
    if not codes or image.info.get("icc_profile"):
        return _zeros_at_the_end(image, content)
    if not all(code[0] in known for code, known in zip(codes.groups(), SRGB_LIKE, strict=True)):
        return OTHER_COLOURS.format("other primaries, or a wider range")
    return _zeros_at_the_end(image, content)


def _zeros_at_the_end(image: Image.Image, content: bytes) -> str:
    """A download that was broken off, in a file whose size was there before."""
    compressed = image.format in ("AVIF", "GIF", "JPEG2000", "WEBP")
    return CUT.format("its end is empty") if compressed and content.endswith(bytes(ZEROS)) else ""


_FAULTS: Mapping[str, Callable[[Image.Image, bytes], str]] = {
    "AVIF": _avif,
    "BMP": _bmp,
    "JPEG": _jpeg,
    "JPEG2000": _jpeg2000,
    "MPO": _jpeg,
    "PNG": _png,
    "TIFF": _tiff,
}

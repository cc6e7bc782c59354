"""From an image file to pixels, and to a square; without PyTorch.

Every picture that is trained on, predicted, checked or compared is read by `decode`, which trusts no container: what a
viewer would show is what comes out, or one line says why not. A field is squeezed to a square (both sides to `size`,
Pillow's antialiased bicubic), as the real subset was.
"""

import hashlib
import io
import itertools
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, MpoImagePlugin, UnidentifiedImageError

from histotransfer.containers import fault, profile
from histotransfer.errors import HistotransferError

MAX_PIXELS = 50_000_000  # a field has 0.3 million; more is a whole slide or a header that lies
MIN_SIDE = 16
COLOUR_MODES = {"RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "YCbCr"}
GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"}
# Measured on BreakHis, LC25000 and UCSB: at least 45 % of a field's pixels are coloured, and the brightest have 206.
GREY = 4  # levels of 255 between two channels: more is colour, less what a lossy format makes of grey
COLOURED = 0.01  # the share of coloured pixels, glass left out, below which a picture is grey, but for a scale bar
DARK = 64  # 14 bits in a 16-bit file stay below it; the brightest of a thousand pixels is meant, for one may be hot
ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"}
REMEDY = "save it as PNG or TIFF (RGB, 8 bits)"
SRGB = ImageCms.createProfile("sRGB")
SAME_COLOUR = 2  # levels by which profiles that all mean sRGB differ

# Pillow warns of size (held to MAX_PIXELS) and of damage; a bad picture is one line, ours. Here and not where a picture
# is read: filters belong to the process, and pictures are read in threads, where one would undo another's.
warnings.filterwarnings("ignore", module=r"PIL\.")

Image.init()
# Pillow names these but has no reader of its own for them, or runs another program.
FORMATS = sorted(set(Image.OPEN) - {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
ENDINGS = frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS)
"""Of the files that `decode` reads, in small letters."""


def decode(path: str | Path) -> np.ndarray:
    """Read a picture as ``(H, W, 3)`` uint8 RGB, upright and in sRGB.

    EXIF orientation is followed and an embedded colour profile converted. 16-bit colour is reduced to 8 bits and a
    fully opaque alpha channel is dropped. A picture without colour is refused, since everything here rests on colour;
    one of a single brightness, as of empty glass, is not.

    Raises:
        HistotransferError: missing, not an image, damaged, cut, too large, too small, of several pages, grey, too dark,
            partly transparent, or in a colour space that is not read.
    """
    with _opened(path) as image:
        content = Path(path).read_bytes()
        own = profile(image, content)
        if image.mode in GREY_MODES:
            raise _grey(path)
        if image.mode not in COLOUR_MODES and not (image.mode == "CMYK" and own):
            which = "CMYK without a colour profile" if image.mode == "CMYK" else f"the colour space {image.mode}"
            raise HistotransferError(f"{path}: {which} is not read; save it as RGB")
        picture = ImageOps.exif_transpose(image)
        if why := fault(image, content):
            raise HistotransferError(f"{path}: {why}")
        if picture.mode != "CMYK":
            picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
        if picture.mode == "RGBA" and np.asarray(picture)[..., 3].min() < 255:
            raise HistotransferError(f"{path}: partly transparent; flatten it onto its background first")
        if picture.mode == "RGBA":
            picture = picture.convert("RGB")
        if own:
            picture = _in_srgb(picture, own, path)
        pixels = np.asarray(picture)
    _refuse_dark_and_grey(pixels, path)
    return pixels


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """A picture file whose header is as it should be; what Pillow raises meanwhile becomes one line."""
    try:
        about = Path(path).stat()
        if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
            raise HistotransferError(f"{path}: a pipe or device; give a picture's file")
        if about.st_size == 0:
            raise HistotransferError(f"{path}: empty file; copy it anew")
        with Image.open(path, formats=FORMATS) as image:
            image.verify()  # the checksums of a PNG; other formats have none
        with Image.open(path, formats=FORMATS) as image:
            _check_header(image, path)
            yield image
    except FileNotFoundError as error:
        raise HistotransferError(f"{path}: no such file; check its name") from error
    except IsADirectoryError as error:
        raise HistotransferError(f"{path}: a folder without pictures; give a picture or a folder of them") from error
    except UnidentifiedImageError as error:
        archive = Path(path).suffix.lower() in ARCHIVES
        what = "an archive; unpack it" if archive else "not an image, damaged, or of a kind that is not read; " + REMEDY
        raise HistotransferError(f"{path}: {what}") from error
    except Image.DecompressionBombError as error:
        raise HistotransferError(f"{path}: more than {MAX_PIXELS:,} pixels; cut fields from it") from error
    except HistotransferError:
        raise
    except Exception as error:  # damaged files make Pillow raise nearly everything; one of them must not end a batch
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HistotransferError(f"{path}: damaged or unreadable ({reason}); copy or save it anew") from error


def _check_header(image: Image.Image, path: str | Path) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise HistotransferError(f"{path}: {width}x{height} pixels, more than {MAX_PIXELS:,}; cut fields from it")
    if min(width, height) < MIN_SIDE:
        raise HistotransferError(f"{path}: {width}x{height} pixels are too few to show tissue; give a larger field")
    if (pages := _pages(image)) > 1:
        raise HistotransferError(f"{path}: holds {pages} pages or frames; save the one that you mean as a file")


def _pages(image: Image.Image) -> int:
    """How many pictures a file holds, but for the previews that a camera adds."""
    shown = image.mpinfo if isinstance(image, MpoImagePlugin.MpoImageFile) else None
    entries = (shown or {}).get(0xB002, [])
    previews = sum(str(entry["Attribute"]["MPType"]).startswith("Large Thumbnail") for entry in entries)
    return getattr(image, "n_frames", 1) - previews


def _in_srgb(picture: Image.Image, profile: bytes, path: str | Path) -> Image.Image:
    """A picture (RGB or CMYK) whose colours are those of its profile, as RGB in sRGB.

    A profile that means sRGB, judged by what it does to colours, leaves the pixels as they are, to the last bit.
    """
    name = "without a name"
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(own).strip() or name
        transform = ImageCms.buildTransform(own, SRGB, picture.mode, "RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        raise HistotransferError(
            f"{path}: its colour profile ({' '.join(name.split())}) cannot be followed; convert it to sRGB"
        ) from error
    if picture.mode == "RGB":
        levels = np.array([*itertools.product(range(0, 256, 17), repeat=3)], dtype=np.uint8)[None]
        moved = np.asarray(transform.apply(Image.fromarray(levels))).astype(int) - levels
        if np.abs(moved).max() <= SAME_COLOUR:
            return picture
    return transform.apply(picture)


def _refuse_dark_and_grey(pixels: np.ndarray, path: str | Path) -> None:
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    spread = int(highest.max()) - int(lowest.min())
    if spread > 0 and np.count_nonzero(highest >= DARK) <= highest.size // 1000:
        raise HistotransferError(
            f"{path}: too dark, hardly a pixel reaches {DARK} of 255; if a 16-bit file holds 10 or 12 bits, scale it up"
        )
    tissue = np.count_nonzero(lowest < int(lowest.max()) - GREY)  # whatever is not clean glass
    if spread > GREY and np.count_nonzero(highest - lowest > GREY) < COLOURED * tissue:
        raise _grey(path)


def _grey(path: str | Path) -> HistotransferError:
    return HistotransferError(f"{path}: grey picture; a colour picture is needed, save it as it was taken")


def pixels_hash(pixels: np.ndarray) -> str:
    """sha256 of a decoded picture's shape and pixels: equal for the same picture, whatever file holds it."""
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Squeeze ``(H, W, 3)`` uint8 to ``(size, size, 3)``, bicubic with antialiasing."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def symmetric_views(paths: Sequence[str | Path]) -> int:
    """How many symmetric views a user's images allow: 8 if all files are square, else 4.

    Raises:
        HistotransferError: a file whose header `decode` refuses.
    """
    for path in paths:
        with _opened(path) as image:
            if image.width != image.height:
                return 4
    return 8

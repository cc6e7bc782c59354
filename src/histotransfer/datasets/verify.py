"""Is a folder what it claims to be? Every file is checked, and every fault is named in one line.

The loaders stop at the first fault; here all are collected: files that cannot be read, have a wrong name, are in a
wrong place, are copies of another, differ in size, or do not belong there. What is there is counted against what was
published (`LAYOUTS` below, from Spanhol et al. 2016, Borkowski et al. 2019 and Gelasca et al. 2008). A part of a data
set is no fault, only a note.
"""

import contextlib
import hashlib
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd
from PIL import Image
from tqdm import tqdm

from histotransfer.datasets import breakhis, lc25000, ucsb
from histotransfer.errors import HistotransferError
from histotransfer.files import readable
from histotransfer.folders import BROKEN, PassedOver, find_home, other_layout, said, walk
from histotransfer.pictures import decode, pixels_hash

BREAKHIS = {
    "adenosis": (114, 113, 111, 106),
    "fibroadenoma": (253, 260, 264, 237),
    "phyllodes_tumor": (109, 121, 108, 115),
    "tubular_adenoma": (149, 150, 140, 130),
    "ductal_carcinoma": (864, 903, 896, 788),
    "lobular_carcinoma": (156, 170, 163, 137),
    "mucinous_carcinoma": (205, 222, 196, 169),
    "papillary_carcinoma": (145, 142, 135, 138),
}
BREAKHIS_SLIDES = dict(zip(BREAKHIS, (4, 10, 3, 7, 38, 5, 9, 6), strict=True))
# A slide id published under two subtypes, with 121 names in common: copies between the two were published so.
BREAKHIS_TWICE = "14-13412"
LC25000_SIZE = 5000
UCSB = {"benign": 32, "malignant": 26}
FOLDS = Path("breakhis_folds")
DOCUMENTS = re.compile(r"(README|LICEN[CS]E)[^/]*|[^/]+\.sh", re.IGNORECASE)
STRAY = "stray file, not an image"
NAMED = 20  # missing files that are named; more are counted

Faults = defaultdict[str, list[str]]  # file to what is wrong with it


@dataclass(frozen=True)
class Place:
    """What a file name tells: where the file belongs, which class and magnification it shows, and of which slide."""

    path: PurePosixPath
    label: str
    magnification: int
    slide: str


@dataclass(frozen=True)
class Layout:
    """A data set as published.

    Attributes:
        name: as people call it.
        tree: its folder below the root.
        parts: folders that hold its pictures, of which one at least is there.
        place: reads a path by the data set's grammar; raises HistotransferError.
        formats: extension to Pillow's name of the format.
        sizes: published ``(width, height)``.
        counts: images of each label at each magnification.
        slides: slide ids of each label, where they are published.
        copies_known: whether equal images within a class are part of the publication.
    """

    name: str
    tree: Path
    parts: tuple[Path, ...]
    place: Callable[[Path], Place]
    formats: dict[str, str]
    sizes: tuple[tuple[int, int], ...]
    counts: dict[tuple[str, int], int]
    slides: dict[str, int] = field(default_factory=dict)
    copies_known: bool = False


def _place_breakhis(path: Path) -> Place:
    name = breakhis.parse_name(path)
    where = PurePosixPath(breakhis.TREE, name.folder, str(name))
    return Place(where, breakhis.SUBTYPES[name.subtype], name.magnification, name.slide_id)


def _place_lc25000(path: Path) -> Place:
    label, number = lc25000.parse_name(path)
    if number > LC25000_SIZE:
        raise HistotransferError(f"{path}: not published, {label} is numbered from 1 to {LC25000_SIZE}")
    return Place(PurePosixPath(lc25000.FOLDERS[label], lc25000.published_name(path)), label, 0, "")


def _place_ucsb(path: Path) -> Place:
    name = ucsb.parse_name(path)
    return Place(PurePosixPath(ucsb.TREE, str(name)), name.label, 0, name.slide_id)


LAYOUTS = (
    Layout(
        "BreakHis",
        Path(breakhis.TREE.parts[0]),
        (breakhis.TREE,),
        _place_breakhis,
        {".png": "PNG"},
        ((700, 460), (700, 456)),
        {(s, m): n for s, row in BREAKHIS.items() for m, n in zip(breakhis.MAGNIFICATIONS, row, strict=True)},
        BREAKHIS_SLIDES,
    ),
    Layout(
        "LC25000",
        Path(lc25000.TREE.parts[0]),
        lc25000.TREES,
        _place_lc25000,
        {".jpeg": "JPEG"},
        ((768, 768),),
        {(label, 0): LC25000_SIZE for label in lc25000.FOLDERS},
        copies_known=True,
    ),
    Layout(
        "UCSB",
        ucsb.TREE,
        (ucsb.TREE,),
        _place_ucsb,
        {".tif": "TIFF", ".png": "PNG"},
        ((896, 768),),
        {(label, 0): count for label, count in UCSB.items()},
    ),
)


@dataclass(frozen=True)
class DataSetReport:
    """What `verify` found of one data set.

    Attributes:
        name: of the data set.
        images: how many files are images with a correct name in the correct place.
        published: how many were published.
        table: text, present and published images by class and magnification.
        missing: published files that are not there, where a list of the published names is available.
        problems: one line per file.
        notes: one line each.
    """

    name: str
    images: int
    published: int
    table: str
    missing: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What `verify` found; `str(report)` is for people.

    Attributes:
        root: the folder.
        datasets: one entry per data set.
        notes: about the folder as a whole.
    """

    root: Path
    datasets: tuple[DataSetReport, ...]
    notes: tuple[str, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """All faults, one line each, the file first."""
        return tuple(line for dataset in self.datasets for line in dataset.problems)

    @property
    def ok(self) -> bool:
        """Whether there are no problems; an incomplete data set is none."""
        return not self.problems

    def __str__(self) -> str:
        lines = []
        for dataset in self.datasets:
            whole = "complete" if dataset.images == dataset.published else "a subset"
            lines += [f"{dataset.name}: {dataset.images:,} of {dataset.published:,} images ({whole})", dataset.table]
            lines += [f"  note: {note}" for note in dataset.notes]
            lines += [f"  problem: {problem}" for problem in dataset.problems]
            lines.append("")
        lines += [f"note: {note}" for note in self.notes]
        subsets = [dataset.name for dataset in self.datasets if dataset.images < dataset.published]
        clean = f"nothing is wrong{'; subsets of ' + ', '.join(subsets) if subsets else ''}"
        problems = len(self.problems)
        lines.append(clean if self.ok else f"{problems} problem{'s' if problems > 1 else ''}")
        return readable("\n".join(lines))


def verify(root: str | Path, *, workers: int | None = None, progress: bool = False, verbose: bool = False) -> Report:
    """Check every file of the data sets in a folder.

    Args:
        root: folder that holds `BreaKHis_v1`, `lung_colon_image_set` or `UCSB_breast`; also one up to two levels above
            them, or one within.
        workers: threads; all cores by default. Each holds one image at a time, whatever the size of the data set.
        progress: show a bar.
        verbose: name every file that was passed over, in the notes.

    Raises:
        HistotransferError: no such folder, or none of the data sets is in it.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise HistotransferError(f"{root}: no such folder; check its name")
    homes = [(_home(root, layout), layout) for layout in LAYOUTS]
    present = [(home, layout) for home, layout in homes if (home / layout.tree).is_dir()]
    if not present:
        trees = ", ".join(str(layout.tree) for layout in LAYOUTS)
        other = other_layout(root, breakhis.GRAMMAR, lc25000.GRAMMAR, ucsb.GRAMMAR)
        raise HistotransferError(f"{root}: holds none of {trees}; give the folder in which they lie{other}")
    datasets = tuple(_verify_one(home, layout, workers, progress, verbose) for home, layout in present)
    looked = {home / folder for home, layout in present for folder in (layout.tree, FOLDS, lc25000.GROUPS)}
    others = sorted(
        path.name
        for path in root.iterdir()
        if path.is_dir() and not any(path in (one, *one.parents) or one in path.parents for one in looked)
    )
    return Report(root, datasets, (f"not looked at: {', '.join(others)}",) if others else ())


def _home(root: Path, layout: Layout) -> Path:
    """The folder in which a data set lies; `root` if it is in none."""
    homes = {part: find_home(root, part) for part in layout.parts}
    return next((home for part, home in homes.items() if (home / part).is_dir()), root)


@dataclass(frozen=True)
class _Look:
    """One file's content; hashes are empty where it could not be read."""

    file: str
    bytes_hash: str = ""
    pixels_hash: str = ""
    format: str = ""
    size: tuple[int, int] = (0, 0)
    trouble: str = ""


def _look(root: Path, path: Path) -> _Look:
    file = path.relative_to(root).as_posix()
    kind, trouble, hashes, size = "", "", ("", ""), (0, 0)
    try:
        content = path.read_bytes()
        with contextlib.suppress(Exception), Image.open(io.BytesIO(content)) as image:  # `decode` says what is wrong
            kind = image.format or ""
        pixels = decode(path)
        hashes, size = (hashlib.sha256(content).hexdigest(), pixels_hash(pixels)), pixels.shape[1::-1]
    except HistotransferError as error:
        trouble = str(error).removeprefix(f"{path}: ")
    except OSError as error:
        trouble = f"cannot be read ({error.strerror})"
    return _Look(file, *hashes, kind, size, trouble)


def _verify_one(root: Path, layout: Layout, workers: int | None, progress: bool, verbose: bool) -> DataSetReport:
    passed_over: list[PassedOver] = []
    files = walk(root / layout.tree, passed_over, endings=None)
    files += [Path(name) for name, kind in passed_over if kind == BROKEN]
    looks, notes = _look_at_all(root, layout, sorted(files), workers, progress)
    notes += said([one for one in passed_over if one.kind != BROKEN], verbose=verbose)
    faults, places = _check_files(root, layout, looks)
    right = {file: place for file, place in places.items() if not faults[file]}
    notes += _copies(layout, looks, right, faults)
    notes += _odd_sizes(layout, looks, faults)
    missing: tuple[str, ...] = ()
    if layout.tree == Path(breakhis.TREE.parts[0]):
        missing = _compare_list(root, places, faults, notes)
    if layout.tree == Path(lc25000.TREE.parts[0]):
        _compare_groups(root, right, faults, notes)
    table, surplus = _counts(layout, right)
    problems = [f"{file}: {'; '.join(lines)}" for file, lines in sorted(faults.items()) if lines] + surplus
    published = sum(layout.counts.values())
    return DataSetReport(layout.name, len(right), published, table, missing, tuple(problems), tuple(notes))


def _look_at_all(
    root: Path, layout: Layout, files: list[Path], workers: int | None, progress: bool
) -> tuple[dict[str, _Look], list[str]]:
    """Every file of a data set by its path below `root`, in order; documents are left out and noted."""
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        results = pool.map(lambda path: _look(root, path), files)
        looks = list(tqdm(results, layout.name, len(files), unit="image", disable=not progress, leave=False))
    documents = [look.file for look in looks if not look.format and DOCUMENTS.fullmatch(Path(look.file).name)]
    images = {look.file: look for look in looks if look.file not in documents}
    return images, [f"{file}: no picture, not counted" for file in documents]


def _check_files(root: Path, layout: Layout, looks: dict[str, _Look]) -> tuple[Faults, dict[str, Place]]:
    """What is wrong with each file by itself, and the content of each readable name."""
    faults, places = Faults(list), {}
    for file, look in looks.items():
        wrong, place = _name_faults(layout, root / file, look)
        faults[file] += wrong
        if place:
            places[file] = place
        if look.trouble and STRAY not in wrong:
            faults[file].append(look.trouble)
    return faults, places


def _name_faults(layout: Layout, path: Path, look: _Look) -> tuple[list[str], Place | None]:
    """What is wrong with a file's name, extension and place; and the content of its name, where it can be read."""
    kinds = {kind: suffix for suffix, kind in layout.formats.items()}
    ending = path.suffix.lower()
    if ending not in layout.formats:
        right = kinds.get(look.format, next(iter(layout.formats)))
        try:
            layout.place(path.with_suffix(right))
        except HistotransferError:
            what = f"misnamed, not a name of {layout.name}" if look.format else STRAY
            return [what], None
        holds = f" and holds {look.format}" if look.format else ""
        return [f"misnamed, the extension is {path.suffix or 'missing'}{holds}, it should be {right}"], None
    try:
        place = layout.place(path)
    except HistotransferError as error:
        return [f"misnamed, {str(error).removeprefix(f'{path}: ')}"], None
    if look.format and look.format != layout.formats[ending]:
        return [f"misnamed, the extension is {path.suffix} but it holds {look.format}"], place
    if PurePosixPath(look.file).parent != place.path.parent:
        return [f"misplaced, by its name it belongs in {place.path.parent}"], place
    return [], place


def _copies(layout: Layout, looks: dict[str, _Look], right: dict[str, Place], faults: Faults) -> list[str]:
    """Mark every file that shows the same as another as a fault; returns notes on copies that were published so."""
    notes: list[str] = []
    first: dict[str, _Look] = {}
    # A file with a right name is the original, one with a fault the copy.
    for look in sorted(looks.values(), key=lambda look: (look.file not in right, look.file)):
        if not look.pixels_hash:
            continue
        other = first.setdefault(look.pixels_hash, look)
        if other is look:
            continue
        how = "bytes" if look.bytes_hash == other.bytes_hash else "pixels"
        line = f"duplicate, the same {how} as {other.file}"
        slides = {right[file].slide if file in right else "" for file in (look.file, other.file)}
        labels = {right[file].label for file in (look.file, other.file) if file in right}
        if len(labels) == 1 if layout.copies_known else slides == {BREAKHIS_TWICE} and len(labels) == 2:
            notes.append(f"{look.file}: {line}, as published")
        else:
            faults[look.file].append(line)
    return notes


def _odd_sizes(layout: Layout, looks: dict[str, _Look], faults: Faults) -> list[str]:
    """Name images whose size is not that of the others; when all were resized alike, that is a note."""
    sizes = Counter(look.size for look in looks.values() if look.pixels_hash)
    if not sizes:
        return []
    usual = max(sizes, key=lambda size: (sizes[size], size in layout.sizes))
    expected = layout.sizes if usual in layout.sizes else (usual,)
    for look in looks.values():
        if look.pixels_hash and look.size not in expected:
            faults[look.file].append(f"odd size, {_times(look.size)} among images of {_times(usual)}")
    if usual in layout.sizes:
        return []
    published = " or ".join(map(_times, layout.sizes))
    return [f"{sizes[usual]:,} images are {_times(usual)}; published are {published}: they were resized"]


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _compare_list(root: Path, places: dict[str, Place], faults: Faults, notes: list[str]) -> tuple[str, ...]:
    """Compare BreakHis names with those of the official folds, when they are beside it; returns what is missing."""
    path = root / FOLDS / "dsfold1.txt"
    if not path.is_file():
        notes.append(f"{FOLDS}/dsfold1.txt is not there: names cannot be compared with the published list")
        return ()
    try:
        published = set(breakhis.read_official_fold(path))
        slide_of = {name: breakhis.parse_name(name).folder.parts[3] for name in published}
    except HistotransferError as error:
        faults[str(FOLDS / path.name)].append(str(error).removeprefix(str(path)).lstrip(":, "))
        return ()
    there = {place.path.name for place in places.values()}
    for file, place in places.items():
        if place.path.name not in published:
            faults[file].append(f"not published, its name is not in {FOLDS}/dsfold1.txt")
    missing = tuple(sorted(published - there))
    if not missing:
        return ()
    slides = Counter(slide_of.values())
    present = Counter(slide_of[name] for name in there & published)
    whole = sum(present[slide] == count for slide, count in slides.items())
    part = sum(0 < present[slide] < count for slide, count in slides.items())
    notes.append(f"of the {len(slides)} slides {whole} are whole, {part} are there in part and "
                 f"{len(slides) - whole - part} are absent; {len(missing):,} published images are missing")  # fmt: skip
    if len(missing) <= NAMED:
        notes += [f"{name}: missing" for name in missing]
    return missing


def _compare_groups(root: Path, right: dict[str, Place], faults: Faults, notes: list[str]) -> None:
    """Every LC25000 image needs a duplicate group, where the lists are there; lung and colon each have all or none."""
    for tree in lc25000.TREES:
        labels = sorted({place.label for place in right.values() if lc25000.FOLDERS[place.label].parent == tree})
        found = {label: _groups_of_class(root, label, right, faults) for label in labels}
        missing = [label for label, what in found.items() if not what]
        for label in missing:
            path = lc25000.GROUPS / f"{label}.csv"
            if len(missing) < len(labels):
                faults[str(path)].append("missing, the lists are half done: `histotransfer data groups` goes on")
            else:
                why = f"{label} cannot be split without leakage until its groups are found"
                notes.append(f"{path} is not there: {why}")
        if 0 < len(missing) < len(labels):
            by_class = "; ".join(f"{label}: {what or 'no list'}" for label, what in found.items())
            notes.append(f"{lc25000.GROUPS}: {by_class}")


def _groups_of_class(root: Path, label: str, right: dict[str, Place], faults: Faults) -> str:
    """What the list of a class holds, in words; empty if there is none."""
    path = lc25000.GROUPS / f"{label}.csv"
    if not (root / path).is_file():
        return ""
    try:
        groups = lc25000.read_groups(root / path)
    except HistotransferError as error:
        faults[str(path)].append(str(error).removeprefix(f"{root / path}: "))
        return "a list that cannot be read"
    for file, place in right.items():
        if place.label == label and place.path.name not in groups:
            faults[file].append(f"in no duplicate group of {path}")
    return f"{len(groups):,} images in {len(set(groups.values())):,} groups"


def _counts(layout: Layout, right: dict[str, Place]) -> tuple[str, list[str]]:
    """The table present/published as text, and a line wherever there is more than was published."""
    there = Counter((place.label, place.magnification) for place in right.values())
    slides: dict[str, set[str]] = defaultdict(set)
    for place in right.values():
        slides[place.label].add(place.slide)
    rows: dict[str, dict[str, str]] = defaultdict(dict)
    surplus = []
    for (label, magnification), count in layout.counts.items():
        column = f"{magnification}x" if magnification else "images"
        rows[label][column] = f"{there[label, magnification]}/{count}"
        if there[label, magnification] > count:
            surplus.append(f"{layout.name}: {label} {column}: {there[label, magnification]}, published are {count}")
    for label, count in layout.slides.items():
        rows[label]["slide ids"] = f"{len(slides[label])}/{count}"
        if len(slides[label]) > count:
            surplus.append(f"{layout.name}: {label} slide ids: {len(slides[label])}, published are {count}")
    return pd.DataFrame.from_dict(rows, orient="index").to_string(), surplus

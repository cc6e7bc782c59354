"""Fetch a published data set: download, check, unpack, and put it in place whole or not at all.

No publisher states a checksum, and BreakHis comes over plain http. The first download that unpacks into the whole set
is therefore trusted, and pins its sha256 in `fetch.lock.json` beside the data; a later download of the same source must
match it. An archive is hostile until unpacked: names that leave the folder, links, devices and encrypted members are
refused, size and number are bounded. What an operating system added (``._a.png``, ``__MACOSX``) is passed over.
"""

import errno
import hashlib
import json
import lzma
import os
import re
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO

import pooch
import requests
import urllib3
from filelock import FileLock, Timeout
from tqdm import tqdm

from histotransfer.errors import HistotransferError
from histotransfer.files import readable, write_json
from histotransfer.folders import SYSTEM, PassedOver, is_system, said, walk

MB, GB = 2**20, 2**30


@dataclass(frozen=True)
class Source:
    """Where a data set comes from, and how to tell whether it is complete.

    Attributes:
        title, licence, citation, page: printed before anything is downloaded.
        folder: what it becomes below the folder of the data sets.
        images, count: a pattern below `folder`, capitals or not, and how many files fit it when the set is whole.
        url: of a `.tar.gz` or `.zip`; empty where no direct address is known.
        kaggle: the handle on Kaggle, used where there is no `url`.
        max_bytes, max_members: bounds on what may be downloaded and unpacked.
    """

    title: str
    licence: str
    citation: str
    page: str
    folder: str
    images: str
    count: int
    max_bytes: int
    max_members: int
    url: str = ""
    kaggle: str = ""


SPANHOL = (
    "Spanhol, Oliveira, Petitjean, Heutte: A Dataset for Breast Cancer Histopathological Image Classification."
    " IEEE Trans. Biomed. Eng. 63(7), 1455-1462, 2016. doi:10.1109/TBME.2015.2496264"
)
SOURCES = {
    "breakhis": Source(
        title="BreakHis: 7,909 breast tumour fields of 81 slide ids, about 4 GB",
        licence="CC BY 4.0 as others report it; confirm on the page",
        citation=SPANHOL,
        page="https://web.inf.ufpr.br/vri/databases/breast-cancer-histopathological-database-breakhis/",
        folder="BreaKHis_v1",
        images="histology_slides/breast/*/SOB/*/*/*/*.png",
        count=7909,
        max_bytes=8 * GB,
        max_members=20_000,
        url="http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz",
    ),
    "folds": Source(
        title="The five official train/test lists of BreakHis",
        licence="CC BY 4.0 as others report it for BreakHis; confirm on the page",
        citation=SPANHOL,
        page="https://web.inf.ufpr.br/vri/databases/breast-cancer-histopathological-database-breakhis/",
        folder="breakhis_folds",
        images="dsfold[1-5].txt",
        count=5,
        max_bytes=64 * MB,
        max_members=1000,
        url="http://www.inf.ufpr.br/vri/databases/mkfold.tar.gz",
    ),
    # The authors publish LC25000.zip through a torrent only; Kaggle carries a copy.
    "lc25000": Source(
        title="LC25000: 25,000 lung and colon fields made from 1,250 originals, about 1.9 GB",
        licence="none named by the authors (free for AI researchers); CC BY-SA 4.0 as others report; confirm on Kaggle",
        citation="Borkowski, Bui, Thomas, Wilson, DeLand, Mastorides: Lung and Colon Cancer Histopathological Image"
        " Dataset (LC25000). arXiv:1912.12142, 2019",
        page="https://github.com/tampapath/lung_colon_image_set",
        folder="lung_colon_image_set",
        images="*_image_sets/*/*.jpeg",
        count=25_000,
        max_bytes=4 * GB,
        max_members=30_000,
        kaggle="andrewmvd/lung-and-colon-cancer-histopathological-images",
    ),
    # The publisher's links have moved more than once and none could be confirmed; Kaggle carries a copy.
    "ucsb": Source(
        title="UCSB Bio-Segmentation benchmark, breast: 58 H&E fields of tissue microarrays",
        licence="none named; the publisher asks for the citation; confirm on the page and on Kaggle",
        citation="Drelie Gelasca, Byun, Obara, Manjunath: Evaluation and Benchmark for Biological Image Segmentation."
        " IEEE International Conference on Image Processing, 2008",
        page="https://bioimage.ucsb.edu/research/bio-segmentation",
        folder="UCSB_breast",
        images="ytma*_ccd.tif",
        count=58,
        max_bytes=GB,
        max_members=1000,
        kaggle="andrewmvd/breast-cancer-cell-segmentation",
    ),
}

LOCK = "fetch.lock.json"
LONGEST_NAME, LONGEST_PATH = 255, 1000  # bytes that disks take, letters
CONNECT_SECONDS, READ_SECONDS = 5, 60
ATTEMPTS = 5  # in a row without a new byte
PAUSE_SECONDS = 1.0  # before the second attempt; doubles with each
BLOCK = 64 * 1024
BUSY = {429, 500, 502, 503, 504}
FULL = {errno.ENOSPC, errno.EDQUOT}
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, NotImplementedError)

Member = tuple[str, IO[bytes] | None]  # a folder has no content


def fetch(
    dataset: str,
    to: str | Path,
    *,
    archive: str | Path | None = None,
    progress: bool = False,
    report: Callable[[str], None] = print,
) -> Path:
    """Put a whole data set below `to`; one that is there already is recognised and left alone.

    Args:
        dataset: breakhis, folds, lc25000 or ucsb.
        to: the folder of the data sets; created if missing.
        archive: a `.tar.gz`, `.zip` or unpacked folder got by hand, used instead of the network.
        progress: draw progress bars.
        report: called with the licence, the citation and what was done, line by line.

    Returns:
        The folder of the data set.

    Raises:
        HistotransferError: an unknown name; something else is in the data set's place; the download fails, is not
            the pinned one, is no whole set or is hostile; no room on the disk; another fetch is running.
    """
    if dataset not in SOURCES:
        raise HistotransferError(f"{dataset}: no such data set; choose from {', '.join(SOURCES)}")
    source, to = SOURCES[dataset], Path(to).resolve()
    report(source.title)
    place = f"{to / source.folder}, whole with {source.count} files {source.images}"
    for what, text in {"licence": source.licence, "cite": source.citation, "page": source.page, "into": place}.items():
        report(f"{what}: {text}")
    try:
        to.mkdir(parents=True, exist_ok=True)
        with FileLock(to / ".fetch.busy", timeout=0):
            return _fetch(dataset, source, to, Path(archive) if archive else None, progress, report)
    except Timeout as error:
        raise HistotransferError(f"{to}: another fetch is at work here; wait until it ends") from error
    except OSError as error:
        if error.errno in FULL:
            raise HistotransferError(
                f"{to}: no room left on the disk, nothing unfinished was kept; free some and fetch again"
            ) from error
        raise HistotransferError(f"{to}: {_line(error)}; give a folder that can be written") from error


def _fetch(
    dataset: str, source: Source, to: Path, archive: Path | None, progress: bool, report: Callable[[str], None]
) -> Path:
    lock, folder = _read_lock(to / LOCK), to / source.folder
    if folder.exists() or folder.is_symlink():
        if lock["sets"].get(dataset) != _census(folder, source):
            raise HistotransferError(
                f"{folder}: exists and is not the whole set as fetched; move it away, then fetch again"
            )
        report(f"{folder}: already there, whole")
        return folder
    # Siblings of the place they go to, so that the last step is one rename.
    passed_over: list[PassedOver] = []
    with _temporary(to / f".{source.folder}.part") as staging, _temporary(to / f".{source.folder}.kaggle") as kaggle:
        if archive is not None:
            root = _unpack(archive, staging, source, passed_over)
        elif source.url:
            root = _from_url(source, to, staging, lock["pins"], progress, passed_over)
        else:
            root = _from_kaggle(source, kaggle, staging, lock["pins"], to / LOCK, passed_over)
        lock["sets"][dataset] = _census(root, source)
        # The lock first: a crash between the two leaves no folder, and the next fetch starts anew.
        _write_lock(to / LOCK, lock)
        root.rename(folder)
    if archive is None and source.url:
        _archive_file(source, to).unlink()
    for line in [f"{folder}: whole, {source.count} files", *said(passed_over)]:
        report(line)
    return folder


# --- the lock file -----------------------------------------------------------------------------------------------


def _read_lock(path: Path) -> dict[str, dict]:
    """`pins`: source to sha256; `sets`: data set to its census."""
    if not path.exists():
        return {"pins": {}, "sets": {}}
    try:
        lock = json.loads(path.read_text())
        if isinstance(lock["pins"], dict) and isinstance(lock["sets"], dict):
            return lock
    except (ValueError, KeyError, TypeError):
        pass
    raise HistotransferError(f"{path}: not a lock file of `data fetch`; put the right one back or move it away")


def _write_lock(path: Path, lock: dict[str, dict]) -> None:
    write_json(path, lock)


def _census(folder: Path, source: Source) -> dict[str, int]:
    """How many of the expected files a folder holds, and their bytes: it shows whether some have been lost."""
    depth = source.images.count("/") + 1
    files = [path for path in walk(folder, endings=None) if len(path.relative_to(folder).parts) == depth]
    sizes = [path.stat().st_size for path in files if PureWindowsPath(path).match(source.images)]  # .PNG is .png there
    return {"files": len(sizes), "bytes": sum(sizes)}


# --- where it comes from -----------------------------------------------------------------------------------------


def _archive_file(source: Source, to: Path) -> Path:
    return to / source.url.rsplit("/", 1)[-1]


def _from_url(
    source: Source, to: Path, staging: Path, pins: dict[str, str], progress: bool, passed_over: list[PassedOver]
) -> Path:
    """Download, unpack, and pin what was downloaded."""
    archive, pin = _archive_file(source, to), pins.get(source.url)
    pooch.get_logger().setLevel("WARNING")  # its hints on hashes are for programmers
    try:
        pooch.retrieve(
            source.url, pin, fname=archive.name, path=to, downloader=ResumingDownloader(archive, source, progress)
        )
    except ValueError as error:  # pooch: another hash
        raise _unlike_pin(source.url, to / LOCK) from error
    try:
        root = _unpack(archive, staging, source, passed_over)
    except HistotransferError:  # not for want of room: then the archive is good, and is kept for the next time
        archive.unlink()
        raise
    pins[source.url] = pooch.file_hash(str(archive))
    return root


def _from_kaggle(
    source: Source, into: Path, staging: Path, pins: dict[str, str], lock: Path, passed_over: list[PassedOver]
) -> Path:
    """kagglehub downloads and unpacks by itself; its files are then checked like those of any archive."""
    by_hand = f"or get it by hand from {source.page} and give it with --archive"
    try:
        import kagglehub
    except ImportError as error:
        raise HistotransferError(
            f"{source.kaggle}: is on Kaggle; `pip install histotransfer[kaggle]`, {by_hand}"
        ) from error
    try:
        download = Path(kagglehub.dataset_download(source.kaggle, output_dir=str(into)))
    except Exception as error:  # kagglehub raises a dozen kinds, some of requests, some its own
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        raise HistotransferError(
            f"{source.kaggle}: Kaggle did not give it ({_line(error)}); try again, {by_hand}"
        ) from error
    root = _unpack(download, staging, source, passed_over)
    name, digest = f"kaggle:{source.kaggle}", _tree_hash(root)
    if pins.setdefault(name, digest) != digest:
        raise _unlike_pin(name, lock)
    return root


def _tree_hash(root: Path) -> str:
    """sha256 over the sorted relative names, each followed by its content's sha256."""
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(root).as_posix()}\0{pooch.file_hash(str(path))}\n".encode())
    return digest.hexdigest()


def _unlike_pin(name: str, lock: Path) -> HistotransferError:
    return HistotransferError(
        f"{name}: not what was downloaded before (sha256 differs), nothing was kept; try again, and remove its pin from"
        f" {lock} only if you trust the new file"
    )


class ResumingDownloader:
    """A downloader for pooch that resumes an interrupted download, within a run and from one run to the next.

    What has arrived lies in `<archive>.part`, the server's name for that version (ETag or Last-Modified) beside it: a
    file that changed meanwhile, or a server that ignores ranges, means a fresh start. Cuts and busy servers are retried
    with growing pauses, at most `ATTEMPTS` times in a row without a new byte.

    Deviation: pooch's own `HTTPDownloader` neither resumes nor retries.

    Args:
        archive: where the file will be.
        source: its bound on bytes, and the page named in errors.
        progress: draw a progress bar.
    """

    def __init__(self, archive: Path, source: Source, progress: bool):
        self.part, self.note = (archive.with_name(f"{archive.name}.part{end}") for end in ("", ".json"))
        self.source, self.progress = source, progress

    def __call__(self, url: str, output_file: str, pooch: object = None) -> None:
        """Download `url` to `output_file`.

        Raises:
            HistotransferError: refused by the server, too large, or cut too often.
            OSError: no room left; then what had arrived is removed.
        """
        best, failures = self._size(), 0
        while True:
            try:
                self._get(url)
                break
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                failures = 1 if self._size() > best else failures + 1
                best = max(best, self._size())
                if failures >= ATTEMPTS:
                    raise HistotransferError(
                        f"{url}: download failed {failures} time(s) in a row ({_line(error)}); run the command again to"
                        f" go on from {best} bytes, or {self._by_hand}"
                    ) from error
                time.sleep(PAUSE_SECONDS * 2 ** (failures - 1))
            except OSError as error:
                if error.errno in FULL:
                    self._drop()
                raise
        self.part.replace(output_file)
        self._drop()

    @property
    def _by_hand(self) -> str:
        return f"get it by hand from {self.source.page} and give it with --archive"

    def _get(self, url: str) -> None:
        """One request: all of the file, or what is missing of it."""
        have, version = self._arrived(url)
        # As it is: a server that labels .tar.gz as "encoded" would have it unpacked on the way, and ranges with it.
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": version}
        timeout = (CONNECT_SECONDS, READ_SECONDS)
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
            have, total = self._place(response, url, have, version)
            bar = tqdm(
                desc=self.part.stem, initial=have, total=total, unit="B", unit_scale=True, disable=not self.progress
            )
            with self.part.open("ab" if have else "wb") as file, bar:
                for block in response.raw.stream(BLOCK, decode_content=False):
                    have += len(block)
                    if have > self.source.max_bytes:
                        self._drop()
                        raise HistotransferError(
                            f"{url}: larger than {self.source.max_bytes} bytes, which this set is not; {self._by_hand}"
                        )
                    file.write(block)
                    bar.update(len(block))
        if total is not None and have != total:
            raise requests.ConnectionError(f"cut after {have} of {total} bytes")

    def _place(self, response: requests.Response, url: str, have: int, version: str) -> tuple[int, int | None]:
        """Where in the file the response's bytes belong, and the size of the file if the server states it."""
        status, answer = response.status_code, response.headers
        if status == 200:
            self._drop()  # first: old bytes must never lie beside a new note
            self.note.write_text(json.dumps({"url": url, "version": _version(response)}))
            return 0, int(answer["Content-Length"]) if "Content-Length" in answer else None
        if status in (206, 416):
            place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.get("Content-Range", ""))
            if status == 206 and place and int(place[1]) == have and _version(response) == version:
                return have, None if place[2] == "*" else int(place[2])
            self._drop()
            raise requests.ConnectionError("the file changed on the server; starting anew")
        if status in BUSY:
            raise requests.ConnectionError(f"the server is busy: {status} {response.reason}")
        why = "not found, it may have moved" if status in (404, 410) else "refused"
        raise HistotransferError(f"{url}: {why} ({status} {response.reason}); {self._by_hand}")

    def _arrived(self, url: str) -> tuple[int, str]:
        """How many bytes can be kept, and of which version of the file."""
        try:
            note = json.loads(self.note.read_text())
            if note["url"] == url and note["version"]:
                return self._size(), note["version"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0, ""

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _drop(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _version(response: requests.Response) -> str:
    """What `If-Range` may carry: a strong ETag, else the date of change, else nothing."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


# --- unpacking ---------------------------------------------------------------------------------------------------


def _unpack(archive: Path, staging: Path, source: Source, passed_over: list[PassedOver]) -> Path:
    """Unpack into `staging`; returns the folder in it that holds the whole set. Adds to `passed_over`.

    Raises:
        HistotransferError: damaged, hostile, too large, or not the whole set.
        OSError: trouble with the disk.
    """
    if not archive.exists():
        raise HistotransferError(f"{archive}: no such file; give the archive or the unpacked folder")
    try:
        with closing(_members(archive, staging)) as members:
            _write(members, archive, staging, source, passed_over)
    except DAMAGED as error:
        raise HistotransferError(f"{archive}: damaged or no archive ({_line(error)}); download it again") from error
    except OSError as error:
        if error.errno is None or isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
            # gzip's complaints have no number; the others are two members of one name
            raise HistotransferError(f"{archive}: damaged archive ({_line(error)}); download it again") from error
        raise
    # The publisher's top folder may be named otherwise, or missing.
    places = [staging, *staging.glob("*/"), *staging.glob("*/*/")]
    counts = {place: _census(place, source)["files"] for place in places}
    root = max(counts, key=counts.__getitem__)
    if counts[root] != source.count:
        raise HistotransferError(
            f"{archive}: holds {counts[root]} of the {source.count} files {source.images} of the whole set; get it anew"
        )
    return root


def _write(
    members: Iterator[Member], archive: Path, staging: Path, source: Source, passed_over: list[PassedOver]
) -> None:
    """Write members below `staging`, counting the bytes that come out: the sizes an archive states prove nothing."""
    size = number = 0
    for name, content in members:
        path = PureWindowsPath(name)  # splits at both slashes and knows drives
        if path.anchor or ".." in path.parts:
            raise _refused(archive, name, "leads out of the folder")
        from_system = any(map(is_system, path.parts))
        number += not from_system
        if max(number, len(passed_over)) > source.max_members:
            raise _refused(archive, name, f"is beyond the {source.max_members} members that this set may have")
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts) or len(name) > LONGEST_PATH:
            raise _refused(archive, name[:100] + "...", "has a longer name than this set may have")
        target = staging.joinpath(*path.parts)
        if from_system:
            passed_over.append(PassedOver(readable(name), SYSTEM))
            if content:
                content.close()
        elif content is None:
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("xb") as file:
                while block := content.read(BLOCK):
                    size += len(block)
                    if size > source.max_bytes:
                        bound = f"goes beyond the {source.max_bytes} bytes that this set may have"
                        raise _refused(archive, name, bound)
                    file.write(block)


def _members(archive: Path, staging: Path) -> Generator[Member, None, None]:
    """Name and content of every member; anything but files and folders is refused."""
    if archive.is_dir():
        return _folder_members(archive)
    return _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive, staging)


def _tar_members(archive: Path, staging: Path) -> Generator[Member, None, None]:
    with tarfile.open(archive) as tar:
        for member in tar:
            try:
                tarfile.data_filter(member, str(staging))
            except tarfile.FilterError as error:
                raise _refused(archive, member.name, _line(error)) from error
            if not (member.isfile() or member.isdir()):
                raise _refused(archive, member.name, "is a link")  # the filter lets links inside the folder pass
            yield member.name, tar.extractfile(member) if member.isfile() else None
        while tar.fileobj.read(BLOCK):  # to the end: gzip's checksum is there
            pass


def _zip_members(archive: Path) -> Generator[Member, None, None]:
    with zipfile.ZipFile(archive) as bundle:
        for info in bundle.infolist():
            if info.flag_bits & 1:
                raise _refused(archive, info.filename, "is encrypted")
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(archive, info.filename, "is a link or a special file")
            yield info.filename, None if info.is_dir() else bundle.open(info)


def _folder_members(folder: Path) -> Generator[Member, None, None]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise _refused(folder, name, "is a link or a special file")
        yield name, path.open("rb") if path.is_file() else None


def _refused(archive: Path, name: str, why: str) -> HistotransferError:
    return HistotransferError(f"{archive}: refused, member {name!r} {why}; get the archive from its publisher")


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """An empty folder that is removed afterwards, whatever happens; one left by a killed run is cleared first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

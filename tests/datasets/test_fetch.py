"""Fetching against a local server that misbehaves, and unpacking of archives that mean harm."""

import errno
import io
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pooch
import pytest
from filelock import FileLock

from histotransfer.datasets import fetch as module
from histotransfer.datasets.fetch import LOCK, SOURCES, Source, fetch
from histotransfer.errors import HistotransferError

IMAGES = 3
PICTURE = np.random.default_rng(0).bytes(200_000)  # does not compress: an archive of a few blocks, which can be cut


def tar_bytes(members=None, mode="w:gz"):
    """A tar of (name or TarInfo, content); by default a whole set of three images in its folder."""
    if members is None:
        members = [(f"made/images/{i}.png", PICTURE + bytes([i])) for i in range(IMAGES)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def whole_and(*members):
    """A whole set, then these members."""
    return tar_bytes([*((f"made/images/{i}.png", PICTURE) for i in range(IMAGES)), *members])


def tar_member(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


class Server:
    """One file over HTTP. `script` says what becomes of each request in turn: a status, `cut` after half of what was
    asked for, `short` for half of a range but well-formed, `shifted` for another range than asked, or `whole`; when it
    is used up everything is whole."""

    def __init__(self, body):
        self.body, self.script, self.seen = body, [], []
        self.ranges, self.tag, self.obeys_if_range = True, '"one"', True
        self.headers, self.hidden_length = {}, False
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/made.tar.gz"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def answer(self, request):
        action = self.script.pop(0) if self.script else "whole"
        self.seen.append(dict(request.headers))
        if isinstance(action, int):
            request.send_error(action)
            return
        start, asked = 0, request.headers.get("Range")
        same = request.headers.get("If-Range") == self.tag or not self.obeys_if_range
        if asked and self.ranges and same:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        start += 1000 * (action == "shifted")
        rest = self.body[start:]
        if action == "short":
            rest = rest[: len(rest) // 2]
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{start + len(rest) - 1}/{len(self.body)}")
        if not self.hidden_length:
            request.send_header("Content-Length", str(len(rest)))
        for name, value in {"ETag": self.tag, **self.headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(rest[: len(rest) // 2] if action == "cut" else rest)

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0)
    server = Server(tar_bytes())
    yield server
    server.close()


@pytest.fixture
def made(monkeypatch):
    """Put a small made-up source into the table."""

    def make(**changes):
        source = Source(
            title="Made: three images",
            licence="CC0 of the tests",
            citation="Nobody 2026",
            page="https://example.org/made",
            folder="made",
            images="images/*.png",
            count=IMAGES,
            max_bytes=2_000_000,
            max_members=20,
        )
        source = replace(source, **changes)
        monkeypatch.setitem(SOURCES, "made", source)
        return source

    return make


@pytest.fixture
def source(made, server):
    return made(url=server.url)


@pytest.fixture
def from_bytes(made, tmp_path):
    """Fetch from an archive on disk, whose bytes are given."""

    def run(content, name="made.tar.gz", **changes):
        made(**changes)
        archive = tmp_path / name
        archive.write_bytes(content)
        return fetch("made", tmp_path / "data", archive=archive, report=lambda line: None)

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".fetch.busy")


def refused(to, part, **options):
    """Fetch must fail in one line that holds `part`."""
    with pytest.raises(HistotransferError) as caught:
        fetch("made", to, report=lambda line: None, **options)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_whole(to):
    assert names(to) == [LOCK, "made"]
    assert [path.read_bytes() for path in sorted((to / "made/images").iterdir())] == [
        PICTURE + bytes([i]) for i in range(IMAGES)
    ]


# --- the good case -------------------------------------------------------------------------------------------------


def test_a_set_is_fetched_pinned_and_not_fetched_again(source, server, tmp_path):
    said = []
    assert fetch("made", tmp_path, report=said.append) == tmp_path / "made"
    assert_whole(tmp_path)
    (tmp_path / "archive").write_bytes(server.body)
    lock = json.loads((tmp_path / LOCK).read_text())
    assert lock["pins"] == {server.url: pooch.file_hash(str(tmp_path / "archive"))}
    fetch("made", tmp_path, report=said.append)
    assert len(server.seen) == 1
    assert said[-1].endswith("already there, whole")


def test_licence_and_citation_are_told_before_the_download(source, server, tmp_path):
    said = []

    def report(line):
        said.append((line, len(server.seen)))

    fetch("made", tmp_path, report=report)
    assert ("licence: CC0 of the tests", 0) in said
    assert ("cite: Nobody 2026", 0) in said
    assert (f"into: {tmp_path}/made, whole with 3 files images/*.png", 0) in said


def test_progress_is_drawn_only_when_asked(source, tmp_path, capsys):
    fetch("made", tmp_path / "quiet")
    assert capsys.readouterr().err == ""
    fetch("made", tmp_path / "loud", progress=True)
    assert "made.tar.gz" in capsys.readouterr().err


def test_the_table_of_sources_is_complete():
    assert list(SOURCES) == ["breakhis", "folds", "lc25000", "ucsb"]
    for source in SOURCES.values():
        assert source.licence and source.citation and source.page.startswith("https://")
        assert bool(source.url) != bool(source.kaggle)
        assert source.max_members > source.count and source.max_bytes > 0


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(HistotransferError, match=r"imagenet: no such data set; choose from breakhis, folds"):
        fetch("imagenet", tmp_path)


# --- a server that misbehaves --------------------------------------------------------------------------------------


def test_a_cut_is_resumed_within_a_run(source, server, tmp_path):
    server.script = ["cut", "cut"]
    fetch("made", tmp_path)
    assert_whole(tmp_path)
    starts = [int(seen["Range"].removeprefix("bytes=").removesuffix("-")) for seen in server.seen if "Range" in seen]
    assert len(server.seen) == 3 and len(starts) == 2
    assert len(server.body) // 4 < starts[0] < starts[1]


def test_a_cut_is_resumed_by_a_later_run(source, server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    server.script = ["cut"]
    refused(tmp_path, "run the command again to go on from")
    assert names(tmp_path) == ["made.tar.gz.part", "made.tar.gz.part.json"]
    fetch("made", tmp_path)
    assert_whole(tmp_path)
    assert server.seen[1]["If-Range"] == '"one"'
    assert server.seen[1]["Range"].startswith("bytes=")


def test_a_server_that_ignores_ranges_means_a_fresh_start(source, server, tmp_path):
    server.script, server.ranges = ["cut"], False
    fetch("made", tmp_path)
    assert_whole(tmp_path)
    assert "Range" in server.seen[1]


@pytest.mark.parametrize("obeys_if_range", [True, False])
def test_a_file_that_changed_after_the_cut_means_a_fresh_start(source, server, tmp_path, monkeypatch, obeys_if_range):
    """A server that ignores If-Range sends the rest of the new file: it must not be put behind the old half."""
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    server.script = ["cut"]
    refused(tmp_path, "go on from")
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    changed = [(f"made/images/{i}.png", bytes(reversed(PICTURE))) for i in range(IMAGES)]
    server.body, server.tag, server.obeys_if_range = tar_bytes(changed), '"two"', obeys_if_range
    fetch("made", tmp_path)
    assert (tmp_path / "made/images/0.png").read_bytes() == bytes(reversed(PICTURE))
    assert len(server.seen) == (2 if obeys_if_range else 3)


@pytest.mark.parametrize("answer", ["short", "shifted"])
def test_another_range_than_asked_does_no_harm(source, server, tmp_path, answer):
    server.script = ["cut", answer]
    fetch("made", tmp_path)
    assert_whole(tmp_path)
    assert len(server.seen) == 3


def test_many_cuts_are_borne_while_bytes_arrive(source, server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    monkeypatch.setattr(module, "BLOCK", 1024)
    server.script = ["cut"] * 5
    fetch("made", tmp_path)
    assert_whole(tmp_path)
    assert len(server.seen) == 6


def test_the_part_of_another_address_is_not_continued(made, server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    made(url=server.url.replace("/made.tar.gz", "/old/made.tar.gz"))
    server.script = ["cut"]
    refused(tmp_path, "go on from")
    made(url=server.url)
    fetch("made", tmp_path)
    assert_whole(tmp_path)
    assert "Range" not in server.seen[1]


def test_without_a_version_nothing_is_resumed(source, server, tmp_path):
    server.script, server.tag = ["cut"], 'W/"weak"'
    fetch("made", tmp_path)
    assert_whole(tmp_path)
    assert "Range" not in server.seen[1]


def test_a_part_longer_than_the_file_means_a_fresh_start(source, server, tmp_path):
    (tmp_path / "made.tar.gz.part").write_bytes(bytes(len(server.body) + 1))
    (tmp_path / "made.tar.gz.part.json").write_text(json.dumps({"url": server.url, "version": '"one"'}))
    server.script = [416]
    fetch("made", tmp_path)
    assert_whole(tmp_path)


def test_a_server_that_always_cuts_is_given_up(source, server, tmp_path):
    server.script, server.ranges = ["cut"] * 50, False
    refused(tmp_path, f"download failed {module.ATTEMPTS} time(s) in a row")
    assert len(server.seen) == module.ATTEMPTS
    assert not (tmp_path / "made").exists()


def test_a_busy_server_is_asked_again(source, server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(module, "PAUSE_SECONDS", 1)
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    server.script = [503, 503]
    fetch("made", tmp_path)
    assert_whole(tmp_path)
    assert pauses == [1, 2]


def test_a_server_that_stays_busy_is_given_up(source, server, tmp_path):
    server.script = [503] * 50
    refused(tmp_path, "the server is busy: 503")
    assert len(server.seen) == module.ATTEMPTS


@pytest.mark.parametrize(("status", "part"), [(404, "not found, it may have moved (404"), (403, "refused (403")])
def test_a_missing_file_is_told_at_once(source, server, tmp_path, status, part):
    server.script = [status]
    message = refused(tmp_path, part)
    assert server.url in message and source.page in message
    assert len(server.seen) == 1
    assert names(tmp_path) == []


def test_no_server_at_all(made, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        made(url=f"http://127.0.0.1:{unused.getsockname()[1]}/made.tar.gz")
        refused(tmp_path, "download failed 5 time(s) in a row")


def test_other_bytes_than_the_pinned_ones_are_refused(source, server, tmp_path):
    fetch("made", tmp_path)
    pinned = (tmp_path / LOCK).read_text()
    (tmp_path / "made").rename(tmp_path / "away")
    server.body = tar_bytes() + b"\0"
    refused(tmp_path, "sha256 differs")
    assert names(tmp_path) == ["away", LOCK]
    assert (tmp_path / LOCK).read_text() == pinned


def test_the_pinned_bytes_are_taken_again(source, server, tmp_path):
    fetch("made", tmp_path)
    shutil.rmtree(tmp_path / "made")
    fetch("made", tmp_path)
    assert_whole(tmp_path)


def test_what_is_no_archive_is_neither_kept_nor_pinned(source, server, tmp_path):
    server.body = b"<html>Please log in</html>" * 100
    refused(tmp_path, "damaged or no archive")
    assert names(tmp_path) == []


def test_a_download_without_end_is_stopped(made, server, tmp_path):
    made(url=server.url, max_bytes=len(server.body) - 1)
    refused(tmp_path, "larger than")
    assert names(tmp_path) == []


def test_a_cut_that_the_server_does_not_show_is_seen_when_unpacking(source, server, tmp_path):
    """No Content-Length: the end of the connection looks like the end of the file."""
    server.script, server.hidden_length = ["cut"], True
    refused(tmp_path, "damaged")
    assert names(tmp_path) == []


def test_an_archive_labelled_as_encoded_arrives_as_it_is(source, server, tmp_path):
    """Some servers call a .tar.gz a tar with `Content-Encoding: gzip`; requests would then unpack it on the way."""
    server.headers, server.script = {"Content-Encoding": "gzip"}, ["cut"]
    fetch("made", tmp_path)
    assert_whole(tmp_path)
    assert server.seen[0]["Accept-Encoding"] == "identity"


# --- what stands in the folder already -----------------------------------------------------------------------------


def test_a_set_that_lost_a_file_is_not_taken_for_whole(source, tmp_path):
    fetch("made", tmp_path)
    (tmp_path / "made/images/1.png").unlink()
    refused(tmp_path, "is not the whole set")


def test_a_set_with_a_shorter_file_is_not_taken_for_whole(source, tmp_path):
    fetch("made", tmp_path)
    os.truncate(tmp_path / "made/images/1.png", 10)
    refused(tmp_path, "is not the whole set")


def test_a_foreign_folder_is_refused_and_untouched(source, server, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made/mine.txt").write_text("mine")
    refused(tmp_path, "move it away")
    assert (tmp_path / "made/mine.txt").read_text() == "mine"
    assert server.seen == []


@pytest.mark.parametrize("content", ["{", "[]", '{"pins": {}}', '{"pins": [], "sets": {}}'])
def test_a_broken_lock_file_is_refused(source, tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    refused(tmp_path, "not a lock file")


def test_two_fetches_at_once_are_refused(source, tmp_path):
    with FileLock(tmp_path / ".fetch.busy"):
        refused(tmp_path, "another fetch is at work")


def test_a_folder_that_cannot_be_written(source, tmp_path):
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "give a folder that can be written")


# --- archives that mean harm ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "part"),
    [
        (("../evil.txt", b"x"), "outside"),
        (("made/../../evil.txt", b"x"), "outside"),
        (("/tmp/evil.txt", b"x"), "leads out of the folder"),
        (("..\\evil.txt", b"x"), "leads out of the folder"),
        (("C:\\evil.txt", b"x"), "leads out of the folder"),
        (("made/" + "ü" * 128, b"x"), "longer name"),
        (("made/" + "d/" * 1000 + "x", b"x"), "longer name"),
        (tar_member("made/out", tarfile.SYMTYPE, "../../../etc/passwd"), "outside"),
        (tar_member("made/out", tarfile.SYMTYPE, "/etc/passwd"), "absolute"),
        (tar_member("made/out", tarfile.LNKTYPE, "../../etc/passwd"), "outside"),
        (tar_member("made/in", tarfile.SYMTYPE, "images"), "is a link"),
        (tar_member("made/in", tarfile.LNKTYPE, "made/images/0.png"), "is a link"),
        (tar_member("made/null", tarfile.CHRTYPE), "special file"),
        (tar_member("made/disk", tarfile.BLKTYPE), "special file"),
        (tar_member("made/pipe", tarfile.FIFOTYPE), "special file"),
    ],
)
def test_hostile_tar_members_are_refused(source, server, tmp_path, member, part):
    server.body = whole_and(member)
    to = tmp_path / "deep/data"
    assert "refused, member" in refused(to, part)
    assert names(to) == []
    assert [path for path in tmp_path.rglob("*") if "evil" in path.name] == []


def test_two_members_of_one_name_are_refused(from_bytes, tmp_path):
    with pytest.raises(HistotransferError, match="damaged archive"):
        from_bytes(whole_and(("made/images/0.png", b"other")))
    assert names(tmp_path / "data") == []


@pytest.mark.parametrize("prefix", ["__MACOSX/made/images/._", "made/images/._", "made/images/.DS_Store/"])
def test_what_an_operating_system_added_to_an_archive_is_passed_over_and_said(made, tmp_path, prefix):
    made(max_members=4)
    (tmp_path / "made.tar.gz").write_bytes(whole_and(*((f"{prefix}{i}.png", b"x") for i in range(3))))
    said = []
    fetch("made", tmp_path / "data", archive=tmp_path / "made.tar.gz", report=said.append)
    assert sorted(path.name for path in (tmp_path / "data/made/images").iterdir()) == ["0.png", "1.png", "2.png"]
    assert said[-1] == "passed over: system files (3)"


@pytest.mark.parametrize("pack", ["zip", "folder"])
def test_it_is_passed_over_in_any_archive(made, tmp_path, pack):
    made()
    for i in range(IMAGES):
        for name in (f"{i}.PNG", f"._{i}.PNG", "Thumbs.db"):
            (tmp_path / "in/made/images").mkdir(parents=True, exist_ok=True)
            (tmp_path / "in/made/images" / name).write_bytes(bytes([i]))
    archive = tmp_path / "in"
    if pack == "zip":
        archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", archive))
    said = []
    fetch("made", tmp_path / "data", archive=archive, report=said.append)
    assert said[-1] == "passed over: system files (4)"
    fetch("made", tmp_path / "data", report=said.append)
    assert said[-1].endswith("already there, whole")


def test_no_end_of_such_members_is_stopped_too(from_bytes):
    with pytest.raises(HistotransferError, match=r"beyond the 4 members"):
        from_bytes(whole_and(*((f"._{i}", b"") for i in range(6))), max_members=4)


def test_too_many_members(from_bytes, tmp_path):
    with pytest.raises(HistotransferError, match=r"beyond the 4 members"):
        from_bytes(whole_and(("a", b""), ("b", b"")), max_members=4)
    assert names(tmp_path / "data") == []


def test_a_bomb_is_stopped_while_it_goes_off(from_bytes, tmp_path, monkeypatch):
    written = []
    remove = module.shutil.rmtree

    def measure(folder, **options):
        written.append(sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()))
        remove(folder, **options)

    monkeypatch.setattr(module.shutil, "rmtree", measure)
    with pytest.raises(HistotransferError, match=r"beyond the 1000000 bytes"):
        from_bytes(tar_bytes([("made/bomb", bytes(30_000_000))]), max_bytes=1_000_000)
    assert 0 < max(written) <= 1_000_000
    assert names(tmp_path / "data") == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs GNU tar")
def test_a_sparse_bomb_is_stopped_too(from_bytes, tmp_path):
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(2**40)
    packed = tmp_path / "sparse.tar"
    subprocess.run(["tar", "--sparse", "--format=gnu", "-cf", packed, "-C", tmp_path, "big"], check=True)
    assert packed.stat().st_size < 100_000
    with pytest.raises(HistotransferError, match="beyond the 1000000 bytes"):
        from_bytes(packed.read_bytes(), max_bytes=1_000_000)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.9999])
def test_a_truncated_gzip_is_refused(from_bytes, tmp_path, keep):
    whole = tar_bytes()
    with pytest.raises(HistotransferError, match="damaged"):
        from_bytes(whole[: int(len(whole) * keep)])
    assert names(tmp_path / "data") == []


def test_a_flipped_bit_is_refused(from_bytes):
    """The last bytes are gzip's checksum, which tarfile alone does not read."""
    whole = bytearray(tar_bytes())
    whole[-6] ^= 1
    with pytest.raises(HistotransferError, match="damaged"):
        from_bytes(bytes(whole))


def test_a_part_of_the_set_is_refused(from_bytes, tmp_path):
    with pytest.raises(HistotransferError, match=r"holds 2 of the 3 files images/\*\.png"):
        from_bytes(tar_bytes([(f"made/images/{i}.png", b"x") for i in range(IMAGES - 1)]))
    assert names(tmp_path / "data") == []


@pytest.mark.parametrize("top", ["", "./", "other/", "some/other/"])
def test_the_archives_own_top_folder_does_not_matter(from_bytes, top):
    folder = from_bytes(tar_bytes([(f"{top}images/{i}.png", b"x") for i in range(IMAGES)]))
    assert folder.name == "made"
    assert len(list((folder / "images").iterdir())) == IMAGES


def zip_bytes(*extra):
    """A zip of a whole set, and of extra (ZipInfo, content)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("made/", b"")
        for i in range(IMAGES):
            bundle.writestr(f"made/images/{i}.png", PICTURE + bytes([i]))
        for info, content in extra:
            bundle.writestr(info, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def zip_member(name, mode=stat.S_IFREG | 0o644):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def test_a_zip_is_unpacked(from_bytes, tmp_path):
    from_bytes(zip_bytes((zip_member("made/read.me"), b"x")), name="made.zip")
    assert_whole(tmp_path / "data")


@pytest.mark.parametrize(
    ("info", "part"),
    [
        (zip_member("../evil.txt"), "leads out"),
        (zip_member("/tmp/evil.txt"), "leads out"),
        (zip_member("made/out", stat.S_IFLNK | 0o777), "link"),
        (zip_member("made/null", stat.S_IFCHR | 0o666), "special file"),
    ],
)
def test_hostile_zip_members_are_refused(from_bytes, tmp_path, info, part):
    with pytest.raises(HistotransferError, match=part):
        from_bytes(zip_bytes((info, b"/etc/passwd")), name="made.zip")
    assert names(tmp_path / "data") == []


def test_an_encrypted_zip_is_refused(from_bytes):
    content = bytearray(zip_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1  # the flag of the last member in the directory
    with pytest.raises(HistotransferError, match="is encrypted"):
        from_bytes(bytes(content), name="made.zip")


def test_a_zip_bomb_and_a_damaged_zip_are_refused(from_bytes, tmp_path):
    with pytest.raises(HistotransferError, match="beyond the 1000000 bytes"):
        from_bytes(zip_bytes((zip_member("made/bomb"), bytes(30_000_000))), name="made.zip", max_bytes=1_000_000)
    content = bytearray(zip_bytes())
    content[len(content) // 2] ^= 1
    with pytest.raises(HistotransferError, match="damaged"):
        from_bytes(bytes(content), name="made.zip")
    assert names(tmp_path / "data") == []


def test_an_archive_got_by_hand_is_kept_and_needs_no_network(made, tmp_path):
    made(url="http://127.0.0.1:9/made.tar.gz")
    archive = tmp_path / "mine.tar.gz"
    archive.write_bytes(tar_bytes())
    fetch("made", tmp_path / "data", archive=archive)
    assert_whole(tmp_path / "data")
    assert archive.exists()
    assert json.loads((tmp_path / "data" / LOCK).read_text())["pins"] == {}


def test_a_missing_archive_is_told(made, tmp_path):
    made()
    refused(tmp_path / "data", "no such file", archive=tmp_path / "none.zip")


def test_an_unpacked_folder_is_taken_but_not_its_links(made, tmp_path):
    made()
    mine = tmp_path / "mine"
    (mine / "images").mkdir(parents=True)
    for i in range(IMAGES):
        (mine / f"images/{i}.png").write_bytes(PICTURE + bytes([i]))
    fetch("made", tmp_path / "good", archive=mine)
    assert_whole(tmp_path / "good")
    (mine / "link").symlink_to("/etc/passwd")
    refused(tmp_path / "bad", "is a link", archive=mine)
    assert names(tmp_path / "bad") == []


# --- trouble on the way --------------------------------------------------------------------------------------------


def failing_write(monkeypatch, trouble, after, where):
    """The n-th block written to a file whose path holds `where` fails."""
    blocks = []
    opened = Path.open

    def open_(self, mode="r", *args, **options):
        file = opened(self, mode, *args, **options)
        if where not in str(self) or not set(mode) & set("wxa") or "b" not in mode:
            return file
        write = file.write

        def counted(block):
            blocks.append(len(block))
            if len(blocks) > after:
                raise trouble
            return write(block)

        return FileWith(file, counted)

    monkeypatch.setattr(Path, "open", open_)
    return blocks


class FileWith:
    """A file with another `write`."""

    def __init__(self, file, write):
        self.file, self.write = file, write

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def test_a_full_disk_while_unpacking_leaves_only_the_good_archive(source, server, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        blocks = failing_write(patch, full, after=5, where=".made.part")
        refused(tmp_path, "no room left on the disk")
    assert len(blocks) == 6
    assert names(tmp_path) == ["made.tar.gz"]
    fetch("made", tmp_path)
    assert_whole(tmp_path)
    assert len(server.seen) == 1  # the archive was good, and was not downloaded again


def test_a_full_disk_while_downloading_leaves_nothing(source, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    blocks = failing_write(monkeypatch, full, after=3, where="made.tar.gz.part")
    refused(tmp_path, "no room left on the disk")
    assert len(blocks) == 4
    assert names(tmp_path) == []


def test_an_interrupt_while_unpacking_leaves_no_half_set(source, server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        failing_write(patch, KeyboardInterrupt(), after=5, where=".made.part")
        with pytest.raises(KeyboardInterrupt):
            fetch("made", tmp_path)
    assert names(tmp_path) == ["made.tar.gz"]
    fetch("made", tmp_path)
    assert_whole(tmp_path)


KILLED = """
import sys, time
from dataclasses import replace
from pathlib import Path
from histotransfer.datasets import fetch as module
made = replace(module.SOURCES["breakhis"], folder="made", images="images/*.png", count=3, url="")
module.SOURCES["made"] = made
unpack = module._write
def stall(members, *rest):
    def slowly():
        for member in members:
            yield member
            print("unpacked", flush=True)
            time.sleep(60)
    unpack(slowly(), *rest)
module._write = stall
module.fetch("made", sys.argv[1], archive=sys.argv[2])
"""


def test_a_killed_run_is_no_whole_set_and_is_cleared_away(made, tmp_path):
    made()
    archive = tmp_path / "mine.tar.gz"
    archive.write_bytes(tar_bytes())
    to = tmp_path / "data"
    command = [sys.executable, "-c", KILLED, str(to), str(archive)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert any("unpacked" in line for line in process.stdout)
        process.send_signal(signal.SIGKILL)
    assert names(to) == [".made.kaggle", ".made.part"]
    assert list((to / ".made.part").rglob("*.png"))  # it was killed in the middle
    fetch("made", to, archive=archive)
    assert_whole(to)


def test_a_crash_between_the_lock_and_the_folder_is_no_whole_set(source, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch("made", tmp_path)
    assert names(tmp_path) == [LOCK, "made.tar.gz"]
    fetch("made", tmp_path)
    assert_whole(tmp_path)


# --- Kaggle --------------------------------------------------------------------------------------------------------


def test_without_kagglehub_the_extra_is_named(made, tmp_path, monkeypatch):
    made(kaggle="someone/made")
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    message = refused(tmp_path, "pip install histotransfer[kaggle]")
    assert "https://example.org/made" in message and "--archive" in message
    assert names(tmp_path) == []


@pytest.fixture
def kaggle(made, monkeypatch):
    """A stand-in for kagglehub that writes `files` (name to content) into the folder it is given."""
    made(kaggle="someone/made")
    hub = SimpleNamespace(files={f"deep/images/{i}.png": PICTURE + bytes([i]) for i in range(IMAGES)}, trouble=None)

    def dataset_download(handle, *, output_dir):
        assert handle == "someone/made"
        for name, content in hub.files.items():
            path = Path(output_dir, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if hub.trouble:
            raise hub.trouble
        return output_dir

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=dataset_download))
    return hub


def test_a_set_from_kaggle_is_pinned_by_its_files(kaggle, tmp_path):
    fetch("made", tmp_path)
    assert_whole(tmp_path)
    shutil.rmtree(tmp_path / "made")
    fetch("made", tmp_path)
    shutil.rmtree(tmp_path / "made")
    kaggle.files["deep/images/0.png"] = b"other"
    refused(tmp_path, "kaggle:someone/made: not what was downloaded before")
    assert names(tmp_path) == [LOCK]


@pytest.mark.parametrize(
    ("trouble", "part"),
    [
        (RuntimeError("403 Client Error.\n\nYou don't have permission"), "Kaggle did not give it (403 Client Error."),
        (ConnectionError("offline"), "Kaggle did not give it (offline)"),
        (OSError(errno.ENOSPC, "No space left on device"), "no room left"),
    ],
)
def test_trouble_with_kaggle_is_one_line_and_leaves_nothing(kaggle, tmp_path, trouble, part):
    kaggle.trouble = trouble
    refused(tmp_path, part)
    assert names(tmp_path) == []


def test_a_set_from_kaggle_is_bounded_too(kaggle, tmp_path):
    kaggle.files["bomb"] = bytes(3_000_000)
    refused(tmp_path, "beyond the 2000000 bytes")
    assert names(tmp_path) == []

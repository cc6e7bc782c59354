import errno
import os
import shutil

import pytest

from histotransfer.errors import DEBUG, HistotransferError, one_line, one_line_errors


@pytest.fixture
def said(capsys, monkeypatch):
    """What is printed for an error, and the exit status."""
    monkeypatch.delenv(DEBUG, raising=False)

    def of(error):
        with pytest.raises(SystemExit) as stop, one_line_errors():
            raise error
        return capsys.readouterr().err, stop.value.code

    return of


def test_an_error_of_the_user_is_its_line(said):
    assert said(HistotransferError("a.csv: empty; give another")) == ("error: a.csv: empty; give another\n", 2)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "No space left on device; free some space, or give a folder on another disk"),
        (errno.EROFS, "Read-only file system; give a folder that can be written"),
        (errno.ENOENT, "No such file or directory; check the path"),
        (errno.EMFILE, "Too many open files; raise the limit on open files (ulimit -n)"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_an_error_of_the_system_is_a_line_with_path_and_remedy(said, number, remedy):
    assert said(OSError(number, os.strerror(number), "out/x.csv")) == (f"error: out/x.csv: {remedy}\n", 2)


def test_a_bug_asks_for_a_report_and_shows_its_traceback_on_demand(said, monkeypatch):
    printed, status = said(KeyError("colour"))
    assert printed.count("\n") == 1
    assert printed.startswith("bug: KeyError: 'colour' (test_errors.py, line ") and "--debug" in printed
    assert status == 1
    monkeypatch.setenv(DEBUG, "1")
    printed, _ = said(KeyError("colour"))
    assert printed.startswith("Traceback (most recent call last):") and "\nbug: KeyError" in printed


def test_a_line_is_one_line_and_commands_no_terminal():
    assert one_line(HistotransferError("a\nb: \x1b[2J\x00 é")) == "a b: \\x1b[2J\\x00 é"
    assert one_line(OSError(errno.ENOENT, "not there", "a\nb\udcff")) == "a b\\udcff: not there; check the path"
    assert one_line(OSError()) == "OSError"


def test_the_first_trouble_with_a_tree_stands_for_all():
    error = shutil.Error([("a", "b", "[Errno 28] No space left on device: 'a' -> 'b'"), ("c", "d", "the same")])
    assert one_line(error) == "[Errno 28] No space left on device: 'a' -> 'b'"

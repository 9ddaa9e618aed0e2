"""The data folder: what it cannot be is said, and one server holds it."""

from __future__ import annotations

import errno
import sqlite3
import sys
from pathlib import Path

import pytest

from service.cli import run
from service.errors import InvalidInput, Unavailable
from service.files import data_folder
from service.settings import Settings


def test_it_is_made_for_its_owner_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    data_folder.prepare(folder)
    data_folder.prepare(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.iterdir()) == []


def test_a_file_is_none(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "below"):
        with pytest.raises(InvalidInput, match="the data folder is a file") as refused:
            data_folder.prepare(path)
        assert (refused.value.field, refused.value.value) == ("data_dir", str(path))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that not even root may write to")
@pytest.mark.parametrize("path", ["/proc", "/proc/nope"])
def test_one_that_takes_no_files_is_none(path: str) -> None:
    with pytest.raises(InvalidInput, match="the data folder is not writable: "):
        data_folder.prepare(Path(path))


@pytest.mark.parametrize("verb", ["serve", "conduct", "migrate", "doctor"])
def test_an_empty_name_is_a_usage_error(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([verb, "--data-dir", ""]) == 2
    error = capsys.readouterr().err
    assert "--data-dir" in error
    assert "is empty" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["serve", "conduct", "migrate"])
def test_a_file_is_a_usage_error_in_one_line(verb: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert run([verb, "--data-dir", str(file)]) == 2
    said = capsys.readouterr().err
    assert said == f"netlathe: data_dir: the data folder is a file, or lies below one (got {str(file)!r})\n"


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Settings().data_dir
    monkeypatch.setenv("NETLATHE_DATA_DIR", "")
    assert Settings().data_dir == usual


def test_full_is_told_by_the_system_by_numpy_and_by_sqlite() -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    for error in (OSError(errno.ENOSPC, "x"), OSError(errno.EDQUOT, "x"), OSError("72 requested and 8 written"), full):
        assert data_folder.is_full(error)
    for other in (OSError(errno.EACCES, "x"), sqlite3.OperationalError("database is locked"), ValueError("full"), None):
        assert not data_folder.is_full(other)


def test_it_is_held_once_and_free_again_afterwards(tmp_path: Path) -> None:
    with data_folder.held(tmp_path) as note:
        with pytest.raises(Unavailable, match=r"is in use by process \d+ \(starting\)"), data_folder.held(tmp_path):
            pass
        note("http://127.0.0.1:1")
        with pytest.raises(Unavailable, match=r"\(http://127\.0\.0\.1:1\)$"), data_folder.held(tmp_path):
            pass
    with data_folder.held(tmp_path):
        pass

"""Blobs: whole or not there, found by digest only, swept when nothing points at them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from service_world import Uploaded
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError

from service.errors import PayloadTooLarge
from service.files.blobs import KEEP_UNREFERENCED_S, Blobs
from service.settings import Settings
from service.store import Store, Tx
from service.store import blobs as rows


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path)


def test_content_is_found_by_its_digest(blobs: Blobs, tmp_path: Path) -> None:
    stored = blobs.put_chunks([b"ab", b"", b"c"])
    assert stored.sha256 == hashlib.sha256(b"abc").hexdigest()
    assert stored.size_bytes == 3
    assert blobs.path(stored.sha256).read_bytes() == b"abc"
    assert blobs.put_bytes(b"abc") == stored
    (tmp_path / "file").write_bytes(b"abc")
    assert blobs.put_file(tmp_path / "file") == stored
    assert [path for path in blobs.root.rglob("*") if path.is_file()] == [blobs.path(stored.sha256)]


@pytest.mark.parametrize(
    "name", ["", "..", "../secret", "/etc/passwd", "AB" * 32, "ab" * 31, "ab" * 32, "ab" * 32 + "\n"]
)
def test_nothing_else_is_found(blobs: Blobs, name: str) -> None:
    with pytest.raises(KeyError):
        blobs.path(name)


def test_too_much_and_what_breaks_leaves_nothing(blobs: Blobs) -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield b"half"
        raise OSError("the client went away")

    with pytest.raises(PayloadTooLarge, match="limit of 3 bytes"):
        blobs.put_chunks([b"ab", b"cd"], limit_bytes=3)
    with pytest.raises(OSError, match="went away"):
        blobs.put_chunks(broken())
    assert [path for path in blobs.root.rglob("*") if path.is_file()] == []


def test_what_nothing_points_at_goes_after_a_day(store: Store, settings: Settings, uploaded: Uploaded) -> None:
    blobs = Blobs(settings.data_dir)
    old, young, recorded = (blobs.put_bytes(name) for name in (b"old", b"young", b"recorded"))
    with store.begin() as tx:
        blobs.record(tx, recorded)
    decoded = blobs.path(old.sha256).with_name(f"{old.sha256}.decoded")
    decoded.mkdir()
    (decoded / "images.npy").touch()
    used = blobs.path(_digest_of_the_model(store))
    for path in (blobs.path(old.sha256), decoded, blobs.path(recorded.sha256), used):
        stamp = path.stat().st_mtime - KEEP_UNREFERENCED_S - 1
        os.utime(path, (stamp, stamp))
    assert blobs.sweep(store) == 3
    assert used.exists()
    assert blobs.path(young.sha256).exists()
    assert not decoded.exists()
    for gone in (old, recorded):
        with pytest.raises(KeyError):
            blobs.path(gone.sha256)


def _garbage(blobs: Blobs, count: int) -> list[Path]:
    paths = [blobs.path(blobs.put_bytes(bytes([number])).sha256) for number in range(count)]
    for path in paths:
        os.utime(path, (0, 0))
    return paths


def test_contents_in_use_do_not_keep_the_garbage_from_its_turn(
    store: Store, settings: Settings, uploaded: Uploaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = Blobs(settings.data_dir)
    used = list(blobs.root.glob("??/*"))
    for path in used:
        os.utime(path, (0, 0))
    garbage = _garbage(blobs, 4)
    monkeypatch.setattr("service.files.blobs.SWEEP_AT_MOST", 1)
    assert [blobs.sweep(store) for _ in range(5)] == [1, 1, 1, 1, 0]
    assert not any(path.exists() for path in garbage)
    assert all(path.exists() for path in used)


def test_content_that_is_stored_again_during_a_sweep_stays(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = Blobs(settings.data_dir)
    (path,) = _garbage(blobs, 1)
    forget = rows.forget

    def meanwhile(tx: Tx, sha256: str) -> bool:
        blobs.put_bytes(bytes([0]))
        return forget(tx, sha256)

    monkeypatch.setattr(rows, "forget", meanwhile)
    assert blobs.sweep(store) == 0
    assert path.exists()


def _digest_of_the_model(store: Store) -> str:
    from service.store.uploads.models import Model

    with store.read() as tx:
        return tx.session.get_one(Model, "mdl_1").sha256


def test_content_that_is_dropped_goes_at_once_unless_something_points_at_it(
    store: Store, settings: Settings, uploaded: Uploaded
) -> None:
    blobs = Blobs(settings.data_dir)
    unwanted = blobs.put_bytes(b"unwanted").sha256
    blobs.path(unwanted).with_name(f"{unwanted}.decoded").mkdir()
    blobs.keep_beside(unwanted, "json", b"{}")
    before = [path for path in blobs.root.rglob("*") if unwanted not in path.name]
    blobs.drop(store, unwanted)
    assert sorted(blobs.root.rglob("*")) == sorted(before)
    blobs.drop(store, _digest_of_the_model(store))
    assert blobs.path(_digest_of_the_model(store)).is_file()


def test_a_row_that_is_pointed_at_stays(store: Store, uploaded: Uploaded) -> None:
    digest = _digest_of_the_model(store)
    with store.begin() as tx:
        assert not rows.forget(tx, digest)
    with pytest.raises(IntegrityError), store.begin() as tx:
        tx.session.execute(delete(rows.Blob).where(rows.Blob.sha256 == digest))


def test_only_what_lies_there_is_recorded(store: Store, settings: Settings) -> None:
    with pytest.raises(KeyError), store.begin() as tx:
        Blobs(settings.data_dir).record(tx, rows.StoredBlob("a" * 64, 1))

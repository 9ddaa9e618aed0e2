"""Archives and images that are built to hurt: judged by their headers, before anything is unpacked."""

from __future__ import annotations

import stat
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_files import class_folders, png_header, pngs, write_parquet, write_zip

from compress.data.dataset import load_dataset
from compress.data.formats.archive import open_archive
from compress.data.formats.source import Limits
from compress.errors import InvalidInput


def test_a_zip_bomb_is_refused_by_its_directory(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", class_folders("train", 30) | {"train/ant/zeros.png": bytes(200 * 1024**2)})
    assert path.stat().st_size < 1024**2
    with pytest.raises(InvalidInput, match="zip bomb"):
        load_dataset(path)


def test_an_npz_bomb_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x_train=np.zeros((30, 1000, 1000, 3), np.uint8), y_train=np.arange(30) % 3)
    with pytest.raises(InvalidInput, match="zip bomb"):
        load_dataset(path)


def test_a_directory_that_lies_about_a_size_cannot_unpack_more(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"train/ant/1.png": bytes(10_000)})
    data = path.read_bytes()
    path.write_bytes(data.replace((10_000).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    with pytest.raises(InvalidInput, match="cannot be read"), open_archive(path, Limits()) as archive:
        archive.read("train/ant/1.png")


@pytest.mark.parametrize(
    ("limits", "match"),
    [
        (Limits(members=29), "more than 29 members"),
        (Limits(total_bytes=1000), "unpacks to more than 1000 bytes"),
        (Limits(image_bytes=100), "larger than 100 bytes"),
        (Limits(image_pixels=47), "image bomb"),
        (Limits(decoded_bytes=1000), "as pixels"),
    ],
)
def test_limits_are_settings(tmp_path: Path, limits: Limits, match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        load_dataset(write_zip(tmp_path / "a.zip", class_folders("train", 30)), limits=limits)


def test_parquet_is_counted_while_it_unpacks(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", pngs(1) * 3000, label=[0, 1, 2] * 1000)  # one value, 3,000 times
    with pytest.raises(InvalidInput, match="unpack to more than"):
        load_dataset(path, limits=Limits(total_bytes=2 * path.stat().st_size))


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        "train/../../evil.png",
        "/etc/evil.png",
        "C:/evil.png",
        "train\\ant\\evil.png",
        "train/ant/a\0b.png",
    ],
)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("x")
        member.filename = name  # as an attacker's tool would write it: the constructor would clean it
        archive.writestr(member, b"x")
    with pytest.raises(InvalidInput, match="points outside the archive"):
        load_dataset(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("train/ant/link.png")
        member.external_attr = (kind | 0o777) << 16
        archive.writestr(member, b"/etc/passwd")
    with pytest.raises(InvalidInput, match="link or a device"):
        load_dataset(path)


def test_duplicates_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train/ant/1.png", b"one")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # zipfile's own, while the evil file is made
            archive.writestr("train/ant/1.png", b"other")
    with pytest.raises(InvalidInput, match="same name"):
        load_dataset(path)


@pytest.mark.parametrize("name", ["train/ant/more.zip", "train/ant/more.tar.gz", "inner.7Z"])
def test_archives_in_archives_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="itself an archive"):
        load_dataset(write_zip(tmp_path / "a.zip", class_folders("train", 30) | {name: b"PK"}))


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"train/ant/1.png": b"x"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory
    path.write_bytes(bytes(data))
    with pytest.raises(InvalidInput, match="encrypted"):
        load_dataset(path)


@pytest.mark.parametrize("side", [5_001, 12_000, 60_000])
def test_image_bombs_are_refused_by_their_header(tmp_path: Path, side: int) -> None:
    members = class_folders("train", 30) | {"train/bee/bomb.png": png_header(side, side)}
    with pytest.raises(InvalidInput, match=r"bomb\.png has more than 25000000 pixels"):
        load_dataset(write_zip(tmp_path / "a.zip", members))


def test_a_flipped_byte_anywhere_never_gives_anything_but_a_named_error(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "a.zip", class_folders("train", 6)).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "flipped.zip"
    refusals = 0
    for position in rng.choice(len(whole), 200, replace=False):
        flipped = bytearray(whole)
        flipped[position] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(flipped))
        try:
            load_dataset(path)
        except InvalidInput:
            refusals += 1
    assert refusals > 100

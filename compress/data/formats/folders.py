"""Zip files with `train`, `validation` and `test` folders of Parquet files or of one image folder per class."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path, PurePosixPath

import numpy as np

from compress.data.formats.archive import open_archive
from compress.data.formats.litter import without_litter
from compress.data.formats.parquet import ParquetFile, ParquetSource
from compress.data.formats.parts import part_named
from compress.data.formats.source import PARTS, EncodedSource, Item, Labels, Limits
from compress.errors import InvalidInput

# Text files that often lie beside images. Any other file in a class folder must be an image, perhaps a damaged one.
NOTES = (".txt", ".csv", ".tsv", ".json", ".xml", ".md", ".html", ".yaml", ".yml")
Member = tuple[str, str, str]  # part, class name, name within the archive


class FolderSource:
    """Images in part/class folders. Classes are numbered in the order of their names; numeric names are sorted by
    value.
    """

    def __init__(self, path: Path, members: Sequence[Member], warnings: Sequence[str], limits: Limits) -> None:
        self._path, self._members, self._limits = path, sorted(members, key=_position), limits
        self.class_names, order = _ordered({name for part, name, _ in members if part == "train"})
        self.labels: Mapping[str, Labels] = self._labels()
        self.warnings = (*warnings, *order)

    def items(self) -> Iterator[Item]:
        """Yield every image, ordered by part, class and name."""
        with open_archive(self._path, self._limits) as archive:
            for part, _, name in self._members:
                size = archive.getinfo(name).file_size
                if size > self._limits.image_bytes:
                    raise InvalidInput("file", size, f"{name} is larger than {self._limits.image_bytes} bytes")
                yield Item(part, name, archive.read(name))

    def _labels(self) -> Mapping[str, Labels]:
        numbers = {name: number for number, name in enumerate(self.class_names)}
        found: dict[str, list[int]] = {}
        for part, name, member in self._members:
            if name not in numbers:
                raise InvalidInput("file", member, f"class {name!r} of {member} is not in train")
            found.setdefault(part, []).append(numbers[name])
        return {part: Labels(np.array(found[part], np.int64), f"labels of {part}") for part in found}


def open_folders(path: Path, scratch: Path, limits: Limits) -> EncodedSource:
    """Open a zip of class folders or of Parquet files.

    Args:
        path: the zip.
        scratch: an empty folder; Parquet files are unpacked there, since reading them needs random access.
        limits: limits on the archive's size and contents.

    Raises:
        InvalidInput: a member of the zip is refused; the message names the member.
    """
    with open_archive(path, limits) as archive:
        files = [member.filename for member in archive.infolist() if not member.is_dir()]
        names, litter = without_litter(files)
        tables = [name for name in names if name.lower().endswith(".parquet")]
        if tables:
            used = _tables_of_parts(tables)
            unused = _not_used(set(names) - set(used), "files that belong to no part of the data set were not used")
            return ParquetSource(_unpack(archive, used, scratch), limits, (*litter, *unused))
    root = _common_root(names)
    parts = {name: part for name in names if (part := part_named(name.removeprefix(root).split("/")[0]))}
    outside = set(names) - parts.keys()
    notes = {name for name in parts if name.lower().endswith(NOTES)}
    images = {name: part for name, part in parts.items() if name not in notes}
    unlabelled = _unlabelled_test(images, root)
    members = [(part, _class_of(name, root), name) for name, part in images.items() if name not in unlabelled]
    if not any(part == "train" for part, *_ in members):
        folders = sorted({str(PurePosixPath(name).parent) for name in names} - {"."})
        found = f"its folders are {', '.join(folders[:5])}" if folders else "it has no folders"
        raise InvalidInput("file", None, f"the zip has no images in train/<class>/; {found}")
    warnings = (
        *litter,
        *_not_used(outside, "files that lie outside the folders of the parts were not used"),
        *_not_used(notes, "files that lie beside the images and hold text were not used"),
        *_not_used(unlabelled, "files that lie in test but in no class folder were not used"),
    )
    return FolderSource(path, members, warnings, limits)


def _not_used(names: Set[str], what: str) -> tuple[str, ...]:
    return (f"{len(names)} {what}, e.g. {min(names)}",) if names else ()


def _unlabelled_test(parts: Mapping[str, str], root: str) -> Set[str]:
    """Return a test part's files if it has no class folders. They are images to predict, whose labels are withheld."""
    test = {name for name, part in parts.items() if part == "test"}
    return test if all(len(name.removeprefix(root).split("/")) == 2 for name in test) else set()


def _unpack(archive: zipfile.ZipFile, names: Sequence[str], scratch: Path) -> list[ParquetFile]:
    files = []
    for number, name in enumerate(sorted(names)):
        target = scratch / f"{number}.parquet"  # never use a name from the archive
        with archive.open(name) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1024**2)
        files.append(ParquetFile(target, name, _part_of_table(name) or "train"))
    return files


def _tables_of_parts(names: Sequence[str]) -> Sequence[str]:
    """Return the tables whose names contain the name of a part; if there are none, return all tables."""
    return [name for name in names if _part_of_table(name)] or names


def _part_of_table(name: str) -> str | None:
    """Return the part in a name such as `validation-0-of-1.parquet`, `data/test.parquet` or `train/0.parquet`."""
    words = [word for step in name.lower().split("/") for word in re.split(r"[^a-z]+", step)]
    parts = {part for word in words if (part := part_named(word))}
    if len(parts) > 1:
        raise InvalidInput("file", name, f"the name {name} matches more than one data set part")
    return parts.pop() if parts else None


def _class_of(name: str, root: str) -> str:
    steps = name.removeprefix(root).split("/")
    if len(steps) != 3:
        raise InvalidInput("file", name, f"{name} is not in a folder part/class")
    return steps[1]


def _common_root(names: Sequence[str]) -> str:
    """Return `cats/` if everything lies in one folder `cats` that is not itself a part, else ""."""
    roots = {PurePosixPath(name).parts[0] for name in names}
    root = roots.pop() if len(roots) == 1 else ""
    return f"{root}/" if root and part_named(root) is None else ""


def _position(member: Member) -> tuple[int, str, str]:
    part, class_name, name = member
    return PARTS.index(part), class_name, name


def _ordered(names: Set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes, with numbers in numeric order, and a warning if sorting them as text gives another order."""
    as_text = sorted(names)
    if not all(name.isdecimal() for name in names):
        return tuple(as_text), ()
    as_numbers = sorted(as_text, key=int)
    if as_numbers == as_text:
        return tuple(as_text), ()
    shown = ", ".join(as_numbers[:3])
    return tuple(as_numbers), (
        f"class folders are numbers and are sorted as such ({shown}, ..., {as_numbers[-1]}), not as text: "
        f"see class_names; if the network was trained with the folders sorted as text, rename them to numbers that are "
        f"padded with zeros and follow that order",
    )

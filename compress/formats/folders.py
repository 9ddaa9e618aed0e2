"""Zip with `train`, `validation` and `test` folders: a folder of images for each class, or Parquet files."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from compress.errors import InvalidInput
from compress.formats.archive import open_archive
from compress.formats.parquet import ParquetFile, ParquetSource
from compress.formats.source import PARTS, EncodedSource, Item, Labels, Limits

ALIASES = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
Member = tuple[str, str, str]  # part, class name, name within the archive


class FolderSource:
    """Images in part/class folders; classes are numbered in the order of their sorted names."""

    def __init__(self, path: Path, members: Sequence[Member], warnings: Sequence[str], limits: Limits) -> None:
        self._path, self._members, self._limits = path, sorted(members, key=_position), limits
        self.class_names = tuple(sorted({name for part, name, _ in members if part == "train"}))
        self.labels: Mapping[str, Labels] = self._labels()
        self.warnings = (*warnings, *_numeric_order(self.class_names))

    def items(self) -> Iterator[Item]:
        """Every image, by part, class and name."""
        with open_archive(self._path, self._limits) as archive:
            for part, _, name in self._members:
                size = archive.getinfo(name).file_size
                if size > self._limits.image_bytes:
                    raise InvalidInput(
                        f"{name} is larger than {self._limits.image_bytes} bytes", field="file", value=size
                    )
                yield Item(part, name, archive.read(name))

    def _labels(self) -> Mapping[str, Labels]:
        if not self.class_names:
            raise InvalidInput(
                "the zip has no images in train/<class>/", field="file", value=[n for *_, n in self._members][:5]
            )
        numbers = {name: number for number, name in enumerate(self.class_names)}
        found: dict[str, list[int]] = {}
        for part, name, member in self._members:
            if name not in numbers:
                raise InvalidInput(f"class {name!r} of {member} is not in train", field="file", value=member)
            found.setdefault(part, []).append(numbers[name])
        return {part: Labels(np.array(found[part], np.int64), f"labels of {part}") for part in found}


def open_folders(path: Path, scratch: Path, limits: Limits) -> EncodedSource:
    """Open a zip of class folders or of Parquet files.

    Args:
        path: the zip.
        scratch: an empty folder; Parquet files are unpacked there, since they are read from both ends.
        limits: what the archive may cost.

    Raises:
        InvalidInput: naming the member.
    """
    with open_archive(path, limits) as archive:
        names = [member.filename for member in archive.infolist() if not member.is_dir()]
        names = [name for name in names if not _is_litter(name)]
        tables = [name for name in names if name.lower().endswith(".parquet")]
        if tables:
            return ParquetSource(_unpack(archive, tables, scratch), limits)
    root = _common_root(names)
    placed = [(name, _place(name.removeprefix(root))) for name in names]
    members = [(*place, name) for name, place in placed if place is not None]
    unused = [name for name, place in placed if place is None]
    warnings = [f"{len(unused)} files outside the part folders were not used, e.g. {unused[0]}"] if unused else []
    return FolderSource(path, members, warnings, limits)


def _unpack(archive: zipfile.ZipFile, names: Sequence[str], scratch: Path) -> list[ParquetFile]:
    files = []
    for number, name in enumerate(sorted(names)):
        target = scratch / f"{number}.parquet"  # never a name from the archive
        with archive.open(name) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1024**2)
        files.append(ParquetFile(target, name, _part_of_table(name)))
    return files


def _part_of_table(name: str) -> str:
    """`validation-00000-of-00001.parquet`, `data/validation.parquet` and `validation/0.parquet` say their part."""
    words = [word for step in name.lower().split("/") for word in re.split(r"[^a-z]+", step)]
    parts = {ALIASES[word] for word in words if word in ALIASES}
    if len(parts) > 1:
        raise InvalidInput(f"the name of {name} says more than one part", field="file", value=name)
    return parts.pop() if parts else "train"


def _place(name: str) -> tuple[str, str] | None:
    steps = name.split("/")
    if steps[0].lower() not in ALIASES:
        return None
    if len(steps) != 3:
        raise InvalidInput(f"{name} is not in a folder part/class", field="file", value=name)
    return ALIASES[steps[0].lower()], steps[1]


def _common_root(names: Sequence[str]) -> str:
    """`cats/` where everything lies in one folder that is not itself a part."""
    roots = {PurePosixPath(name).parts[0] for name in names}
    root = roots.pop() if len(roots) == 1 else ""
    return f"{root}/" if root and root.lower() not in ALIASES else ""


def _is_litter(name: str) -> bool:
    """What file managers leave behind: nobody's data."""
    steps = name.split("/")
    return steps[0] == "__MACOSX" or steps[-1].startswith(".") or steps[-1] == "Thumbs.db"


def _position(member: Member) -> tuple[int, str, str]:
    part, class_name, name = member
    return PARTS.index(part), class_name, name


def _numeric_order(names: Sequence[str]) -> tuple[str, ...]:
    if not all(name.isdecimal() for name in names) or sorted(names, key=int) == list(names):
        return ()
    shown = ", ".join(names[:3])
    return (f"class folders are sorted as text ({shown}, ...): pad their numbers if that is not meant",)

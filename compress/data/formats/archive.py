"""Untrusted zip files: their directory is checked before anything is unpacked."""

from __future__ import annotations

import lzma
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.data.formats.source import Limits
from compress.errors import InvalidInput

NESTED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
# Errors that the zip reader raises on a damaged or unusual archive. A name that is not UTF-8 raises ValueError, too.
_READ_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError)


@contextmanager
def open_archive(path: Path, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """Open a zip after checking its directory; damage found later while reading raises InvalidInput too.

    Raises:
        InvalidInput: the file is not a zip, has too many members, unpacks to too many bytes or to too large a multiple
            of its size (a zip bomb), or has a member that is encrypted, a link, a device, a duplicate, another archive,
            or outside the archive's own root.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive.infolist(), path.stat().st_size, limits)
            yield archive
    except InvalidInput:
        raise
    except _READ_ERRORS as error:
        raise InvalidInput("file", None, f"the archive cannot be read, it may be cut short: {error}") from error


def check_members(members: list[zipfile.ZipInfo], packed_bytes: int, limits: Limits) -> None:
    """Check an archive by its directory alone; `open_archive` lists the reasons for refusal.

    The reader never unpacks more of a member than the size that the directory declares, so the sum of these sizes is a
    bound.
    """
    if len(members) > limits.members:
        raise _refuse(f"it has more than {limits.members} members", len(members))
    total = sum(member.file_size for member in members)
    if total > limits.total_bytes:
        raise _refuse(f"it unpacks to more than {limits.total_bytes} bytes", total)
    if total > limits.ratio_from_bytes and total > limits.ratio * packed_bytes:
        ratio = round(total / max(packed_bytes, 1))
        raise _refuse(f"it unpacks to more than {limits.ratio:g} times its size (a zip bomb)", ratio)
    seen: set[str] = set()
    for member in members:
        _check_member(member)
        if member.filename in seen:
            raise _refuse("two members have the same name", member.filename)
        seen.add(member.filename)


def _check_member(member: zipfile.ZipInfo) -> None:
    name = member.orig_filename  # `filename` is cut at a NUL byte
    parts = name.split("/")
    if "\0" in name or "\\" in name or ":" in parts[0] or name.startswith("/") or ".." in parts:
        raise _refuse("a member's name points outside the archive", name)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refuse("a member is a link or a device", name)
    if member.flag_bits & 0x1:
        raise _refuse("a member is encrypted", name)
    if name.lower().endswith(NESTED):
        raise _refuse("a member is itself an archive", name)


def _refuse(reason: str, value: object) -> InvalidInput:
    return InvalidInput("file", value, f"the archive is refused: {reason}")

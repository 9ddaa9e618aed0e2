"""Files that operating systems and file managers leave in folders; they are not the user's data."""

from __future__ import annotations

from collections.abc import Sequence

SYSTEM_FILES = frozenset({"desktop.ini", "thumbs.db", "ehthumbs.db", "icon\r"})
SYSTEM_FOLDERS = frozenset({"__macosx", "$recycle.bin", "system volume information", "@eadir"})


def without_litter(names: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the names of the user's own files, and a warning that counts the others."""
    own = [name for name in names if not _is_litter(name)]
    if len(own) == len(names):
        return own, ()
    first = next(name for name in names if _is_litter(name))
    return own, (f"hidden and system files ignored: {len(names) - len(own)}, e.g. {first}",)


def _is_litter(name: str) -> bool:
    steps = name.lower().split("/")
    return steps[-1] in SYSTEM_FILES or any(step.startswith(".") or step in SYSTEM_FOLDERS for step in steps)

"""Names that users give the parts of a data set, in folders, file names, columns and suffixes of arrays."""

from __future__ import annotations

NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def part_named(name: object) -> str | None:
    """Return the part with this name, ignoring case; None if there is none."""
    return NAMES.get(name.lower()) if isinstance(name, str) else None

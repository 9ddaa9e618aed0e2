"""What users call the parts of a data set: folders, file names, values of a column, suffixes of arrays."""

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
    """The part that goes by this name, in any case; None if none does."""
    return NAMES.get(name.lower()) if isinstance(name, str) else None

"""What a network can be for: one task a file, found by its file name; each offers `TASK`."""

from __future__ import annotations

from compress.errors import InvalidInput
from compress.task import Task
from search.discovery import Discovery

DEFAULT = "classification"
"""The task of a job that names none."""
_TASKS = Discovery(__name__, "TASK", Task)  # type: ignore[type-abstract]  # it is asked about instances only


def names() -> tuple[str, ...]:
    """The names of all tasks: the default first, then the others sorted."""
    return (DEFAULT, *(name for name in _TASKS.names() if name != DEFAULT))


def load(name: str) -> Task:
    """The task of that name.

    Raises:
        InvalidInput: there is none.
    """
    if name not in names():
        raise InvalidInput("task", name, f"must be one of {', '.join(names())}")
    return _TASKS.load(name)

"""Tasks of networks, one per file, found by file name; each file offers a constant `TASK`."""

from __future__ import annotations

from compress.errors import InvalidInput
from compress.task import Task
from search.discovery import Discovery

DEFAULT = "classification"
"""The name of the default task, for a job that names no task."""
_TASKS = Discovery(__name__, "TASK", Task)  # type: ignore[type-abstract]  # Discovery only tests for instances


def names() -> tuple[str, ...]:
    """Return the names of all tasks: first the default task, then the others, sorted."""
    return (DEFAULT, *(name for name in _TASKS.names() if name != DEFAULT))


def load(name: str) -> Task:
    """Return the task with this name.

    Raises:
        InvalidInput: there is no such task.
    """
    if name not in names():
        raise InvalidInput("task", name, f"must be one of {', '.join(names())}")
    return _TASKS.load(name)

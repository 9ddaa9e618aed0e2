"""Helpers for all verbs: the client, `--json`, tables, and the exit code of a finished job."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from netlathe import Client, Job

MET, MISSED, USAGE, FAILED = 0, 1, 2, 3


class CommandFailed(Exception):
    """Raised if a command cannot do what it was asked to do. The user sees the error's text, and the exit code is 3."""


AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON, as the server sent it.")]
JobRef = Annotated[str, typer.Argument(metavar="JOB", help="Id or name of the job.")]
ModelRef = Annotated[str, typer.Argument(metavar="MODEL", help="Id or name of an uploaded model.")]
DeviceRef = Annotated[str, typer.Argument(metavar="DEVICE", help="Id or name, such as local-onnxruntime-t1-fp32.")]


def connect() -> Client:
    """Return a client of the server that the environment names."""
    from netlathe import Client

    return Client()


def show(data: Any, as_json: bool, human: Callable[[], None]) -> None:
    """Print `data` as JSON, or call `human` to print it in readable form."""
    if as_json:
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        human()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str = "nothing yet") -> None:
    """Print rows under their column names, or print `empty` if there are no rows. Piped output is not cut to the width
    of the window.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*("-" if cell is None else str(cell) for cell in row))
    if not table.row_count:
        typer.echo(empty)
        return
    Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False).print(table)


def moment(at: datetime | None) -> str | None:
    """Format a time as `2026-11-21 14:05`, in this machine's time zone."""
    return None if at is None else f"{at.astimezone():%Y-%m-%d %H:%M}"


def print_fields(fields: Mapping[str, object]) -> None:
    """Print `name  value` lines, leaving out values that are None."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        if value is not None:
            typer.echo(f"{name:<{width}}  {value}")


def exit_code(job: Job) -> int:
    """Return 0 for a job that met its limits or has not ended, 1 if it missed them, 3 if it failed or was cancelled."""
    if job.state in ("failed", "cancelled"):
        return FAILED
    return MISSED if job.verdict == "missed" else MET

"""A user's torch module as an ONNX file, made by compress/export.py in a child process with the user's code alone."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import typer

from hw_profiles.child_process import ChildProcess, Death
from service.verbs.terminal import CommandFailed


class ExportFailed(CommandFailed):
    """The child could not export the module: one line, with the place in the user's code."""


def export_in_child(
    spec: str, out: Path, *, folder: Path, input_shape: str | None = None, weights: Path | None = None
) -> None:
    """Write `out` from `package.module:factory`, with `folder` first on the child's path.

    Raises:
        ExportFailed: what went wrong, in one line.
    """
    found = find_spec("compress")
    assert found is not None
    assert found.submodule_search_locations is not None
    script = Path(found.submodule_search_locations[0]) / "export.py"
    # -P: the script's own folder must not stand on the path of the user's code.
    command = [sys.executable, "-P", str(script), "--model", spec, "--folder", str(folder), "--out", str(out)]
    command += ["--input-shape", input_shape] if input_shape else []
    command += ["--weights", str(weights)] if weights else []
    with ChildProcess(command) as child:
        child.ask_to_end()  # a module that asks its user something gets no answer
        said = child.read()
        status, errors = child.ended(), child.errors()
    if isinstance(said, Death):
        raise ExportFailed(f"cannot export {spec}: {said.reason}")
    if status == 2:
        raise typer.BadParameter(errors.splitlines()[-1].removeprefix("export.py: error: "))
    if status != 0:
        raise ExportFailed(f"cannot export {spec}: {_reason(errors)}")


def _reason(stderr: str) -> str:
    """The child's last line is its answer; what the user's code printed stands before it."""
    lines = stderr.splitlines()
    try:
        answer = json.loads(lines[-1])
        return f"{answer['detail']}" + (f" ({answer['where']})" if answer["where"] else "")
    except (IndexError, ValueError, KeyError, TypeError):
        return lines[-1][:300] if lines else "the exporting process ended without an error message"

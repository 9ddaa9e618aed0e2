"""A user's torch module as an ONNX file, made by compress/export.py in a child process with the user's code alone."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import typer

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
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 2:
        raise typer.BadParameter(done.stderr.strip().splitlines()[-1].removeprefix("export.py: error: "))
    if done.returncode != 0:
        raise ExportFailed(f"cannot export {spec}: {_reason(done.stderr)}")


def _reason(stderr: str) -> str:
    """The child's last line is its answer; what the user's code printed stands before it."""
    lines = stderr.strip().splitlines()
    try:
        answer = json.loads(lines[-1])
        return f"{answer['detail']}" + (f" ({answer['where']})" if answer["where"] else "")
    except (IndexError, ValueError, KeyError, TypeError):
        return lines[-1][:300] if lines else "the exporting process ended without an error message"

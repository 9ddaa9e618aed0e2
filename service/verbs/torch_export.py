"""Export a user's torch module to ONNX with compress/export.py, in a child process that runs only the user's code."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import typer

from hw_profiles.child_process import ChildProcess, Death
from service.verbs.terminal import CommandFailed

# The option to name for each step that fails only if its option is wrong.
_OPTIONS = {"spec": "--model", "weights": "--weights", "input_shape": "--input-shape"}


class ExportFailed(CommandFailed):
    """Raised if the child could not export the module. The error's text is one line with the place in the user's
    code.
    """


def export_in_child(
    spec: str, out: Path, *, folder: Path, input_shape: str | None = None, weights: Path | None = None
) -> None:
    """Export `package.module:factory` to the file `out`, with `folder` first on the child's path.

    Raises:
        ExportFailed: the export failed; the text says why in one line.
        typer.BadParameter: the spec, the weights or the input shape are wrong; the text names the option.
    """
    found = find_spec("compress")
    assert found is not None
    assert found.submodule_search_locations is not None
    script = Path(found.submodule_search_locations[0]) / "export.py"
    # -P keeps the script's own folder off the path of the user's code.
    command = [sys.executable, "-P", str(script), "--model", spec, "--folder", str(folder), "--out", str(out)]
    command += ["--input-shape", input_shape] if input_shape else []
    command += ["--weights", str(weights)] if weights else []
    with ChildProcess(command) as child:
        child.ask_to_end()  # closes stdin, so a module that asks for input gets none
        said = child.read()
        status, errors = child.ended(), child.errors()
    if isinstance(said, Death):
        raise ExportFailed(f"cannot export {spec}: {said.reason}")
    if status == 2:
        raise typer.BadParameter(errors.splitlines()[-1].removeprefix("export.py: error: "))
    if status != 0:
        step, reason = _reason(errors)
        if step in _OPTIONS:
            raise typer.BadParameter(f"{_OPTIONS[step]}: {reason}")
        raise ExportFailed(f"cannot export {spec}: {reason}")


def _reason(stderr: str) -> tuple[str, str]:
    """Return the failed step and the reason from the child's last line; earlier lines are output of the user's code."""
    lines = stderr.splitlines()
    try:
        answer = json.loads(lines[-1])
        return f"{answer['step']}", f"{answer['detail']}" + (f" ({answer['where']})" if answer["where"] else "")
    except (IndexError, ValueError, KeyError, TypeError):
        return "", lines[-1][:300] if lines else "the exporting process ended without an error message"

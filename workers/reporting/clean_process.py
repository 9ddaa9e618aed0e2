"""clean_process: runs a finished file in a fresh process without our packages, using clean_script.py."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from hw_profiles.child_process import ChildProcess, Death

SCRIPT = Path(__file__).with_name("clean_script.py")


@dataclass(frozen=True)
class CleanRun:
    """The number of images that the file ran on, its digest, and the version that ran it."""

    count: int
    sha256: str
    onnxruntime: str


class CleanProcessFailed(Exception):
    """The process ended without an answer. `status` is its exit status, or None if it took too long."""

    def __init__(self, status: int | None, errors: str) -> None:
        super().__init__(errors)
        self.status = status
        self.errors = errors

    @property
    def last_line(self) -> str:
        """The last line that the process wrote to stderr."""
        return (self.errors.splitlines() or ["the process ended without an error message"])[-1]


def clean_run(
    model: Path, images: Path, outputs: Path, *, scored: str, batch: int, deadline_s: float = math.inf
) -> CleanRun:
    """Run a file in a clean process. A .npy file holds the preprocessed images; the process writes the outputs to
    another .npy file.

    Args:
        scored: the key of the file's metadata that names the output to judge.
        batch: images per batch.

    Raises:
        CleanProcessFailed: the process could not run the file, or took too long.
    """
    arguments = [str(model), str(images), str(batch), scored, str(outputs)]
    # -I: no PYTHON* variables, no user site, and neither the script's folder nor ours on the path.
    with ChildProcess([sys.executable, "-I", str(SCRIPT), *arguments], folder=images.parent) as child:
        child.ask_to_end()
        said = child.read(deadline_s)
        status, errors = child.ended(), child.errors()
    if isinstance(said, Death):
        raise CleanProcessFailed(None, said.reason)
    if status != 0:
        raise CleanProcessFailed(status, errors)
    return CleanRun(**json.loads(said.splitlines()[-1]))

"""clean_process: runs a finished file in a fresh process without our packages; see clean_script.py."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from hw_profiles.child_process import ChildProcess, Death

SCRIPT = Path(__file__).with_name("clean_script.py")
LOGITS = "logits.npy"
"""File beside the images with the outputs of the first batch."""


@dataclass(frozen=True)
class Counted:
    """The number of images, out of `count`, that the file classifies correctly, the file's digest, and the version
    used.
    """

    right: int
    count: int
    sha256: str
    onnxruntime: str


class CleanProcessFailed(Exception):
    """The process ended without an answer. `status`: its exit status; None if it took too long."""

    def __init__(self, status: int | None, errors: str) -> None:
        super().__init__(errors)
        self.status = status
        self.errors = errors

    @property
    def last_line(self) -> str:
        """The last line that the process wrote to stderr."""
        return (self.errors.splitlines() or ["the process ended without an error message"])[-1]


def count_right(
    model: Path, images: Path, labels: Path, *, scored: str, batch: int, deadline_s: float = math.inf
) -> Counted:
    """Count in a clean process; both arrays are .npy files, the images preprocessed.

    Args:
        scored: the key of the file's metadata that names the output to judge.
        batch: images per batch.

    Raises:
        CleanProcessFailed: it could not run the file, or not in time.
    """
    arguments = [str(model), str(images), str(labels), str(batch), scored, str(images.with_name(LOGITS))]
    # -I: no PYTHON* variables, no user site, and neither the script's folder nor ours on the path.
    with ChildProcess([sys.executable, "-I", str(SCRIPT), *arguments], folder=images.parent) as child:
        child.ask_to_end()
        said = child.read(deadline_s)
        status, errors = child.ended(), child.errors()
    if isinstance(said, Death):
        raise CleanProcessFailed(None, said.reason)
    if status != 0:
        raise CleanProcessFailed(status, errors)
    return Counted(**json.loads(said.splitlines()[-1]))

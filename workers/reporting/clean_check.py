"""clean_check: a finished file opened in a fresh process that knows none of our packages, and run on real images."""

from __future__ import annotations

import logging
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.graph.onnxruntime import runtime_noise, session
from compress.graph.outputs import scored_of
from compress.importing.agreement import judge
from compress.network import SCORED
from workers.errors import JobFailed
from workers.evaluating.accuracy import Labels
from workers.evaluating.images import Preprocessed
from workers.reporting.clean_process import LOGITS, CleanProcessFailed, Counted, count_right

log = logging.getLogger(__name__)

COMPARED = 64
"""Images at once; the outputs of the first so many are compared."""
_PATIENCE_S = 600.0


@dataclass(frozen=True)
class Checked:
    """What the clean process found. `difference`: of its outputs to ours, relative to their scale."""

    accuracy: float
    count: int
    difference: float
    onnxruntime: str


def clean_check(model: bytes, images: Preprocessed, labels: Labels, accuracy: float) -> Checked:
    """Open the file elsewhere; its outputs and its accuracy must be those that the verdict was given on.

    Raises:
        JobFailed: they are not, or the process could not run the file.
    """
    with tempfile.TemporaryDirectory(prefix="netlathe-check-") as scratch:
        folder = Path(scratch)
        (folder / "model.onnx").write_bytes(model)
        _save(folder / "images.npy", images)
        np.save(folder / "labels.npy", labels)
        counted = _counted(folder)
        logits = np.load(folder / LOGITS, allow_pickle=False)
    running = session(model)
    output, given = scored_of(running), {running.get_inputs()[0].name: images[: len(logits)]}
    own = np.asarray(running.run([output], given)[0])
    agreement = judge(logits, own, lambda: runtime_noise(model, given)[output])
    found = Checked(counted.right / counted.count, counted.count, agreement.difference, counted.onnxruntime)
    # One image may fall on the other side of a tie between two builds of the same arithmetic.
    if not agreement.holds or abs(found.accuracy - accuracy) > 1.5 / found.count:
        raise JobFailed("recheck_failed", "package", f"a clean process sees {found}, the verdict saw {accuracy:.4f}")
    return found


def _save(path: Path, images: Preprocessed) -> None:
    """As numpy.save would, a batch at a time."""
    first = images[:1]
    file = np.lib.format.open_memmap(path, mode="w+", dtype=first.dtype, shape=(len(images), *first.shape[1:]))
    start = 0
    for batch in images.batches():
        file[start : start + len(batch)] = batch
        start += len(batch)
    file.flush()


def _counted(folder: Path) -> Counted:
    names = (folder / name for name in ("model.onnx", "images.npy", "labels.npy"))
    try:
        return count_right(*names, scored=SCORED, batch=COMPARED, deadline_s=_PATIENCE_S)
    except CleanProcessFailed as error:
        raise _broken(error) from error


def _broken(error: CleanProcessFailed) -> Exception:
    """Why the process ended: its own words, with libraries' messages and paths, are for the server's log."""
    if error.status is None:
        return JobFailed("recheck_failed", "package", f"a clean process took over {_PATIENCE_S:.0f} s")
    # Linux kills what finds no memory.
    if error.status == -signal.SIGKILL or error.last_line.startswith("MemoryError"):
        return MemoryError("the clean process ran out of memory")
    log.error("the clean process ended with %d: %s", error.status, error.errors)
    why = f"exit status {error.status}; its error message is in the server's log"
    return JobFailed("recheck_failed", "package", f"a clean process could not run the file ({why})")

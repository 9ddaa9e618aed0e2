"""clean_check: opens a finished file in a fresh process without our packages, and runs it on real images."""

from __future__ import annotations

import logging
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.graph.onnxruntime import runtime_noise, session
from compress.graph.outputs import scored_of
from compress.importing.agreement import judge
from compress.network import SCORED
from compress.task import Task
from workers.errors import JobFailed
from workers.evaluating.images import BATCH, Preprocessed
from workers.evaluating.scores import Labels
from workers.reporting.clean_process import CleanProcessFailed, CleanRun, clean_run

log = logging.getLogger(__name__)

COMPARED = 64
"""Number of images per batch; the outputs of the first batch are compared."""
_OUTPUTS = "outputs.npy"
_PATIENCE_S = 600.0


@dataclass(frozen=True)
class Checked:
    """The clean process's findings. `difference` is the difference between its outputs and ours, relative to their
    scale.
    """

    score: float
    count: int
    difference: float
    onnxruntime: str


def clean_check(task: Task, model: bytes, images: Preprocessed, labels: Labels, score: float) -> Checked:
    """Open the file in a clean process, and check that its outputs and score equal the outputs and score behind the
    verdict.

    Raises:
        JobFailed: outputs or score differ, or the process could not run the file.
    """
    with tempfile.TemporaryDirectory(prefix="netlathe-check-") as scratch:
        folder = Path(scratch)
        (folder / "model.onnx").write_bytes(model)
        _save(folder / "images.npy", images)
        ran = _ran(folder)
        outputs = np.load(folder / _OUTPUTS, mmap_mode="r", allow_pickle=False)
        first, seen = np.array(outputs[:COMPARED]), _mean_score(task, outputs, labels)
    running = session(model)
    output, given = scored_of(running), {running.get_inputs()[0].name: images[: len(first)]}
    own = np.asarray(running.run([output], given)[0])
    agreement = judge(first, own, lambda: runtime_noise(model, given)[output])
    found = Checked(seen, ran.count, agreement.difference, ran.onnxruntime)
    # Two builds of the same arithmetic may break a tie differently: allow one image.
    if not agreement.holds or abs(found.score - score) > 1.5 / found.count:
        told = f"a score of {found.score:.4f} (outputs differ by {found.difference:.1e} of their scale)"
        raise JobFailed("recheck_failed", "package", f"a clean process found {told}, but the verdict used {score:.4f}")
    return found


def _mean_score(task: Task, outputs: NDArray[np.float32], labels: Labels) -> float:
    """Return the mean score. It is computed one batch at a time, because the outputs of all images may be large."""
    starts = range(0, len(outputs), BATCH)
    scores = [task.score(outputs[start : start + BATCH], labels[start : start + BATCH]) for start in starts]
    return float(np.concatenate(scores).mean())


def _save(path: Path, images: Preprocessed) -> None:
    """Write the same file as numpy.save would, but one batch at a time."""
    first = images[:1]
    file = np.lib.format.open_memmap(path, mode="w+", dtype=first.dtype, shape=(len(images), *first.shape[1:]))
    start = 0
    for batch in images.batches():
        file[start : start + len(batch)] = batch
        start += len(batch)
    file.flush()


def _ran(folder: Path) -> CleanRun:
    names = (folder / name for name in ("model.onnx", "images.npy", _OUTPUTS))
    try:
        return clean_run(*names, scored=SCORED, batch=COMPARED, deadline_s=_PATIENCE_S)
    except CleanProcessFailed as error:
        raise _broken(error) from error


def _broken(error: CleanProcessFailed) -> Exception:
    """Return the error for a process that failed. Its output, with libraries' messages and paths, goes to the server's
    log.
    """
    if error.status is None:
        return JobFailed("recheck_failed", "package", f"a clean process took over {_PATIENCE_S:.0f} s")
    # Linux kills a process if memory runs out.
    if error.status == -signal.SIGKILL or error.last_line.startswith("MemoryError"):
        return MemoryError("the clean process ran out of memory")
    log.error("the clean process ended with exit status %d: %s", error.status, error.errors)
    why = f"exit status {error.status}; its error message is in the server's log"
    return JobFailed("recheck_failed", "package", f"a clean process could not run the file ({why})")

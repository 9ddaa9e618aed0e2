"""clean_check: opens a finished file in a fresh process without our packages, and runs it on real images."""

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
"""Images per batch; the outputs of the first batch are compared."""
_PATIENCE_S = 600.0


@dataclass(frozen=True)
class Checked:
    """The clean process's findings. `difference`: between its outputs and ours, relative to their scale."""

    accuracy: float
    count: int
    difference: float
    onnxruntime: str


def clean_check(model: bytes, images: Preprocessed, labels: Labels, accuracy: float) -> Checked:
    """Open the file in a clean process and check that outputs and accuracy equal those that the verdict is based on.

    Raises:
        JobFailed: they differ, or the process could not run the file.
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
    # Two builds of the same arithmetic may break a tie differently: allow one image.
    if not agreement.holds or abs(found.accuracy - accuracy) > 1.5 / found.count:
        seen = f"accuracy {found.accuracy:.4f} (outputs differ by {found.difference:.1e} of their scale)"
        raise JobFailed("recheck_failed", "package", f"a clean process found {seen}, the verdict used {accuracy:.4f}")
    return found


def _save(path: Path, images: Preprocessed) -> None:
    """Write what numpy.save would, one batch at a time."""
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
    """Return the error for a process that failed. Its output, with libraries' messages and paths, goes to the server's
    log.
    """
    if error.status is None:
        return JobFailed("recheck_failed", "package", f"a clean process took over {_PATIENCE_S:.0f} s")
    # Linux kills a process that finds no memory.
    if error.status == -signal.SIGKILL or error.last_line.startswith("MemoryError"):
        return MemoryError("the clean process ran out of memory")
    log.error("the clean process ended with exit status %d: %s", error.status, error.errors)
    why = f"exit status {error.status}; its error message is in the server's log"
    return JobFailed("recheck_failed", "package", f"a clean process could not run the file ({why})")

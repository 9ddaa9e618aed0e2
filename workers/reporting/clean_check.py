"""clean_check: a finished file opened in a fresh process that knows none of our packages, and run on real images."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.graph.onnxruntime import runtime_noise, session
from compress.graph.outputs import scored_of
from compress.importing.agreement import judge
from compress.network import SCORED
from workers.errors import JobFailed
from workers.evaluating.accuracy import Labels
from workers.evaluating.images import Preprocessed

log = logging.getLogger(__name__)

COMPARED = 64
"""Images at once; the outputs of the first so many are compared."""
_PATIENCE_S = 600.0

# Runs with nothing but the standard library, numpy and onnxruntime; prints one line of JSON.
_SCRIPT = """
import json, sys
import numpy, onnxruntime
folder, batch, scored = sys.argv[1], int(sys.argv[2]), sys.argv[3]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
running = onnxruntime.InferenceSession(folder + "/model.onnx", options, providers=["CPUExecutionProvider"])
images = numpy.load(folder + "/images.npy", mmap_mode="r", allow_pickle=False)
labels = numpy.load(folder + "/labels.npy", allow_pickle=False)
name = running.get_inputs()[0].name
output = running.get_modelmeta().custom_metadata_map.get(scored) or running.get_outputs()[0].name
right, first = 0, []
for start in range(0, len(images), batch):
    logits = running.run([output], {name: numpy.array(images[start:start + batch])})[0]
    first = logits if start == 0 else first
    right += int((logits.reshape(len(logits), -1).argmax(1) == labels[start:start + batch]).sum())
numpy.save(folder + "/logits.npy", first)
ours = sorted({"compress", "search", "workers", "service", "hw_profiles"} & set(sys.modules))
print(json.dumps({"right": right, "count": len(labels), "onnxruntime": onnxruntime.__version__, "ours": ours}))
"""


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
        said = _run(folder)
        logits = np.load(folder / "logits.npy", allow_pickle=False)
    running = session(model)
    output, given = scored_of(running), {running.get_inputs()[0].name: images[: len(logits)]}
    own = np.asarray(running.run([output], given)[0])
    agreement = judge(logits, own, lambda: runtime_noise(model, given)[output])
    found = Checked(said["right"] / said["count"], said["count"], agreement.difference, said["onnxruntime"])
    # One image may fall on the other side of a tie between two builds of the same arithmetic.
    if said["ours"] or not agreement.holds or abs(found.accuracy - accuracy) > 1.5 / found.count:
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


def _run(folder: Path) -> dict[str, Any]:
    # -I: no PYTHON* variables, no user site, and neither the script's folder nor ours on the path.
    command = [sys.executable, "-I", "-c", _SCRIPT, str(folder), str(COMPARED), SCORED]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NETLATHE_")}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise JobFailed("recheck_failed", "package", f"a clean process took over {_PATIENCE_S:.0f} s") from error
    if done.returncode != 0:
        raise _broken(done)
    said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return said


def _broken(done: subprocess.CompletedProcess[str]) -> Exception:
    """Why the process ended: its own words, with libraries' messages and paths, are for the server's log."""
    last = (done.stderr.strip().splitlines() or [""])[-1]
    if done.returncode == -signal.SIGKILL or last.startswith("MemoryError"):  # Linux kills what finds no memory
        return MemoryError("the clean process ran out of memory")
    log.error("the clean process ended with %d: %s", done.returncode, done.stderr.strip())
    why = f"exit status {done.returncode}; its error message is in the server's log"
    return JobFailed("recheck_failed", "package", f"a clean process could not run the file ({why})")

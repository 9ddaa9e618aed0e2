"""demo: run the whole path on this machine: train a network on handwritten digits, then halve its latency."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from compress.importing.normalise import load_network
from compress.network import SCORED
from compress.scoring.intervals import wilson
from compress.tasks.classification import TASK
from netlathe import Client, Job, Summary
from service.processes.own_server import embedded_server
from service.processes.switch import is_on
from service.verbs.report import counted, counts_of, latency
from service.verbs.terminal import FAILED, MET, CommandFailed, exit_code, print_table, show
from workers.reporting.clean_process import CleanProcessFailed, CleanRun, clean_run

if TYPE_CHECKING:
    from compress.data.dataset import Dataset
    from compress.network import Network

Say = Callable[[str], None]

SEED = 0
EPOCHS = 6
DEVICE = "onnxruntime-t1-fp32"
EXECUTOR_WITHIN_S = 300.0
DEVICE_WITHIN_S = 300.0
"""Time limit for the device to come online. Its agent first tests itself, and waits while another program is measuring.
"""
FOLDER = Path("netlathe-demo")
"""Folder, below the working folder, that keeps the network, the data and the result."""
PARTS = ("val", "test")
CHECK_BATCH = 256
JOB: Mapping[str, Any] = {
    "name": "digits-half",
    "limits": {"max_accuracy_drop": 0.02},
    "methods": ["filter_prune"],
    "strategies": ["greedy"],
    "budget": {"evaluations": 24, "wall_s": 120, "finalists": 1},
    "training": {"epochs": 2, "augment": "crop"},
    "seed": SEED,
}
MAX_LATENCY_RATIO = 0.5


@dataclass(frozen=True)
class Prepared:
    """The inputs that a user would bring: a trained network, its data, and its preprocessing."""

    model: Path
    data: Path
    mean: float
    std: float


@dataclass(frozen=True)
class Checked:
    """A clean process's result for one file: the number of images and of correctly classified images in each part."""

    sha256: str
    right: Mapping[str, int]
    count: Mapping[str, int]


def run(*, as_json: bool = False) -> int:
    """Run the demo; return 0 only if the verdict is met and the file has passed the check in a clean process."""
    started = time.monotonic()
    keep = is_on("KEEP")
    folder = FOLDER.resolve()
    folder.mkdir(exist_ok=True)
    say: Say = (lambda _: None) if as_json else typer.echo
    with _ended_in_order():
        say(f"1  training the built-in digits network, {EPOCHS} epochs")
        prepared = _train(folder, say)
        say("2  starting a server on a free port, with a temporary data folder")
        data_dir = Path(tempfile.mkdtemp(prefix="netlathe-demo-"))
        try:
            with embedded_server(data_dir, folder / "server.log", keep=keep) as url:
                token = (data_dir / "user-token").read_text().strip()
                with Client(url, token) as client:
                    code = _compress(client, prepared, folder, say, as_json)
                    say(f"{time.monotonic() - started:.0f} s in all")
                    if keep:
                        token_file = data_dir / "user-token"
                        say(f"KEEP=1: the server keeps running at {url}; sign in with the token in {token_file}")
        finally:
            if not keep:
                shutil.rmtree(data_dir, ignore_errors=True)
    return code


def _train(folder: Path, say: Say) -> Prepared:
    """Train on the training part, and write the network and the data as a user's files."""
    from compress.builtin import export_builtin
    from compress.builtin.digits import digits, digits_npz

    data = digits(SEED)
    pixels = data.train.images / 255.0
    prepared = Prepared(
        folder / "digits.onnx", folder / "digits.npz", round(float(pixels.mean()), 4), round(float(pixels.std()), 4)
    )
    trained = _fit(load_network(export_builtin("digits_cnn", SEED)), data, prepared, say)
    prepared.model.write_bytes(trained.save())
    prepared.data.write_bytes(digits_npz(SEED))
    say(f"   {prepared.model} and {prepared.data.name}; pixels / 255, mean {prepared.mean}, std {prepared.std}")
    return prepared


def _fit(network: Network, data: Dataset, prepared: Prepared, say: Say) -> Network:
    from compress.data.preprocessing import Preprocessing
    from compress.training.fit import fit
    from compress.training.recipe import Recipe

    recipe = Recipe(epochs=EPOCHS, lr=0.05, batch=64, seed=SEED)
    preprocessing = Preprocessing(mean=(prepared.mean,), std=(prepared.std,))
    for step in fit(network, data.train, preprocessing, recipe):
        if step.last_of_epoch:
            say(f"   epoch {step.epoch + 1} of {step.epochs}, loss {step.loss:.3f}")
            network = step.network()
    return network


def _compress(client: Client, prepared: Prepared, folder: Path, say: Say, as_json: bool) -> int:
    """Upload, submit, wait, download, re-check and print."""
    device = _device(client)
    _executor(client, folder / "server.log")
    model = client.models.create(prepared.model, preprocessing={"mean": [prepared.mean], "std": [prepared.std]})
    data = client.datasets.create(prepared.data)
    target = {"device": device, "max_latency_ratio": MAX_LATENCY_RATIO}
    job = client.jobs.create(model=model.id, dataset=data.id, targets=[target], **JOB)
    say(f"3  at most {MAX_LATENCY_RATIO:.0%} of the measured latency on {device},")
    say(f"   at most {100 * JOB['limits']['max_accuracy_drop']:g} points of accuracy against the control")
    say(f"   dashboard: {client.url}/jobs/{job.id}")
    job = client.jobs.wait(job.id, progress=not as_json)
    if job.failure is not None:
        raise CommandFailed(f"the job failed: {job.failure.code}: {job.failure.detail} (log: {folder / 'server.log'})")
    if exit_code(job) != MET or job.best is None or job.original is None:
        show(job.raw, as_json, lambda: _print(job, "nearest", job.nearest, {}))
        return exit_code(job) or FAILED
    result = _fetched(client, job, folder)
    say("4  checking the file in a process with onnxruntime and numpy alone")
    checked = _check(prepared, prepared.model, result)
    _compare(job.best, checked[result])
    show(
        {**job.raw, "file": str(result), "checked": {str(path): vars(found) for path, found in checked.items()}},
        as_json,
        lambda: _print(job, "result", job.best, {"original": checked[prepared.model], "result": checked[result]}),
    )
    say(f"\nverdict {job.verdict}; the file: {result}")
    return exit_code(job)


def _device(client: Client) -> str:
    """Return the name of this machine's device, once its agent has enrolled."""
    deadline = time.monotonic() + DEVICE_WITHIN_S
    while time.monotonic() < deadline:
        for device in client.devices.list():
            if device.name.endswith(DEVICE) and device.state in ("online", "busy"):
                return device.name
        time.sleep(0.5)
    raise CommandFailed(f"no device {DEVICE} came online within {DEVICE_WITHIN_S:.0f} s")


def _executor(client: Client, log: Path) -> None:
    """Wait for the executor. A job would also wait for it, but without any message."""
    deadline = time.monotonic() + EXECUTOR_WITHIN_S
    while client.ready()["executor"] != "ok":
        if time.monotonic() > deadline:
            raise CommandFailed(f"Ray did not come up within {EXECUTOR_WITHIN_S:.0f} s; {log} says why")
        time.sleep(0.5)


def _fetched(client: Client, job: Job, folder: Path) -> Path:
    """Download all artifacts of the job and return the ONNX file."""
    found = client.jobs.artifacts(job.id)
    paths = {artifact.kind: client.artifacts.download(artifact, folder / "result") for artifact in found}
    if "onnx" not in paths:
        raise CommandFailed(f"the job made no ONNX file, only {', '.join(paths) or 'nothing'}")
    return paths["onnx"]


def _check(prepared: Prepared, *files: Path) -> dict[Path, Checked]:
    """Count in a clean process how many images each file classifies correctly."""
    with tempfile.TemporaryDirectory(prefix="netlathe-demo-") as scratch:
        _save_images(prepared, Path(scratch))
        return {file: _checked(file, Path(scratch)) for file in files}


def _save_images(prepared: Prepared, folder: Path) -> None:
    import numpy as np

    data = np.load(prepared.data, allow_pickle=False)
    for part in PARTS:
        images = (data[f"x_{part}"].astype(np.float32) / 255 - prepared.mean) / prepared.std
        np.save(folder / f"x_{part}.npy", images.astype(np.float32).transpose(0, 3, 1, 2))
        np.save(folder / f"y_{part}.npy", data[f"y_{part}"])


def _checked(file: Path, folder: Path) -> Checked:
    ran = {part: _ran(file, folder, part) for part in PARTS}
    right = {part: _right(folder, part) for part in PARTS}
    return Checked(ran[PARTS[0]].sha256, right, {part: each.count for part, each in ran.items()})


def _ran(file: Path, folder: Path, part: str) -> CleanRun:
    outputs = folder / f"outputs_{part}.npy"
    try:
        return clean_run(file.absolute(), folder / f"x_{part}.npy", outputs, scored=SCORED, batch=CHECK_BATCH)
    except CleanProcessFailed as error:
        raise CommandFailed(f"the clean process failed: {error.last_line}") from error


def _right(folder: Path, part: str) -> int:
    """Count the images that the outputs of the clean process classify correctly."""
    import numpy as np

    outputs, labels = (np.load(folder / f"{name}_{part}.npy", allow_pickle=False) for name in ("outputs", "y"))
    return int(TASK.score(outputs, labels).sum())


def _compare(best: Summary, checked: Checked) -> None:
    """Raise an error unless the clean process found the accuracies that the job reported, to within one image."""
    for part, reported in (("val", best.accuracy), ("test", best.test_accuracy)):
        if reported is None:
            raise CommandFailed(f"the job reported no accuracy on its {part} part")
        seen, images = checked.right[part], checked.count[part]
        if abs(seen - reported * images) > 1:
            raise CommandFailed(
                f"a clean process gets {seen} of {images} {part} images right, but the job reported {reported}"
            )


def _print(job: Job, label: str, result: Summary | None, checked: Mapping[str, Checked]) -> None:
    """Compare the original with the result, with intervals for the accuracies found by a clean process."""
    shown = [(name, each) for name, each in (("original", job.original), (label, result)) if each is not None]
    counts = counts_of(each for _, each in shown)
    rows = [[*_row(name, each, checked.get(name)), *counted(each, counts)] for name, each in shown]
    columns = ("", "accuracy (validation)", "accuracy (test)", "latency", *(metric.heading for metric in counts))
    print_table(columns, rows)
    control, lost = job.control, None if result is None else result.accuracy_drop
    if control is not None and control.accuracy is not None:
        typer.echo(f"\ncontrol: the original after the same training has accuracy {control.accuracy:.4f}")
    if lost is not None:
        mean, low, high = (100 * value for value in (lost.mean, lost.low, lost.high))
        span = f"[{low:z.2f}, {high:z.2f}]"
        typer.echo(f"{label}: {mean:z.2f} points below the control, 95 % interval {span} over {lost.n} images")


def _row(name: str, summary: Summary, checked: Checked | None) -> Sequence[str | None]:
    accuracies = (
        [_accuracy(checked, "val"), _accuracy(checked, "test")]
        if checked
        else [None if value is None else f"{value:.4f}" for value in (summary.accuracy, summary.test_accuracy)]
    )
    times = [latency(found) for found in summary.latency_ms.values()]
    return [name, *accuracies, times[0] if times else None]


def _accuracy(checked: Checked, part: str) -> str:
    right, images = checked.right[part], checked.count[part]
    low, high = wilson(right, images)
    return f"{right / images:.4f} [{low:.4f}, {high:.4f}] n={images}"


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that the server is stopped on the way out."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

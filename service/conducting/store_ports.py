"""StorePorts: the workers' Ports, implemented with the store and the blobs, that a conductor passes to a run.

Every write is fenced: a conductor that has lost its job gets LeaseLost and writes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from hw_profiles.device import ONNX
from hw_profiles.ops import Op
from hw_profiles.runtimes import Arrays
from hw_profiles.tables.calibration import Calibration
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.tables.table import LatencyTable
from hw_profiles.timing.conversion import Conversion
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample
from hw_profiles.wiring import wiring
from service.conducting.conversions import Conversions
from service.conducting.device_watch import DeviceWatch
from service.files.blobs import Blobs
from service.jobs.fronts import RunningFront, axes
from service.jobs.warnings import texts_of
from service.store.base import Tx
from service.store.blobs import StoredBlob
from service.store.devices import devices, fusions, latency, measurements, work_items
from service.store.devices.fusions import Told
from service.store.engine import Store
from service.store.jobs import artifacts, asks, checkpoints, evaluations, job_leases, jobs
from service.store.jobs.job_leases import Held
from workers.errors import LeaseLost, MeasurementFailed
from workers.ports import FusedSets, Recorded, Signal
from workers.progress import (
    PHASES,
    Asked,
    Calibrated,
    Checkpointed,
    EpochTrained,
    Evaluated,
    Learned,
    Logged,
    Made,
    Message,
    Phased,
    Summarised,
    SummarisedDevices,
    Warned,
)
from workers.running.context import Halted

T = TypeVar("T")
LOOK_S = 0.25
"""Longest time that an answer of `signal` is reused; also the interval at which a waiting run checks its device."""
TELL_S = 0.2
"""Shortest interval between progress events within a phase; the job's row is always up to date."""


class StorePorts:
    """The ports of one held job.

    `stopping` is set when this conductor is about to end, and `lost` when another conductor has the job. `phase` is the
    last phase that the run reported.
    """

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        held: Held,
        work_dir: Path,
        *,
        offline_s: float,
        stopping: threading.Event,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.work_dir = work_dir
        self.lost = threading.Event()
        self._store = store
        self._blobs = blobs
        self._held = held
        self._offline_s = offline_s
        self._stopping = stopping
        self._clock_s = clock_s
        self._signal: tuple[float, Signal] | None = None
        self._told_s = -TELL_S
        with store.read() as tx:
            job = jobs.get(tx, held.job_id)
            self.phase: str = job.phase or "run"
            self._front = RunningFront(axes(job.request)).plus(evaluations.of_job(tx, job.id))

    # reports of a run

    def emit(self, *messages: Message) -> None:
        """Store all messages in one transaction; return when they are durable.

        Raises:
            LeaseLost: another conductor has the job now.
        """
        files = {id(m): self._blobs.put_file(m.path) for m in messages if isinstance(m, Made)}
        with self._store.begin() as tx:
            job_leases.fence(tx, self._held)
            rows = [self._record(tx, message, files.get(id(message))) for message in messages]
            front = self._front.plus(row for row in rows if row is not None)
            if front.ids != self._front.ids:
                tx.emit(jobs.topic(self._held.job_id), "front.changed", {"front": sorted(front.ids)})
        self._front = front  # after the commit, because the transaction may fail

    def _record(self, tx: Tx, message: Message, file: StoredBlob | None) -> evaluations.EvaluationRow | None:
        """Store one message; return its row if it is a new evaluation."""
        match message:
            case Asked():
                asks.add(tx, self._held, message)
            case Evaluated():
                return evaluations.add(tx, self._held, message)
            case Logged():
                tx.emit(jobs.topic(self._held.job_id), "log.line", {"level": message.level, "text": message.text})
            case Warned():
                self._warn(tx, message)
            case Phased():
                self.phase = message.phase
                self._progress(tx, message)
            case Summarised():
                self._summary(tx, message)
            case SummarisedDevices():
                self._devices(tx, message)
            case Checkpointed():
                path = message.path.resolve().relative_to(self.work_dir.resolve())
                checkpoints.keep(tx, self._held, message.name, PurePosixPath(path))
            case EpochTrained():
                tx.emit(jobs.topic(self._held.job_id), "training.epoch", _of_epoch(message))
            case Calibrated():
                latency.record_calibration(tx, message.device_id, Calibration.from_json(message.calibration))
            case Learned():
                latency.record_classes(tx, message.device_id, KernelClasses.from_json(message.classes))
            case Made():
                assert file is not None
                self._blobs.record(tx, file)
                artifacts.add(tx, self._held, message.kind, message.name, file)
        return None

    def _progress(self, tx: Tx, message: Phased) -> None:
        job = jobs.get(tx, self._held.job_id)
        now_s = self._clock_s()
        values: dict[str, Any] = {"spent_s": max(job.spent_s, message.spent_s)}  # some phases report no time
        if _reached(message.phase, message.done, message.total) < _reached(job.phase, job.done, job.total):
            # A run that continues an earlier run goes through its phases again; the progress shown must not go
            # backwards.
            job_leases.progress(tx, self._held, tell=False, **values, eta_s=None)
            return
        due = job.phase != message.phase or message.done == message.total or now_s - self._told_s >= TELL_S
        self._told_s = now_s if due else self._told_s
        values |= {name: getattr(message, name) for name in ("phase", "done", "total", "eta_s")}
        job_leases.progress(tx, self._held, tell=due, **values)

    def _warn(self, tx: Tx, message: Warned) -> None:
        known = jobs.get(tx, self._held.job_id).warnings
        if message.text not in texts_of(known):
            job_leases.fence(tx, self._held, warnings=[*known, message.text])
            tx.emit(jobs.topic(self._held.job_id), "log.line", {"level": "warning", "text": message.text})

    def _summary(self, tx: Tx, message: Summarised) -> None:
        summary = None if message.summary is None else self._with_evaluation(tx, message.summary)
        job_leases.fence(tx, self._held, **{message.slot: summary})
        tx.emit(jobs.topic(self._held.job_id), "job.progress", {message.slot: summary})

    def _devices(self, tx: Tx, message: SummarisedDevices) -> None:
        rows = [{**row, "network": self._with_evaluation(tx, row["network"])} for row in message.rows]
        job_leases.fence(tx, self._held, devices=rows)
        tx.emit(jobs.topic(self._held.job_id), "job.progress", {"devices": rows})

    def _with_evaluation(self, tx: Tx, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Return a summary with the id of its evaluation in place of its candidate's id, which only runs use."""
        name = summary.get("evaluation_id")
        row = None if name is None else evaluations.of_candidate(tx, self._held.job_id, name)
        return dict(summary) if row is None else {**summary, "evaluation_id": row.id}

    # questions of a run

    def signal(self) -> Signal:
        """Return what the user wants the run to do now. A conductor that is about to shut down requests a pause.

        Raises:
            LeaseLost: another conductor has the job now.
        """
        if self.lost.is_set():
            raise LeaseLost(f"job {self._held.job_id}: epoch {self._held.epoch} is over")
        now_s = self._clock_s()
        if self._signal is None or now_s - self._signal[0] >= LOOK_S:
            with self._store.read() as tx:
                self._signal = (now_s, job_leases.signal(tx, self._held))
        wanted = self._signal[1]
        return "pause" if wanted == "continue" and self._stopping.is_set() else wanted

    def recorded(self) -> Recorded:
        """Return everything stored for this job so far."""
        with self._store.read() as tx:
            job = jobs.get(tx, self._held.job_id)
            kept = checkpoints.of_job(tx, job.id)
            return Recorded(
                asks=tuple(asks.of_job(tx, job.id)),
                takeovers=asks.takeovers(tx, job.id),
                evaluations=tuple(row.evaluated for row in evaluations.of_job(tx, job.id)),
                checkpoints={name: self.work_dir / path for name, path in kept.items()},
                phase=next((phase for phase in PHASES if phase == job.phase), None),
                spent_s=job.spent_s,
            )

    def path(self, sha256: str) -> Path:
        """Return the path of a blob.

        Raises:
            KeyError: there is no such blob.
        """
        return self._blobs.path(sha256)

    def put(self, path: Path) -> str:
        """Copy a file into the blob store and return its sha256."""
        blob = self._blobs.put_file(path)
        with self._store.begin() as tx:
            self._blobs.record(tx, blob)
        return blob.sha256

    # work for devices

    def table(self, device_id: str) -> LatencyTable:
        """Return the newest snapshot of the device's table."""
        with self._store.read() as tx:
            return latency.table(tx, device_id)

    def fill(self, device_id: str, ops: Sequence[Op], priority: Sequence[float]) -> None:
        """Request rows, the highest priority first, and return at once. Idempotent by op key."""
        with self._store.begin() as tx:
            job_leases.fence(tx, self._held)
            work_items.fill(tx, device_id, ops, priority, self._held.job_id)

    def wait(self, device_id: str, timeout_s: float) -> int:
        """Wait at most `timeout_s` for new rows of this device; return how many are still outstanding.

        Raises:
            DeviceOffline: the device has been offline for longer than a job waits.
        """
        end_s = self._clock_s() + timeout_s
        watch = DeviceWatch(self._store, self._held, device_id, self._offline_s)
        with self._store.read() as tx:
            before = work_items.outstanding(tx, device_id)
        while True:
            watch.look()
            with self._store.read() as tx:
                left = work_items.outstanding(tx, device_id)
            wait_s = min(LOOK_S, end_s - self._clock_s())
            if left == 0 or left != before or wait_s <= 0 or self.signal() != "continue":
                return left
            time.sleep(wait_s)

    def fused(self, device_id: str, models: Sequence[bytes], timeout_s: float) -> Sequence[FusedSets | Failure]:
        """Return, for each network, the sets of node names that the device runs as one kernel, or the reason why its
        runtime cannot load the network. Block until the device answers.

        Raises:
            DeviceOffline: the device has been offline for longer than a job waits.
            MeasurementFailed: no answer came within `timeout_s`.
            Halted: the user paused or cancelled the job, or this conductor is about to end.
        """
        wirings = [wiring(model) for model in models]
        known = self._told(device_id, wirings)
        asked = {w: model for w, model in zip(wirings, models, strict=True) if w not in known or known[w].failure}
        if asked:
            self._ask(device_id, asked)
            known |= self._awaited(device_id, lambda: self._all_told(device_id, asked), timeout_s)
        return [Failure(each, known[each].failure) if known[each].failure else known[each].sets for each in wirings]

    def _told(self, device_id: str, wirings: Collection[str]) -> dict[str, Told]:
        with self._store.read() as tx:
            return fusions.told(tx, devices.get(tx, device_id), wirings)

    def _ask(self, device_id: str, models: Mapping[str, bytes]) -> None:
        files = {each: self._blobs.put_bytes(model) for each, model in models.items()}
        with self._store.begin() as tx:
            job_leases.fence(tx, self._held)
            for blob in files.values():
                self._blobs.record(tx, blob)
            fusions.ask(tx, device_id, {each: blob.sha256 for each, blob in files.items()}, self._held.job_id)

    def _all_told(self, device_id: str, wirings: Collection[str]) -> dict[str, Told] | str:
        found = self._told(device_id, wirings)
        return found if len(found) == len(wirings) else "which nodes it fuses"

    def _awaited(self, device_id: str, look: Callable[[], T | str], timeout_s: float) -> T:
        """Wait until `look` returns the device's answers; until then, `look` describes what is missing."""
        watch = DeviceWatch(self._store, self._held, device_id, self._offline_s)
        end_s = self._clock_s() + timeout_s
        while True:
            watch.look()
            found = look()
            if not isinstance(found, str):
                return found
            if self._clock_s() >= end_s:
                late = f"did not report {found} within {timeout_s:.0f} s; agents of older versions never report this"
                raise MeasurementFailed(device_id, late)
            self._halted()
            time.sleep(LOOK_S)

    def converted(
        self, device_id: str, models: Sequence[bytes], samples: Arrays, timeout_s: float
    ) -> Sequence[Conversion | Failure]:
        """Return, for each network, the file that the device's runtime builds from it and the file's outputs for each
        sample, or the reason why the runtime cannot convert or run it. Block until the device has answered.

        Raises:
            DeviceOffline: the device has been offline for longer than a job waits.
            MeasurementFailed: the device does not answer in time.
            Halted: the user paused or cancelled the job, or this conductor is about to end.
        """
        asked = Conversions(self._store, self._blobs, self._held, device_id)
        wanted = asked.ask(models, samples)
        return self._awaited(device_id, lambda: asked.found(wanted), timeout_s)

    def _halted(self) -> None:
        wanted = self.signal()
        if wanted != "continue":
            raise Halted("paused" if wanted == "pause" else "cancelled")

    def measure(
        self, device_id: str, networks: Mapping[str, Path], protocol: BurstProtocol
    ) -> Mapping[str, Sample | Failure]:
        """Time whole networks, interleaved in one lease. Block until the timing is done.

        Networks that the device refuses are left out. If a network crashes or hangs, the others are timed again without
        it, because networks are compared only if they were timed together.

        Raises:
            DeviceOffline: the device has been offline for longer than a job waits.
            MeasurementFailed: the measurement was lost or cancelled.
            Halted: the user paused or cancelled the job, or this conductor is about to end.
        """
        refused: dict[str, Failure] = {}
        while left := {name: path for name, path in networks.items() if name not in refused}:
            found = self._together(device_id, left, protocol)
            refused |= {name: each for name, each in found.items() if isinstance(each, Failure)}
            if any(isinstance(each, Sample) for each in found.values()):
                return {**found, **refused}
        return refused

    def _together(
        self, device_id: str, networks: Mapping[str, Path], protocol: BurstProtocol
    ) -> Mapping[str, Sample | Failure]:
        digests = {name: self.put(path) for name, path in networks.items()}
        with self._store.begin() as tx:
            job_leases.fence(tx, self._held)
            suffixes = {name: path.suffix for name, path in networks.items() if path.suffix != ONNX}
            measurement_id = measurements.measure(tx, device_id, digests, protocol, suffixes=suffixes)
        try:
            return self._measured(device_id, measurement_id)
        except BaseException:
            with self._store.begin() as tx:
                measurements.cancel(tx, measurement_id)
            raise

    def _measured(self, device_id: str, measurement_id: str) -> Mapping[str, Sample | Failure]:
        """Wait for a measurement; return its samples and the failures of networks, or only failures if the others were
        not timed together.
        """
        watch = DeviceWatch(self._store, self._held, device_id, self._offline_s)
        while True:
            with self._store.read() as tx:
                found = measurements.measurement(tx, measurement_id)
                if found.state in ("done", "failed"):
                    failures = found.failures()
                    if found.state == "failed" and not failures:
                        raise MeasurementFailed(device_id, str((found.failure or {}).get("reason")))
                    return {**found.samples(), **failures}
            self._halted()
            watch.look()
            time.sleep(LOOK_S)


def _of_epoch(message: EpochTrained) -> dict[str, Any]:
    data = asdict(message)
    metric, score = data.pop("metric"), data.pop("score")
    return {**data, metric: score}


def _reached(phase: str | None, done: float, total: float) -> tuple[int, float]:
    """Return a key that sorts the stages of a job by progress."""
    return PHASES.index(phase) if phase in PHASES else -1, done / total if total else 0.0

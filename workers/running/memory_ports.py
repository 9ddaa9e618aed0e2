"""MemoryPorts: a run's ports in memory, with one runtime of this process as the device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hw_profiles.device import DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.ops import Op
from hw_profiles.runtimes import Arrays, Runtime
from hw_profiles.tables.calibration import Calibration
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.tables.table import LatencyTable, Row
from hw_profiles.timing.conversion import Conversion, conversion
from hw_profiles.timing.copies_timing import time_ops
from hw_profiles.timing.file_timing import time_files, why
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample, Timing
from workers.ports import FusedSets, Recorded, Signal
from workers.progress import (
    Asked,
    Calibrated,
    Checkpointed,
    Evaluated,
    Learned,
    Logged,
    Made,
    Message,
    Phased,
    Summarised,
    Warned,
)

OPS_AT_ONCE = 64


@dataclass
class MemoryPorts:
    """Implements workers.ports.Ports. Devices are configurations of `runtime`; a row is timed once the run waits for
    it.

    `tables` has the rows known of each device at the start (default: no rows). `messages` has everything that was
    emitted. `signals` returns what the user wants now. `observe` sees every message before it is stored, and may raise
    an exception to end a run at this point.
    """

    work_dir: Path
    runtime: Runtime
    devices: Mapping[str, DeviceConfig]
    protocol: BurstProtocol = field(default_factory=BurstProtocol)
    tables: Mapping[str, LatencyTable] = field(default_factory=dict)
    signals: Callable[[], Signal] = lambda: "continue"
    observe: Callable[[Message], None] = lambda message: None
    messages: list[Message] = field(default_factory=list)
    measured: list[tuple[str, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self._blobs = self.work_dir / "blobs"
        self._blobs.mkdir(exist_ok=True)
        self._tables = {name: self.tables.get(name, LatencyTable(device)) for name, device in self.devices.items()}
        self._queues: dict[str, dict[str, Op]] = {name: {} for name in self.devices}

    def emit(self, *messages: Message) -> None:
        """Store all messages or none, as Ports.emit does."""
        for message in messages:
            self.observe(message)
        for message in messages:
            if isinstance(message, Calibrated):
                self._update(message.device_id, calibration=Calibration.from_json(message.calibration))
            elif isinstance(message, Learned):
                self._update(message.device_id, classes=KernelClasses.from_json(message.classes))
        self.messages += messages

    def signal(self) -> Signal:
        """Return what the user wants, as Ports.signal does."""
        return self.signals()

    def recorded(self) -> Recorded:
        """Return everything recorded, as Ports.recorded does."""
        phased = [m for m in self.messages if isinstance(m, Phased)]
        return Recorded(
            asks=tuple(m for m in self.messages if isinstance(m, Asked)),
            evaluations=tuple(m for m in self.messages if isinstance(m, Evaluated)),
            checkpoints={m.name: m.path for m in self.messages if isinstance(m, Checkpointed)},
            phase=phased[-1].phase if phased else None,
            spent_s=phased[-1].spent_s if phased else 0.0,
        )

    def table(self, device_id: str) -> LatencyTable:
        """Return the device's table, as Ports.table does."""
        return self._tables[device_id]

    def fill(self, device_id: str, ops: Sequence[Op], priority: Sequence[float]) -> None:
        """Queue rows, as Ports.fill does."""
        order = sorted(zip(priority, ops, strict=True), key=lambda pair: -pair[0])
        known = self._tables[device_id].rows
        self._queues[device_id] |= {op.key: op for _, op in order if op.key not in known}

    def wait(self, device_id: str, timeout_s: float) -> int:
        """Time up to OPS_AT_ONCE queued ops, and return how many are left, as Ports.wait does."""
        waiting = self._queues[device_id]
        now = [waiting.pop(key) for key in list(waiting)[:OPS_AT_ONCE]]
        table = self._tables[device_id]
        timed = time_ops(self.runtime, now, table.device, self.protocol)
        epoch = table.epoch + 1
        rows = [Row.of(op, t, epoch=epoch) for op in now if isinstance(t := timed[op.key], Timing)]
        self._update(device_id, rows=rows, epoch=epoch)
        return len(waiting)

    def fused(self, device_id: str, models: Sequence[bytes], timeout_s: float) -> Sequence[FusedSets | Failure]:
        """Return each network's fused sets, as Ports.fused does."""
        return [self._fused(model) for model in models]

    def _fused(self, model: bytes) -> FusedSets | Failure:
        try:
            return self.runtime.fused(model)
        except InvalidInput as error:
            return Failure(hashlib.sha256(model).hexdigest(), str(error))

    def converted(
        self, device_id: str, models: Sequence[bytes], samples: Arrays, timeout_s: float
    ) -> Sequence[Conversion | Failure]:
        """Convert networks, as Ports.converted does."""
        return [self._converted(device_id, model, samples) for model in models]

    def _converted(self, device_id: str, model: bytes, samples: Arrays) -> Conversion | Failure:
        try:
            return conversion(self.runtime, model, samples, self.devices[device_id])
        except Exception as error:  # engines share no error class; an agent reports each in the same way
            return Failure(hashlib.sha256(model).hexdigest(), why(error))

    def measure(
        self, device_id: str, networks: Mapping[str, Path], protocol: BurstProtocol
    ) -> Mapping[str, Sample | Failure]:
        """Time whole networks, as Ports.measure does."""
        self.measured.append(tuple(networks))
        return time_files(self.runtime, networks, self.devices[device_id], protocol)

    def path(self, sha256: str) -> Path:
        """Return a blob's path, as Ports.path does."""
        path = self._blobs / sha256
        if not path.exists():
            raise KeyError(sha256)
        return path

    def put(self, path: Path) -> str:
        """Copy a file into the blob store, as Ports.put does."""
        return self.put_bytes(path.read_bytes())

    def put_bytes(self, content: bytes) -> str:
        """Store a blob from memory; return its sha256."""
        sha256 = hashlib.sha256(content).hexdigest()
        (self._blobs / sha256).write_bytes(content)
        return sha256

    # for tests to inspect

    @property
    def lines(self) -> list[str]:
        """All log lines and warnings for the user."""
        return [m.text for m in self.messages if isinstance(m, Logged | Warned)]

    @property
    def warnings(self) -> list[str]:
        """The job's warnings without repetitions."""
        return list(dict.fromkeys(m.text for m in self.messages if isinstance(m, Warned)))

    @property
    def phases(self) -> list[str]:
        """The phases, without repetitions, in the order in which they began."""
        return list(dict.fromkeys(m.phase for m in self.messages if isinstance(m, Phased)))

    @property
    def files(self) -> dict[str, Path]:
        """Finished artifacts by kind."""
        return {m.kind: m.path for m in self.messages if isinstance(m, Made)}

    @property
    def summaries(self) -> dict[str, Summarised]:
        """The last summary of each slot that is not empty."""
        last = {m.slot: m for m in self.messages if isinstance(m, Summarised)}
        return {slot: m for slot, m in last.items() if m.summary is not None}

    def _update(
        self,
        device_id: str,
        rows: Sequence[Row] = (),
        epoch: int | None = None,
        calibration: Calibration | None = None,
        classes: KernelClasses | None = None,
    ) -> None:
        table = self._tables[device_id]
        self._tables[device_id] = table.updated(rows, epoch=epoch, calibration=calibration, classes=classes)

"""Ports: what a run may ask of the world, and what it finds again when it starts anew.

The conductor implements `Ports` over the store; `workers.testing.MemoryPorts` does it in memory. A run
knows no database, no route and no agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from hw_profiles.ops import Op
from hw_profiles.runtimes import Arrays
from hw_profiles.tables.table import LatencyTable
from hw_profiles.timing.conversion import Conversion
from hw_profiles.timing.protocol import BurstProtocol, Sample
from workers.progress import Asked, Evaluated, Message, Phase

FusedSets: TypeAlias = "tuple[frozenset[str], ...]"
Signal: TypeAlias = Literal["continue", "pause", "cancel"]
Verdict: TypeAlias = Literal["met", "missed"]
End: TypeAlias = Literal["finished", "paused", "cancelled"]


@dataclass(frozen=True)
class Recorded:
    """What earlier runs of this job left: `asks` and `evaluations` in the order they were emitted.

    `takeovers`: candidate id -> how many runs died while it was asked for and not evaluated.
    `checkpoints`: newest file by name. `phase`: the last one that began, None before the first.
    """

    asks: tuple[Asked, ...] = ()
    takeovers: Mapping[str, int] = field(default_factory=dict)
    evaluations: tuple[Evaluated, ...] = ()
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    phase: Phase | None = None
    spent_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """How a run ended. A run that cannot go on raises JobFailed instead.

    `verdict` is None unless `end` is "finished". `summaries` are the last `Summarised` of each slot;
    `reason` is one sentence for the user.
    """

    end: End
    verdict: Verdict | None
    reason: str
    summaries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.end == "finished") != (self.verdict is not None):
            raise ValueError(f"verdict: {self.verdict!r} does not go with end {self.end!r}")


class Ports(Protocol):
    """The run's only way out. Every method may raise LeaseLost once the job belongs to somebody else."""

    work_dir: Path
    """A folder of this job's own, kept between runs, on the volume that evaluators see."""

    def emit(self, *messages: Message) -> None:
        """Store all messages in one transaction; returns when they are durable."""
        ...

    def signal(self) -> Signal:
        """What the user wants now; cheap enough to ask several times a second."""
        ...

    def recorded(self) -> Recorded:
        """Everything stored for this job so far."""
        ...

    def table(self, device_id: str) -> LatencyTable:
        """The device's newest snapshot."""
        ...

    def fill(self, device_id: str, ops: Sequence[Op], priority: Sequence[float]) -> None:
        """Ask for rows, the highest priority first; returns at once, idempotent by op key."""
        ...

    def wait(self, device_id: str, timeout_s: float) -> int:
        """Rows of this device still outstanding, after waiting for news for at most `timeout_s`.

        Raises:
            DeviceOffline: the device has been away for longer than a job waits.
        """
        ...

    def fused(self, device_id: str, models: Sequence[bytes], timeout_s: float) -> Sequence[FusedSets]:
        """For each network the sets of node names that run as one kernel there; blocks until the device has told.

        Raises:
            DeviceOffline: as `wait`.
            MeasurementFailed: its runtime cannot load a network, or has told nothing for `timeout_s`.
        """
        ...

    def converted(
        self, device_id: str, models: Sequence[bytes], samples: Arrays, timeout_s: float
    ) -> Sequence[Conversion]:
        """For each network the file that the device's runtime makes of it, and what that says of each sample; blocks
        until the device has answered.

        Raises:
            DeviceOffline: as `wait`.
            MeasurementFailed: its runtime cannot convert or run a network, or has answered nothing for `timeout_s`.
        """
        ...

    def measure(self, device_id: str, networks: Mapping[str, Path], protocol: BurstProtocol) -> Mapping[str, Sample]:
        """Time whole networks, interleaved in one lease; blocks until done. Files that do not end in `.onnx` are the
        engine's own.

        Raises:
            DeviceOffline: as `wait`.
            MeasurementFailed: a network does not run there.
        """
        ...

    def path(self, sha256: str) -> Path:
        """A blob on the shared data volume.

        Raises:
            KeyError: no such blob.
        """
        ...

    def put(self, path: Path) -> str:
        """Copy a file into the blob store; its sha256."""
        ...

"""Ports: a run's interface to the outside, and the records that it finds when it starts again.

The conductor implements `Ports` on top of the store; `workers.testing.MemoryPorts` implements it in memory. A run never
deals with a database, a route or an agent directly.
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
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample
from workers.progress import Asked, Evaluated, Message, Phase

FusedSets: TypeAlias = "tuple[frozenset[str], ...]"
Signal: TypeAlias = Literal["continue", "pause", "cancel"]
Verdict: TypeAlias = Literal["met", "missed"]
End: TypeAlias = Literal["finished", "paused", "cancelled"]


@dataclass(frozen=True)
class Recorded:
    """The records of earlier runs of this job; `asks` and `evaluations` are in the order in which they were emitted.

    `takeovers` maps the id of a candidate to the number of runs that died after the candidate was asked for and before
    it was evaluated. `checkpoints` has the newest file of each name. `phase` is the last phase that began, or None
    before the first phase.
    """

    asks: tuple[Asked, ...] = ()
    takeovers: Mapping[str, int] = field(default_factory=dict)
    evaluations: tuple[Evaluated, ...] = ()
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    phase: Phase | None = None
    spent_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """The end of a run. A run that cannot go on raises JobFailed instead.

    `verdict` is None unless `end` is "finished". `summaries` has the last `Summarised` of each slot; `reason` is one
    sentence for the user.
    """

    end: End
    verdict: Verdict | None
    reason: str
    summaries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.end == "finished") != (self.verdict is not None):
            raise ValueError(f"verdict: {self.verdict!r} does not go with end {self.end!r}")


class Ports(Protocol):
    """A run's only access to the outside. Every method may raise LeaseLost once another conductor holds the job."""

    work_dir: Path
    """A folder of this job, kept between runs, on the volume that evaluators see."""

    def emit(self, *messages: Message) -> None:
        """Store all messages in one transaction; return when they are durable."""
        ...

    def signal(self) -> Signal:
        """Return what the user wants now. The call is cheap enough to be made several times a second."""
        ...

    def recorded(self) -> Recorded:
        """Return everything stored for this job so far."""
        ...

    def table(self, device_id: str) -> LatencyTable:
        """Return the device's newest snapshot."""
        ...

    def fill(self, device_id: str, ops: Sequence[Op], priority: Sequence[float]) -> None:
        """Request rows, those of the highest priority first, and return at once. A repeated request for an op has no
        effect.
        """
        ...

    def wait(self, device_id: str, timeout_s: float) -> int:
        """Wait at most `timeout_s` for changes; return how many rows of this device are still outstanding.

        Raises:
            DeviceOffline: the device has been away for longer than a job waits.
        """
        ...

    def fused(self, device_id: str, models: Sequence[bytes], timeout_s: float) -> Sequence[FusedSets | Failure]:
        """Return each network's sets of node names that run as one kernel on the device, or the reason why the runtime
        cannot load this network; wait until the device answers.

        Raises:
            DeviceOffline: see `wait`.
            MeasurementFailed: the device did not answer within `timeout_s`.
        """
        ...

    def converted(
        self, device_id: str, models: Sequence[bytes], samples: Arrays, timeout_s: float
    ) -> Sequence[Conversion | Failure]:
        """Return each network's file as the device's runtime converts it, with its outputs on the samples, or the
        reason why the runtime cannot convert or run this network; wait until the device answers.

        Raises:
            DeviceOffline: see `wait`.
            MeasurementFailed: the device did not answer within `timeout_s`.
        """
        ...

    def measure(
        self, device_id: str, networks: Mapping[str, Path], protocol: BurstProtocol
    ) -> Mapping[str, Sample | Failure]:
        """Time whole networks, and wait for the samples. A network that does not run on the device gives a Failure;
        all others are timed interleaved in one lease. Files whose names do not end in `.onnx` are in the engine's own
        format.

        Raises:
            DeviceOffline: see `wait`.
            MeasurementFailed: the measurement was lost or cancelled.
        """
        ...

    def path(self, sha256: str) -> Path:
        """Return a blob's path on the shared data volume.

        Raises:
            KeyError: there is no such blob.
        """
        ...

    def put(self, path: Path) -> str:
        """Copy a file into the blob store; return its sha256."""
        ...

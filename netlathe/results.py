"""Records that the client returns. `raw` holds the whole answer, including fields newer than this client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

from netlathe.reading import read

T = TypeVar("T")
Json = Mapping[str, Any]
Named = str | Mapping[str, Any]  # "greedy", or {"name": "greedy", "settings": {...}}

FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are cut together. If they must not be cut, `reason` says why."""

    name: str
    width: int
    prunable: bool
    reason: str | None = None
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """An uploaded network."""

    id: str
    name: str
    sha256: str = ""
    state: str = "ready"
    parameters: int = 0
    macs: int = 0
    size_bytes: int = 0
    input_shape: tuple[int, ...] = ()
    groups: tuple[ChannelGroup, ...] = ()
    warnings: tuple[Any, ...] = ()
    created_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Dataset:
    """An uploaded data set."""

    id: str
    name: str
    sha256: str = ""
    state: str = "ready"
    train_count: int = 0
    test_count: int = 0
    classes: int = 0
    image_shape: tuple[int, ...] = ()
    warnings: tuple[Any, ...] = ()
    created_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Progress:
    """A job's progress: `fraction` is the finished share of the whole job, 0..1; `done` and `total` count the steps of
    the current phase.
    """

    fraction: float = 0.0
    done: float | None = None
    total: float | None = None


@dataclass(frozen=True)
class Latency:
    """A latency on one device, in milliseconds: the prediction with its interval, the measurement with its upper
    bound.
    """

    predicted: float | None = None
    low: float | None = None
    high: float | None = None
    measured: float | None = None
    measured_high: float | None = None


@dataclass(frozen=True)
class AccuracyDrop:
    """The control's score minus this network's score on the same `n` samples, with its 95 % interval; 0.01 is one
    percentage point.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Summary:
    """One network of a job: the original, the control, the best or the nearest.

    `metrics` holds the network's values by name of metric. The metrics of the contract's first version, and the score
    of a classification, also have their own fields. `raw` is the whole answer.
    """

    evaluation_id: str | None = None
    strategy: str | None = None
    accuracy: float | None = None
    accuracy_drop: AccuracyDrop | None = None
    test_accuracy: float | None = None
    latency_ms: Mapping[str, Latency] = field(default_factory=dict)
    macs: int | None = None
    parameters: int | None = None
    size_bytes: int | None = None
    nonzeros: int | None = None
    stored_bytes: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    def score(self, metric: str) -> float | None:
        """The network's mean score if the job's metric is `metric`; `test_<metric>` gives it on the test part."""
        return cast("float | None", self._told(metric))

    def drop(self, metric: str) -> AccuracyDrop | None:
        """Return the drop of this metric relative to the control."""
        found = self._told(f"{metric}_drop")
        return read(AccuracyDrop, found) if isinstance(found, Mapping) else cast("AccuracyDrop | None", found)

    def _told(self, name: str) -> object:
        return getattr(self, name) if name in {each.name for each in fields(self)} else self.raw.get(name)


@dataclass(frozen=True)
class DeviceResult:
    """The result on one device of a job with several devices: the best network within the limits of this device alone,
    or the nearest to them. `file` is the name of its artifact.
    """

    device: str
    verdict: str
    network: Summary
    file: str = ""


@dataclass(frozen=True)
class Failure:
    """The reason for which a job failed."""

    code: str = ""
    step: str | None = None
    field: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class Job:
    """A job; `raw` holds the server's whole answer, including the original request."""

    id: str
    name: str
    state: str
    task: str = "classification"
    metric: str = "accuracy"
    verdict: str | None = None
    phase: str | None = None
    progress: Progress = field(default_factory=Progress)
    eta_s: float | None = None
    warnings: tuple[Any, ...] = ()
    waiting_for: Json | None = None
    queued_behind: str | None = None
    original: Summary | None = None
    control: Summary | None = None
    best: Summary | None = None
    nearest: Summary | None = None
    devices: tuple[DeviceResult, ...] | None = None
    evaluations_done: int = 0
    failure: Failure | None = None
    retry_of: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False)

    @property
    def finished(self) -> bool:
        return self.state in FINAL_STATES


@dataclass(frozen=True)
class Evaluation:
    """One evaluated candidate of a job."""

    id: str
    number: int
    strategy: str
    status: str
    fidelity: str = ""
    values: Json = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    feasible: bool | None = None
    on_front: bool | None = None
    elapsed_s: float | None = None
    reason: str | None = None
    table_epoch: int | None = None
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Layer:
    """One layer of a judged network before and after the cut, or the whole network; `reason` says why in plain words.

    `latency_ms` maps each device id to the predicted milliseconds before and after. `sensitivity` is the score lost if
    only this layer is cut.
    """

    layer: str
    group: str | None = None
    role: str | None = None
    before: int | float | str | None = None
    after: int | float | str | None = None
    latency_ms: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    share: float | None = None
    sensitivity: float | None = None
    reason: str = ""
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Artifact:
    """A file that a job made."""

    id: str
    kind: str
    name: str
    size_bytes: int
    sha256: str
    created_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Device:
    """One configuration of one machine."""

    id: str
    name: str
    machine: str = ""
    kind: str = ""
    runtime: str = ""
    runtime_version: str = ""
    threads: int = 1
    dtype: str = ""
    emulated: bool = False
    state: str = ""
    state_reason: str | None = None
    coverage: float | None = None
    error_mape: float | None = None
    last_seen_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Prediction:
    """A latency summed from a device's table; `latency_ms` is None if the table knows nothing about the network."""

    latency_ms: float | None
    low_ms: float | None = None
    high_ms: float | None = None
    coverage: float = 0.0
    missing: int = 0
    blocks: tuple[Json, ...] = ()
    warnings: tuple[Any, ...] = ()
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Measurement:
    """A whole network timed on a device."""

    id: str
    state: str
    latency_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    rounds: int | None = None
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Token:
    """A user's token or an enrolment token; `token` is present only in the answer that created it."""

    id: str
    kind: str
    name: str
    expires_at: datetime | None = None
    token: str | None = field(default=None, repr=False)
    used_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Event:
    """One event of the stream; the stream can resume after the event's `number`. `open` and `ping` only show that the
    stream is alive.
    """

    number: int | None
    type: str
    data: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list; `total` counts the whole list."""

    items: tuple[T, ...]
    total: int
    page: int
    page_size: int

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

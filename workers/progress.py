"""Messages from a run to its conductor. Only the conductor numbers and stores them.

A message says what has happened. The exception is `Asked`, which is stored before the work starts, so that a restarted
run knows which work a dead run had handed out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from search.candidate import Candidate
from search.evaluation import Evaluation

Phase: TypeAlias = Literal["profile", "statistics", "search", "train", "verify", "package"]
PHASES: tuple[Phase, ...] = get_args(Phase)
Level: TypeAlias = Literal["info", "warning", "error"]
Slot: TypeAlias = Literal["original", "control", "best", "nearest"]
ArtifactKind: TypeAlias = Literal["onnx", "engine", "report_html", "report_json", "manifest"]


@dataclass(frozen=True)
class Asked:
    """A strategy proposed a candidate, which is about to be submitted."""

    strategy: str
    candidate: Candidate


@dataclass(frozen=True)
class Evaluated:
    """An evaluation is finished. `cached` is True if it was paid for by another candidate with the same key.

    `feasible` is the verdict of the search's problem (predicted latency); `table_epochs` maps each device id to the
    table snapshot that the numbers in `evaluation.metrics` come from.
    """

    strategy: str
    evaluation: Evaluation
    feasible: bool = False
    cached: bool = False
    table_epochs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Logged:
    """A log line that users understand."""

    level: Level
    text: str


@dataclass(frozen=True)
class Warned:
    """A warning that readers of the result must see; it becomes a line of the log and one entry of the job's
    warnings.
    """

    text: str


@dataclass(frozen=True)
class Phased:
    """The job's position: `done` of `total` steps of one phase. `eta_s` is the time left in the phase, or None if
    unknown.

    `spent_s` is the part of `budget.wall_s` used so far (search and training only); the newest value comes back as
    `Recorded.spent_s` after a restart.
    """

    phase: Phase
    done: float
    total: float
    eta_s: float | None = None
    spent_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.done <= self.total:
            raise ValueError(f"done: must be within 0..total ({self.done} of {self.total})")


@dataclass(frozen=True)
class Summarised:
    """A row of the job's result table, in the contract's form; if `summary` is None, the slot is empty again.

    `summary` has evaluation_id, strategy, accuracy, test_accuracy, latency_ms {device id: {predicted, low, high,
    measured, measured_high}}, and each counted metric by its name.
    """

    slot: Slot
    summary: Mapping[str, Any] | None


@dataclass(frozen=True)
class SummarisedDevices:
    """The result on each device of a job with several devices, which is known once the job has been judged.

    Each row has `device` (its id), `verdict`, `network` (a row of the result table: the best within the limits of this
    device, or the nearest to them) and `file`, the name of the artifact.
    """

    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Made:
    """A finished file that users may download."""

    kind: ArtifactKind
    name: str
    path: Path


@dataclass(frozen=True)
class Checkpointed:
    """A file from which a later run of this job continues. Of the files with the same name, only the newest counts."""

    name: str
    path: Path


@dataclass(frozen=True)
class EpochTrained:
    """One epoch of a network's training is over. Epochs count from 1, and `loss` is the mean over the epoch's steps.

    `score` is the network's `metric` on some validation images, or None if an output was not finite.
    """

    network: str
    epoch: int
    epochs: int
    loss: float
    metric: str
    score: float | None
    elapsed_s: float


@dataclass(frozen=True)
class Calibrated:
    """The line a + b * sum of one device for this network, fitted on whole networks timed for this job.

    `calibration` is the JSON form of hw_profiles.tables.calibration.Calibration.
    """

    device_id: str
    epoch: int
    calibration: Mapping[str, Any]


@dataclass(frozen=True)
class Learned:
    """The alignment rules of one device, learned from its probe curves.

    `classes` is the JSON form of hw_profiles.tables.kernel_classes.KernelClasses.
    """

    device_id: str
    classes: Mapping[str, Any]


Message: TypeAlias = (
    Asked
    | Evaluated
    | Logged
    | Warned
    | Phased
    | Summarised
    | SummarisedDevices
    | Made
    | Checkpointed
    | EpochTrained
    | Calibrated
    | Learned
)

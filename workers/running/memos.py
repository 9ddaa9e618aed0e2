"""Everything that a run of a job records for the next run: each memo's name and the type of its content.

Jobs in progress depend on these names and their JSON: after any change, old records must still be readable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compress.scoring.difference import Scores
from hw_profiles.timing.protocol import Failure, Sample
from search.space import Value
from workers.progress import Evaluated
from workers.running.codecs import answer_from, evaluated_from, evaluated_json, scores_from, scores_json
from workers.running.memo import Memo, record
from workers.training.parallel_training import Ended


@dataclass(frozen=True)
class Mirroring:
    """The result of scoring the original on mirrored images. `bears` is True if the original scores as well on them;
    `lost` is the drop in its score.
    """

    bears: bool
    lost: float


@dataclass(frozen=True)
class SecondControl:
    """The decision on a second control. `fits` is True if the wall seconds are enough for it."""

    fits: bool


@dataclass(frozen=True)
class SearchEnd:
    """The reason why the search ended, the wall seconds used and the evaluations recorded by then (None in records of
    older runs), and what the strategies say about it.
    """

    end: str
    spent_s: float
    evaluated: int | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class CommonEpochs:
    """The number of epochs that the control and all finalists train for."""

    epochs: int


@dataclass(frozen=True)
class Milder:
    """The number of times that the learning rate was lowered because the control's training blew up or diverged.

    `decided`: the control's first epoch was trained at the rate that this gives.
    """

    times: int
    decided: bool = False


@dataclass(frozen=True)
class LeftOut:
    """The options, by knob, that the search leaves out because a device refuses them, and the reasons in words."""

    options: Mapping[str, tuple[Value, ...]]
    told: tuple[str, ...]


@dataclass(frozen=True)
class Filled:
    """The number of rows requested from a device, and the resulting table snapshot."""

    asked: int
    epoch: int


@dataclass(frozen=True)
class Predicted:
    """A network's prediction before it is timed, in the target's statistic; the interval holds at `level`."""

    predicted_ms: float
    low_ms: float
    high_ms: float
    level: float


@dataclass(frozen=True)
class TrainingSeconds:
    """Seconds that the training of one network has taken so far, over all runs of the job."""

    elapsed_s: float


@dataclass(frozen=True)
class TrainedFacts:
    """Facts about a trained network besides its file. `scores` has one score for each validation image, and
    `epoch_scores` the mean score after each epoch, NaN if it is not known.
    """

    scores: Scores
    counts: Mapping[str, float]
    predicted: Mapping[str, float]
    elapsed_s: float
    epochs: int
    epoch_scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class FinalScore:
    """Scores of the original and of the chosen file `name` on the test part."""

    name: str
    original: float
    chosen: float


def _trained_json(facts: TrainedFacts) -> dict[str, Any]:
    data = asdict(facts)
    data["epoch_scores"] = [None if math.isnan(score) else score for score in facts.epoch_scores]
    return {"right": scores_json(data.pop("scores")), **data}


def _trained_from(data: Mapping[str, Any]) -> TrainedFacts:
    known = tuple(math.nan if score is None else score for score in data.get("epoch_scores", ()))
    own = data["counts"], data["predicted"], data["elapsed_s"], data["epochs"]
    return TrainedFacts(scores_from(data["right"]), *own, known)


def _candidates(name: str) -> Memo[Sequence[Evaluated]]:
    return Memo(
        name,
        lambda chosen: {"candidates": [evaluated_json(each) for each in chosen]},
        lambda data: [evaluated_from(each) for each in data["candidates"]],
    )


# profile
ORIGINAL_SCORES = Memo[Scores](
    "original-right", lambda scores: {"right": scores_json(scores)}, lambda data: scores_from(data["right"])
)

LEFT_OUT = Memo[LeftOut](
    "left-out",
    lambda known: {"options": {name: list(values) for name, values in known.options.items()}, "told": list(known.told)},
    lambda data: LeftOut({name: tuple(values) for name, values in data["options"].items()}, tuple(data["told"])),
)


def filled(device_id: str) -> Memo[Filled]:
    """The memo of the rows requested from a device."""
    return record(f"filled-{device_id}", Filled)


def timed(name: str, device_id: str) -> Memo[Mapping[str, Sample | Failure]]:
    """The memo of one timing session of a device: the samples of whole networks and the failures of those that the
    device refused, by name.
    """
    return Memo(
        f"{name}-{device_id}",
        lambda answers: {key: asdict(answer) for key, answer in answers.items()},
        lambda data: {key: answer_from(each) for key, each in data.items()},
    )


# statistics
def looks(network: str) -> Memo[Mapping[str, float]]:
    """The memo of the scores of quick evaluations of the network with this digest, by candidate id."""
    return Memo(f"looks-{network[:12]}", dict, dict)


# search
SEARCH_ENDED = record("search-ended", SearchEnd)
SEARCH_ENDED_AGAIN = record("search-ended-again", SearchEnd)
OUT_OF_REACH = _candidates("out-of-reach")

# train
MIRRORING = record("mirroring", Mirroring)
COMMON_EPOCHS = record("common-epochs", CommonEpochs)
SECOND_CONTROL = record("second-control", SecondControl)
FINALISTS = _candidates("finalists")


def milder(form: str) -> Memo[Milder]:
    """The memo of the number of times that the learning rate of one form of the network was lowered."""
    return record(f"{form}milder", Milder)


def training_seconds(training: str) -> Memo[TrainingSeconds]:
    """The memo of the duration of a training run; `training` is the name of the run's checkpoint."""
    return record(f"{training}-seconds", TrainingSeconds)


def training_ended(training: str) -> Memo[Ended]:
    """The memo of how a training run by an executor ended."""
    return record(f"{training}-ended", Ended)


def trained(name: str) -> Memo[TrainedFacts]:
    """The memo of a fully trained network, whose file is the checkpoint `trained_file`."""
    return Memo(f"trained-{name}", _trained_json, _trained_from)


def trained_file(name: str) -> str:
    """Return the name of the checkpoint with a trained network's ONNX file."""
    return f"trained-{name}-onnx"


# verify
def neighbour(attempt: int) -> Memo[Sequence[Evaluated]]:
    """The memo of a finalist's smaller neighbour, if such a neighbour is to be trained."""
    return _candidates(f"neighbour-{attempt}")


def predicted(attempt: int, device_id: str) -> Memo[Mapping[str, Predicted]]:
    """The memo of each finalist's prediction before it was timed."""
    return Memo(
        f"predicted-{attempt}-{device_id}",
        lambda known: {name: asdict(each) for name, each in known.items()},
        lambda data: {name: Predicted(**each) for name, each in data.items()},
    )


# package
TEST_SCORE = record("test-accuracy", FinalScore)

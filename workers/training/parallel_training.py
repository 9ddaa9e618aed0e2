"""Course: networks that are trained in parallel, stored as files that every worker sees, with how the training of each
ended.

The state of a network's training is its checkpoint, which is a file of the job. The next worker that trains this
network, on any machine, resumes from the checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

from compress.errors import TrainingDiverged
from compress.importing.normalise import load_network
from compress.scheme import Scheme
from compress.training.best_epoch import BestEpoch
from compress.training.direct import fine_tune
from compress.training.recipe import Recipe
from search.metric import Metric
from search.space import Values
from workers.errors import Diverged
from workers.evaluating.epoch_score import epoch_score
from workers.plan import JobPlan
from workers.pools.process_child import Guard
from workers.running import durable
from workers.running.inputs import Inputs


@dataclass(frozen=True)
class Lesson:
    """Everything that one worker needs to train one network. A lesson is picklable, and everything large in it is a
    file.

    The file `checkpoint` may be missing; it is written atomically after each epoch. `values` are the candidate's
    values; they are empty for the control.
    """

    plan: JobPlan
    model: Path
    dataset: Path
    recipe: Recipe
    network: Path
    checkpoint: Path
    values: Values
    guard: Guard
    images: int
    """Number of validation images on which the network is rated after each epoch, and compared with other networks."""


@dataclass(frozen=True)
class Epoch:
    """One epoch, which was finished after `elapsed_s` seconds of work. `score` is measured on some validation images,
    and `loss` is the mean over the epoch's steps.
    """

    epoch: int
    epochs: int
    score: float
    elapsed_s: float
    loss: float


@dataclass(frozen=True)
class Ended:
    """The end of a network's training: completed, stopped for falling behind or for lack of time, or diverged.

    `out_of_time` is True if the training was stopped because the wall seconds were used up.
    """

    state: Literal["trained", "stopped", "diverged"]
    reason: str = ""
    out_of_time: bool = False


CONTROL = "control"
"""Name of the unpruned network's lesson."""


@dataclass(frozen=True)
class Course:
    """The lessons of one train phase by name, in the order in which they begin.

    The lessons in `spared` are never stopped. After `left_s` wall seconds, only the spared lessons continue; the
    leading lesson also continues until another network has been trained. If `by_score` is True, the lesson with the
    best score leads, and lessons that fall behind are stopped; otherwise the first lesson in the order leads.
    `one_trained` is True if an earlier run trained a network of this phase other than the control. `note` is called
    after each epoch, once the checkpoint is written, with the epoch's share of the wall seconds. `interrupted` returns
    True if the course must end early. `metric` is the name of the score.
    """

    lessons: Mapping[str, Lesson]
    spared: frozenset[str]
    folder: Path
    processes: int
    left_s: float
    by_score: bool
    one_trained: bool
    note: Callable[[str, Epoch, float], None]
    interrupted: Callable[[], bool]
    metric: Metric


def learn(lesson: Lesson, report: Callable[[Epoch], None]) -> Ended:
    """Train a network in this process; start from its checkpoint if there is one."""
    with lesson.guard():
        inputs = Inputs.of(lesson.plan, lesson.model, lesson.dataset)
        network = load_network(lesson.network)
        ranking = inputs.ranking(lesson.plan.effort.accuracy_images)
        images, labels = (each[: lesson.images] for each in ranking)
    saved = lesson.checkpoint.read_bytes() if lesson.checkpoint.exists() else None
    bound = Scheme.of((each.name, each.settings) for each in lesson.plan.methods).bind(lesson.values)
    part, preprocessing = inputs.dataset.train, inputs.preprocessing
    steps = fine_tune(network, part, preprocessing, lesson.recipe, bound, inputs.network, saved, inputs.task)
    best, elapsed_s, score, losses = BestEpoch.of(saved), 0.0, math.nan, list[float]()
    try:
        while True:
            with lesson.guard():
                begun_s = time.perf_counter()
                step = next(steps, None)
                losses += [] if step is None else [step.loss]
                if step is not None and step.last_of_epoch:
                    network = step.network()
                    score = epoch_score(inputs.task, network, images, labels)
                    best = best.after(step.epoch, score, network)
                    durable.write(lesson.checkpoint, step.checkpoint(best.arrays))
                elapsed_s += time.perf_counter() - begun_s
            if step is None:
                return Ended("trained")
            if not step.last_of_epoch:
                continue
            if math.isnan(score):
                return Ended("diverged", "the network's outputs are not finite")
            report(Epoch(step.epoch + 1, step.epochs, score, elapsed_s, fmean(losses)))
            elapsed_s, losses = 0.0, []
    except (TrainingDiverged, Diverged) as error:
        return Ended("diverged", str(error))

"""trained: the networks of a course as one Ray Tune run under ASHA (Li et al., arXiv 1810.05934).

Tune places and restarts the trainings, and ASHA ends those that fall behind. Neither keeps anything: a training
that lost its worker goes on from the file that its last epoch left.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import workers.on_ray.environment  # isort: skip  # noqa: F401  # Ray reads it while it is imported
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from workers.errors import PoolBroken
from workers.training.parallel_training import CONTROL, Course, Ended, Epoch, learn

LOST_WORKERS = 2
"""Workers that one training may lose."""
FIRST_RUNG = 1 / 3
"""Share of the epochs before the first comparison: fine-tuned networks of one size need some to settle."""
REDUCTION = 2
LOOK_S = 0.5
_NAME = "network"


def trained(course: Course, workers: int, cpus: int) -> Mapping[str, Ended]:
    """Train every network of a course on at most `workers` workers of `cpus` CPUs.

    Returns:
        By name. Where the course was interrupted, only those that had ended.

    Raises:
        PoolBroken: a training lost more workers than LOST_WORKERS, or Ray is gone.
    """
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the other one prints whatever `verbose` says
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # the last report is about the end, not about a score
    watch = Watch(course, min(workers, len(course.lessons)))
    lessons = dict(course.lessons)

    def train(config: dict[str, Any]) -> None:
        os.environ["OMP_NUM_THREADS"] = str(cpus)
        ended = learn(lessons[config[_NAME]], lambda epoch: tune.report(asdict(epoch)))
        tune.report({"ended": ended.state, "reason": ended.reason})

    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": cpus}),
        param_space={_NAME: tune.grid_search(list(lessons))},
        tune_config=tune.TuneConfig(scheduler=_scheduler(course, watch), max_concurrent_trials=workers),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(course.folder),
            stop=watch,
            failure_config=tune.FailureConfig(max_failures=LOST_WORKERS),
            verbose=0,
        ),
    )
    try:
        found = tuner.fit()
    except (
        Exception,
        SystemExit,
    ) as error:  # Ray exits where it is lost; what our own code raises is kept by the watch
        raise PoolBroken(f"Ray Tune: {_last_line(error)}") from error
    finally:
        shutil.rmtree(course.folder / "tune", ignore_errors=True)
    if watch.failed is not None:
        raise watch.failed
    if found.errors and not watch.interrupted:
        raise PoolBroken(f"a training ended {LOST_WORKERS + 1} times: {_last_line(found.errors[0])}")
    return watch.ended()


def _scheduler(course: Course, watch: Watch) -> TrialScheduler:
    epochs = max(lesson.recipe.epochs for lesson in course.lessons.values())
    return SparingAsha(watch, course.spared, epochs) if course.by_score else FIFOScheduler()


class SparingAsha(ASHAScheduler):  # type: ignore[misc]  # Ray's classes have no types
    """ASHA over epochs and scores among all but the spared, which neither stop nor count. The watch has the last
    word: both may stop a training, and one is to be left.
    """

    def __init__(self, watch: Watch, spared: frozenset[str], epochs: int) -> None:
        grace = min(epochs, max(2, math.ceil(epochs * FIRST_RUNG)))
        super().__init__(
            time_attr="epoch",
            metric="score",
            mode="max",
            grace_period=grace,
            max_t=max(grace, epochs),
            reduction_factor=REDUCTION,
            stop_last_trials=False,
        )
        self._watch = watch
        self._spared = spared

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """As TrialScheduler's; the last epoch is no time to stop."""
        name, going_on = trial.config[_NAME], str(TrialScheduler.CONTINUE)
        if name in self._spared or result.get("epoch") == result.get("epochs"):
            return going_on
        wanted = str(super().on_trial_result(tune_controller, trial, result))
        return going_on if wanted == TrialScheduler.STOP and not self._watch.let_go(name) else wanted

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """As TrialScheduler's."""
        if trial.config[_NAME] not in self._spared:
            super().on_trial_complete(tune_controller, trial, result)


class Watch(tune.Stopper):  # type: ignore[misc]  # Ray's classes have no types
    """Hears of every epoch, and ends what is to end: all for the user, some for lack of time."""

    def __init__(self, course: Course, at_once: int) -> None:
        self._course = course
        self._at_once = at_once
        self._ended: dict[str, Ended] = {}
        self._last: dict[str, Epoch] = {}
        self._spent_s = 0.0
        self._looked_s = -math.inf
        self.interrupted = False
        self.failed: Exception | None = None
        """What our own code raised: it is raised again where Tune has ended its trials."""

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Tune writes its parts down, to restore them some day; we never do, and what we hold cannot travel."""
        return object, ()

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """A result of a trial: whether it is to end now."""
        name = result["config"][_NAME]
        if "ended" in result:
            self._ended[name] = Ended(result["ended"], result["reason"])
            return True
        self._hear(name, result)
        if name in self._course.spared or self._spent_s < self._course.left_s or result["epoch"] == result["epochs"]:
            return False
        if name == self._needed():
            return False
        self._ended[name] = Ended(
            "stopped", f"the wall seconds were used up after epoch {result['epoch']}", out_of_time=True
        )
        return True

    def _hear(self, name: str, result: Mapping[str, Any]) -> None:
        epoch = Epoch(result["epoch"], result["epochs"], result["score"], result["elapsed_s"])
        self._last[name] = epoch
        wall_s = epoch.elapsed_s / self._at_once
        self._spent_s += wall_s
        try:
            self._course.note(name, epoch, wall_s)
        except Exception as error:
            self.failed = self.failed or error

    def let_go(self, name: str) -> bool:
        """Whether this one, which fell behind, ends: not where it is the last that there may be to judge."""
        if not self._one_trained() and not self._course.lessons.keys() - self._ended.keys() - {name, CONTROL}:
            return False
        last = self._last[name]
        metric = self._course.metric
        reason = f"{metric.heading} {metric.told(last.score)} after epoch {last.epoch}: behind the others"
        self._ended[name] = Ended("stopped", reason)
        return True

    def _one_trained(self) -> bool:
        """Whether there is one to judge; the control is not."""
        trained = (name for name, each in self._ended.items() if each.state == "trained")
        return self._course.one_trained or any(name != CONTROL for name in trained)

    def _needed(self) -> str | None:
        """The best of those that may be stopped: it goes on, whatever time there is, until one is trained to judge."""
        if self._one_trained():
            return None
        spared = self._course.spared
        going = {n: e.score for n, e in self._last.items() if n not in self._ended and n not in spared}
        if not self._course.by_score:
            return next(name for name in self._course.lessons if name in going)
        return max(going, key=lambda name: going[name])

    def stop_all(self) -> bool:
        """Whether everything is to end; asked all the time."""
        if time.monotonic() - self._looked_s >= LOOK_S and self.failed is None:
            self._looked_s = time.monotonic()
            try:
                self.interrupted = self.interrupted or self._course.interrupted()
            except Exception as error:
                self.failed = error
        return self.interrupted or self.failed is not None

    def ended(self) -> Mapping[str, Ended]:
        """How those ended that did."""
        return self._ended


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"

"""trained: trains the networks of a course as one Ray Tune run under ASHA (Li et al., arXiv 1810.05934).

Tune places and restarts the training runs, and ASHA ends the runs that fall behind. Neither stores anything: a run that
lost its worker resumes from the file that its last epoch left.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import workers.on_ray.environment  # isort: skip  # noqa: F401  # Ray reads it while it is imported
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from workers.errors import PoolBroken
from workers.training.parallel_training import CONTROL, Course, Ended, Epoch, learn

LOST_WORKERS = 2
"""Number of workers that one training run may lose."""
FIRST_RUNG = 1 / 3
"""Share of the epochs before the first comparison, because fine-tuned networks of one size need a few epochs to
settle.
"""
REDUCTION = 2
LOOK_S = 0.5
_NAME = "network"


def trained(course: Course, workers: int, cpus: int) -> Mapping[str, Ended]:
    """Train every network of a course on at most `workers` workers of `cpus` CPUs.

    Returns:
        How each training run ended, by name; if the course was interrupted, only the runs that had ended.

    Raises:
        PoolBroken: a training run lost more workers than LOST_WORKERS, or Ray is gone.
    """
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output ignores `verbose`
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # the last report of a run has no score
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
    except (Exception, SystemExit) as error:  # a lost Ray raises SystemExit; the watch has recorded our own errors
        raise PoolBroken(f"Ray Tune: {_last_line(error)}") from error
    finally:
        shutil.rmtree(course.folder / "tune", ignore_errors=True)
    if watch.failed is not None:
        raise watch.failed
    if found.errors and not watch.interrupted:
        raise PoolBroken(f"the worker of a training run ended {LOST_WORKERS + 1} times: {_last_line(found.errors[0])}")
    return watch.ended()


def _scheduler(course: Course, watch: Watch) -> TrialScheduler:
    epochs = max(lesson.recipe.epochs for lesson in course.lessons.values())
    return SparingAsha(watch, course.spared, epochs) if course.by_score else FIFOScheduler()


class SparingAsha(ASHAScheduler):  # type: ignore[misc]  # Ray's classes have no types
    """ASHA over the epochs and scores of all training runs except the spared ones, which are neither stopped nor
    counted. ASHA and the watch may both stop a run, but one run must be left, so the watch has the final say.
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
        """Decide whether a training run continues after a result, as TrialScheduler does; at its last epoch, a run is
        not stopped.
        """
        name, going_on = trial.config[_NAME], str(TrialScheduler.CONTINUE)
        if name in self._spared or result.get("epoch") == result.get("epochs"):
            return going_on
        wanted = str(super().on_trial_result(tune_controller, trial, result))
        return going_on if wanted == TrialScheduler.STOP and not self._watch.let_go(name) else wanted

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Note a finished training run, as TrialScheduler does, unless it is spared."""
        if trial.config[_NAME] not in self._spared:
            super().on_trial_complete(tune_controller, trial, result)


class Watch(tune.Stopper):  # type: ignore[misc]  # Ray's classes have no types
    """Receives every epoch and decides which training runs end: all runs if the user asks for it, some runs if the time
    is used up.
    """

    def __init__(self, course: Course, at_once: int) -> None:
        self._course = course
        self._at_once = at_once
        self._ended: dict[str, Ended] = {}
        self._last: dict[str, Epoch] = {}
        self._spent_s = 0.0
        self._looked_s = -math.inf
        self.interrupted = False
        self.failed: Exception | None = None
        """The first exception of our own code, which is raised again once Tune has ended its trials."""

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Pickle as a plain object: our fields cannot be pickled, and we never restore what Tune saves."""
        return object, ()

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Note a trial's result; return True if the trial must end now."""
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
        epoch = Epoch(**{each.name: result[each.name] for each in fields(Epoch)})
        self._last[name] = epoch
        wall_s = epoch.elapsed_s / self._at_once
        self._spent_s += wall_s
        try:
            self._course.note(name, epoch, wall_s)
        except Exception as error:
            self.failed = self.failed or error

    def let_go(self, name: str) -> bool:
        """End a training run that fell behind, unless it is the last run that could be judged; return True if it
        ends.
        """
        if not self._one_trained() and not self._course.lessons.keys() - self._ended.keys() - {name, CONTROL}:
            return False
        last = self._last[name]
        metric = self._course.metric
        reason = f"{metric.heading} {metric.told(last.score)} after epoch {last.epoch}, behind the other networks"
        self._ended[name] = Ended("stopped", reason)
        return True

    def _one_trained(self) -> bool:
        """Return True if there is a trained network to judge; the control does not count."""
        trained = (name for name, each in self._ended.items() if each.state == "trained")
        return self._course.one_trained or any(name != CONTROL for name in trained)

    def _needed(self) -> str | None:
        """Return the best training run that may be stopped. It continues, even after the time is used up, until there
        is a trained network to judge.
        """
        if self._one_trained():
            return None
        spared = self._course.spared
        going = {n: e.score for n, e in self._last.items() if n not in self._ended and n not in spared}
        if not self._course.by_score:
            return next(name for name in self._course.lessons if name in going)
        return max(going, key=lambda name: going[name])

    def stop_all(self) -> bool:
        """Return True if everything must end; Tune calls this again and again."""
        if time.monotonic() - self._looked_s >= LOOK_S and self.failed is None:
            self._looked_s = time.monotonic()
            try:
                self.interrupted = self.interrupted or self._course.interrupted()
            except Exception as error:
                self.failed = error
        return self.interrupted or self.failed is not None

    def ended(self) -> Mapping[str, Ended]:
        """Return how each finished training run ended."""
        return self._ended


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"

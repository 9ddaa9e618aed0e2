"""Batches: models that are timed, taken apart or converted together in a child process. Only the model that causes a
crash or hang is lost.

If a batch's child dies, the batch is halved until the culprit is alone; all other models keep their timings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hw_profiles.child_environment import child_environment
from hw_profiles.child_process import ChildProcess, Death, python_module
from hw_profiles.device import DeviceConfig
from hw_profiles.host_lock import HostLock
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample

LEAST_DEADLINE_S = 20.0
DEADLINE_FACTOR = 10.0
CONVERSION_S = 900.0
"""Least deadline of a conversion. A choice: engines try many kernels for each layer, which takes minutes on a small
board, and a job waits an hour for it.
"""
START_S = 120.0
"""Seconds that the interpreter and the engine need to load, on a slow card with cold caches."""
LOAD_S = 0.1
"""Expected seconds per model for building a session and examining its fusion."""
UNKNOWN_RUN_S = 0.25
"""Expected seconds for one run of an unknown model."""


@dataclass(frozen=True)
class Work:
    """One item, with its files by name, which are timed in one session. `expected_us` is a guess at the run time of the
    largest file.
    """

    key: str
    files: Mapping[str, Path]
    expected_us: float | None = None


Outcome: TypeAlias = Mapping[str, Sample] | Failure
"""Samples by file name, or a failure of kind `error`, `crash` or `timeout`."""

Fused: TypeAlias = tuple[frozenset[str], ...]
"""The sets of node names that run as one kernel."""


@dataclass(frozen=True)
class Checked:
    """The files that an engine made from a network: the network in the engine's own format, and its outputs
    (`hw_profiles.wire.arrays`).
    """

    file: Path
    outputs: Path


Task: TypeAlias = Literal["time", "fuse", "check"]
Answer: TypeAlias = Sample | Failure | Fused | Checked
MODEL, SAMPLES = "model", "samples"
"""Names of the two files of an item that is to be checked."""


@dataclass
class Batch:
    """Times work on one device. `progress(done, all)` counts models; `cancelled` is called often."""

    device: DeviceConfig
    protocol: BurstProtocol
    lock: HostLock
    progress: Callable[[int, int], None] = lambda _done, _total: None
    cancelled: Callable[[], bool] = lambda: False
    least_deadline_s: float = LEAST_DEADLINE_S
    conversion_s: float = CONVERSION_S
    _finished: int = field(default=0, init=False)
    _total: int = field(default=0, init=False)

    def time(self, work: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
        """Yield each key and its outcome once it is known; no lock is held while the caller handles an outcome.

        Raises:
            Cancelled: `cancelled` returned True.
        """
        for item, answers in self._answered("time", work):
            yield item.key, _outcome(item, answers)

    def fuse(self, work: Sequence[Work]) -> Iterator[tuple[str, Fused | Failure]]:
        """Yield, like `time`, each key with the sets of nodes that run as one kernel in the item's only file.

        Raises:
            Cancelled: `cancelled` returned True.
        """
        for item, answers in self._answered("fuse", work):
            yield item.key, _fused(item, answers)

    def check(self, work: Sequence[Work]) -> Iterator[tuple[str, Checked | Failure]]:
        """Yield, like `time`, each key with the engine's file of the item's MODEL and the outputs of this file on
        SAMPLES.

        Raises:
            Cancelled: `cancelled` returned True.
        """
        for item, answers in self._answered("check", work):
            yield item.key, _checked(item, answers)

    def _answered(self, task: Task, work: Sequence[Work]) -> Iterator[tuple[Work, Mapping[str, Answer] | Death]]:
        self._total = sum(len(item.files) for item in work)
        parts = [list(work)] if work else []
        while parts:
            part = parts.pop(0)
            answers = self._in_child(task, part)
            if isinstance(answers, Death) and len(part) > 1:
                half = len(part) // 2
                parts[:0] = [part[:half], part[half:]]
                continue
            self._finished += sum(len(item.files) for item in part)
            for item in part:
                yield item, answers

    def _in_child(self, task: Task, part: Sequence[Work]) -> Mapping[str, Answer] | Death:
        with _child() as child:
            child.tell(json.dumps({"task": task, **self._wanted(part)}))
            ready = child.listen(START_S, self.cancelled)
            if isinstance(ready, Death):
                return ready
            with self._room(task):
                child.tell("go")
                return self._collect(child, part, self.conversion_s if task == "check" else self.least_deadline_s)

    def _room(self, task: Task) -> AbstractContextManager[None]:
        """Return the lock that the task needs: only timing needs the machine to itself."""
        return self.lock.exclusive() if task == "time" else self.lock.shared()

    def _wanted(self, part: Sequence[Work]) -> dict[str, Any]:
        models = {f"{item.key}/{name}": str(path) for item in part for name, path in item.files.items()}
        return {"device": self.device.to_json(), "protocol": asdict(self.protocol), "models": models}

    def _collect(self, child: ChildProcess, part: Sequence[Work], least_s: float) -> Mapping[str, Answer] | Death:
        found: dict[str, Answer] = {}
        patience_s = max(least_s, DEADLINE_FACTOR * self._expected_s(part))
        while True:
            began_s = time.monotonic()
            message = child.listen(patience_s, self.cancelled)
            if isinstance(message, Death):
                return message
            if "progress" in message:
                gap_s = time.monotonic() - began_s  # from now on, the rounds so far show how long to wait
                patience_s = max(least_s, DEADLINE_FACTOR * gap_s)
                self.progress(self._finished + message["progress"][0], self._total)
            elif "sample" in message:
                sample = message["sample"]
                bursts = tuple(sample["minima_us"]), tuple(sample["medians_us"])
                found[sample["key"]] = Sample(sample["key"], *bursts, sample["extra"])
            elif "fused" in message:
                found[message["fused"]["key"]] = tuple(map(frozenset, message["fused"]["sets"]))
            elif "checked" in message:
                paths = message["checked"]
                found[paths["key"]] = Checked(Path(paths["file"]), Path(paths["outputs"]))
            elif "failure" in message:
                found[message["failure"]["key"]] = Failure(**message["failure"])
            else:
                return found

    def _expected_s(self, part: Sequence[Work]) -> float:
        """Return the expected seconds of the first round, in which every model is loaded, warmed up and run."""
        runs = self.protocol.warm_runs + self.protocol.timed_runs + 3
        run_s = [UNKNOWN_RUN_S if item.expected_us is None else item.expected_us * 1e-6 for item in part]
        return sum((LOAD_S + runs * each) * len(item.files) for item, each in zip(part, run_s, strict=True))


def _outcome(item: Work, answers: Mapping[str, Answer] | Death) -> Outcome:
    if isinstance(answers, Death):
        return Failure(item.key, answers.reason, answers.kind)
    samples: dict[str, Sample] = {}
    for name in item.files:
        answer = answers.get(f"{item.key}/{name}")
        if not isinstance(answer, Sample):
            return _failure(item, answer)
        samples[name] = answer
    return samples


def _fused(item: Work, answers: Mapping[str, Answer] | Death) -> Fused | Failure:
    if isinstance(answers, Death):
        return Failure(item.key, answers.reason, answers.kind)
    (name,) = item.files
    answer = answers.get(f"{item.key}/{name}")
    return answer if isinstance(answer, tuple) else _failure(item, answer)


def _checked(item: Work, answers: Mapping[str, Answer] | Death) -> Checked | Failure:
    if isinstance(answers, Death):
        return Failure(item.key, answers.reason, answers.kind)
    answer = answers.get(f"{item.key}/{MODEL}")
    return answer if isinstance(answer, Checked) else _failure(item, answer)


def _failure(item: Work, answer: Answer | None) -> Failure:
    reason = answer.reason if isinstance(answer, Failure) else "the runtime gave no answer"
    return Failure(item.key, reason, "error")


def _child() -> ChildProcess:
    """Start a timing process, which answers in lines of JSON."""
    environment = child_environment(with_packages=True)
    return ChildProcess(python_module("hw_profiles.timing.child"), environment=environment, name="the timing process")

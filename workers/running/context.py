"""Context: everything that a run's phases share: the plan, the ports, earlier runs' records, and the wall clock."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hw_profiles.host_lock import HostLock
from workers.errors import WorkerError
from workers.plan import JobPlan
from workers.ports import Ports, Recorded
from workers.progress import PHASES, Checkpointed, Level, Logged, Message, Phase, Phased, Warned
from workers.running import durable
from workers.running.memo import Memo

T = TypeVar("T")


class Halted(WorkerError):
    """The user paused or cancelled the job; all work done so far is recorded."""

    def __init__(self, end: str) -> None:
        super().__init__(end)
        self.end = end


@dataclass
class Context:
    """A run's surroundings. `spent_s` is the part of the budget's wall seconds that search and training have used."""

    plan: JobPlan
    ports: Ports
    recorded: Recorded
    lock: HostLock = field(default_factory=HostLock)
    clock_s: Callable[[], float] = time.monotonic
    spent_s: float = 0.0

    def __post_init__(self) -> None:
        self.spent_s = self.recorded.spent_s
        self._files = dict(self.recorded.checkpoints)
        self._at: tuple[Phase, float, float] = (PHASES[0], 0.0, 1.0)
        self._begun: tuple[float, float] = (0.0, self.clock_s())

    def computing(self) -> AbstractContextManager[None]:
        """Return a context manager to hold around heavy work, so that an agent on this machine can time networks while
        nothing else runs.
        """
        return self.lock.shared()

    def say(self, text: str, level: Level = "info") -> None:
        """Log one line for the user."""
        self.ports.emit(Logged(level, text))

    def device_name(self, device_id: str) -> str:
        """Return the name that users gave to a target's device."""
        return next(target.device_name for target in self.plan.targets if target.device_id == device_id)

    def warn(self, text: str) -> None:
        """Attach a warning to the job's result; a repeated text is stored only once."""
        self.ports.emit(Warned(text))

    def at(self, phase: Phase, done: float, total: float, eta_s: float | None = None) -> None:
        """Report the job's position. If `eta_s` is not given, the time left in the phase is unknown.

        Raises:
            Halted: the user paused or cancelled the job.
        """
        if self._at[0] != phase:
            self._begun = (done, self.clock_s())
        self._at = (phase, done, total)
        self.within(0.0, eta_s)

    def at_even(self, phase: Phase, done: float, total: float) -> None:
        """Report the job's position in a phase of similar steps; the time left is estimated from the past steps."""
        before, begun_s = self._begun if self._at[0] == phase else (done, self.clock_s())
        gained = done - before
        self.at(phase, done, total, (self.clock_s() - begun_s) / gained * (total - done) if gained > 0 else None)

    def within(self, share: float, eta_s: float | None = None) -> None:
        """Report the finished share of the step that `at` began. Once the phase's last step is done, there is no
        estimate of the time left.

        Raises:
            Halted: the user paused or cancelled the job.
        """
        phase, begun, total = self._at
        done = min(begun + share, total)
        self.ports.emit(Phased(phase, done, total, eta_s if done < total else None, self.spent_s))
        self.check()

    def check(self) -> None:
        """Raise Halted if the user paused or cancelled the job."""
        wanted = self.ports.signal()
        if wanted != "continue":
            raise Halted({"pause": "paused", "cancel": "cancelled"}[wanted])

    def file(self, name: str) -> Path | None:
        """Return the newest checkpoint of this name, if it still exists."""
        path = self._files.get(name)
        return path if path is not None and path.exists() else None

    def keep_file(self, name: str, path: Path, *also: Message) -> None:
        """Record a finished file, and what else is to be told at the same time."""
        self._files[name] = path
        self.ports.emit(Checkpointed(name, path), *also)

    def keep_bytes(self, name: str, content: bytes, suffix: str, *also: Message) -> Path:
        """Write a checkpoint atomically, and record it, with what else is to be told at the same time."""
        path = durable.write(self.folder("checkpoints") / f"{name}{suffix}", content)
        self.keep_file(name, path, *also)
        return path

    def once(self, memo: Memo[T], make: Callable[[], T], holds: Callable[[T], bool] = lambda known: True) -> T:
        """Return this memo's fact; if no run of the job has recorded the fact yet, compute it now and record it.

        Args:
            holds: returns True if a recorded fact fits the present request.
        """
        known = self.recall(memo)
        if known is None or not holds(known):
            known = make()
            self.keep(memo, known)
        return known

    def recall(self, memo: Memo[T]) -> T | None:
        """Return this memo's fact if a run of the job has recorded it, else None."""
        path = self.file(memo.name)
        return memo.from_json(json.loads(path.read_text())) if path else None

    def keep(self, memo: Memo[T], fact: T) -> None:
        """Record a fact under this memo."""
        self.keep_bytes(memo.name, json.dumps(memo.to_json(fact), allow_nan=False).encode(), ".json")

    def folder(self, name: str) -> Path:
        """Return a folder of this job; create it if it does not exist."""
        path = self.ports.work_dir / name
        path.mkdir(parents=True, exist_ok=True)
        return path

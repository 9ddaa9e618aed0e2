"""Contract test classes for implementations of this folder's protocols.

class TestMyPool(PoolContract):
    def pool(self, make_evaluator): return MyPool(make_evaluator)
"""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from workers.errors import InvalidInput, PoolClosed
from workers.pools.pool import Evaluator, EvaluatorFactory, Pool

PATIENCE_S = 120.0
"""Seconds after which a hanging test fails; this is not a test of speed."""


@dataclass(frozen=True)
class Deeds:
    """An evaluator that does what the candidate's `deed` says, and writes one line per attempt to a file in `folder`.

    `square` completes. `raise` raises an exception. `nan` has a NaN metric. `wait` waits for the file `go` in the
    folder. `die` kills its own process; `die_once` does so on the first attempt only.
    """

    folder: Path

    def __call__(self) -> Evaluator:
        """Return the evaluator; this object is also its own picklable factory."""
        return self.evaluate

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Do the candidate's deed."""
        with (self.folder / candidate.id).open("a") as log:
            log.write(f"{os.getpid()}\n")
        deed, x = candidate.values["deed"], candidate.values["x"]
        assert isinstance(x, int | float)
        if deed == "raise":
            raise RuntimeError("told to raise")
        if deed == "die" or (deed == "die_once" and self.attempts(candidate.id) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        while deed == "wait" and not (self.folder / "go").exists():
            time.sleep(0.01)
        score = float("nan") if deed == "nan" else float(x) ** 2
        return Evaluation(candidate, Status.COMPLETED, {"score": score})

    def attempts(self, candidate_id: str) -> int:
        """Return how many times this candidate was started."""
        log = self.folder / candidate_id
        return len(log.read_text().splitlines()) if log.exists() else 0


def deed(name: str, x: float = 0.0, what: str = "square") -> Candidate:
    """Make a candidate for Deeds."""
    return Candidate(id=name, values={"x": x, "deed": what})


def drain(pool: Pool, count: int) -> dict[str, Evaluation]:
    """Take `count` evaluations and return them by candidate id; fail after PATIENCE_S."""
    taken: dict[str, Evaluation] = {}
    end_s = time.monotonic() + PATIENCE_S
    while len(taken) < count:
        assert time.monotonic() < end_s, f"only {len(taken)} of {count} came back"
        evaluation = pool.next(timeout_s=1.0)
        if evaluation is not None:
            assert evaluation.candidate.id not in taken, "came back twice"
            taken[evaluation.candidate.id] = evaluation
    return taken


class PoolContract(ABC):
    """Tests that every pool must pass. A subclass's method `pool` makes the pool to test."""

    @abstractmethod
    def pool(self, make_evaluator: EvaluatorFactory) -> Pool:
        """Make a new pool."""

    @pytest.fixture
    def deeds(self, tmp_path: Path) -> Deeds:
        return Deeds(tmp_path)

    @pytest.fixture
    def running(self, deeds: Deeds) -> Iterator[Pool]:
        with self.pool(deeds) as pool:
            yield pool

    def test_each_candidate_comes_back_once_with_its_own_result(self, running: Pool, deeds: Deeds) -> None:
        for i in range(7):
            running.submit(deed(f"c{i}", x=i))
        taken = drain(running, 7)
        assert {name: e.metrics["score"] for name, e in taken.items()} == {f"c{i}": i**2 for i in range(7)}
        assert all(deeds.attempts(name) == 1 for name in taken)

    def test_nothing_in_the_pool_gives_none(self, running: Pool) -> None:
        assert running.next(timeout_s=PATIENCE_S) is None

    def test_an_exception_costs_its_own_candidate_only(self, running: Pool) -> None:
        running.submit(deed("bad", what="raise"))
        running.submit(deed("good", x=3))
        taken = drain(running, 2)
        assert taken["bad"].status is Status.FAILED
        assert taken["bad"].reason == "RuntimeError: told to raise"
        assert taken["good"].metrics["score"] == 9

    def test_a_nan_fails_with_reason_nan(self, running: Pool) -> None:
        running.submit(deed("bad", what="nan"))
        evaluation = drain(running, 1)["bad"]
        assert (evaluation.status, evaluation.reason) == (Status.FAILED, "nan")

    def test_a_cancelled_candidate_comes_back_stopped(self, running: Pool) -> None:
        for i in range(running.capacity + 2):
            running.submit(deed(f"c{i}", x=i))
        last = f"c{running.capacity + 1}"
        running.cancel(last)
        running.cancel("never heard of")
        taken = drain(running, running.capacity + 2)
        # The pool may finish the candidate before the cancellation, but must not lose it.
        assert taken[last].status in (Status.STOPPED, Status.COMPLETED)
        assert all(e.status is Status.COMPLETED for name, e in taken.items() if name != last)

    def test_an_id_is_in_the_pool_once(self, running: Pool) -> None:
        running.submit(deed("a"))
        with pytest.raises(InvalidInput):
            running.submit(deed("a"))
        drain(running, 1)

    def test_a_closed_pool_takes_nothing(self, deeds: Deeds) -> None:
        pool = self.pool(deeds)
        pool.submit(deed("lost"))
        pool.close()
        pool.close()
        with pytest.raises(PoolClosed):
            pool.submit(deed("late"))

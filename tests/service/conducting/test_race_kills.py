"""Kill -9 of the conductor, ten times at random moments of a job in which the four strategies race."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import pytest
from whole_job import SLOW, Service, agent, data_set, network, probed, until

from hw_profiles.host_lock import LOCK_DIR_VARIABLE
from search.candidate import Candidate
from service.settings import Settings
from service.store import Store, events, make_engine
from service.store.jobs import evaluations, jobs
from service.store.jobs.jobs import Job

pytestmark = pytest.mark.long
STRATEGIES = ("bayesian", "ddpg", "genetic", "hakd")
EVALUATIONS = 32
IN_SEARCH, IN_TRAINING = 7, 3
LAST = 24
"""Evaluations after which the last kill of the search is due, at the latest."""
AFTER = 2.0
"""A kill of the search comes at a random moment within the time of so many evaluations after the one it waits for."""
IN_EPOCH_S = 1.0
"""A kill of the training comes at a random moment within so many seconds after the end of an epoch."""
SEED = 13
BODY: Mapping[str, Any] = {
    "name": "race",
    "model": "stripes",
    "dataset": "stripes",
    "limits": {"max_accuracy_drop": 0.3},
    "methods": ["filter_prune"],
    "strategies": [
        {"name": "bayesian", "settings": {"samples": 4}},
        {"name": "ddpg", "settings": {"hidden": 32}},
        {"name": "genetic", "settings": {"mask_generations": 10}},
        {"name": "hakd", "settings": {"students": 4}},
    ],
    "budget": {"evaluations": EVALUATIONS, "wall_s": 7200, "finalists": 2},
    "training": {"epochs": 8, "augment": "none"},
    "seed": 7,
}


@dataclass(frozen=True)
class Watched:
    """The running job, read where it is recorded."""

    store: Store
    id: str

    @property
    def job(self) -> Job:
        with self.store.read() as tx:
            return jobs.get(tx, self.id)

    def rows(self) -> list[dict[str, Any]]:
        """Everything that is recorded of each evaluation, by number."""
        with self.store.read() as tx:
            found = evaluations.of_job(tx, self.id)
            return [{name: value for name, value in vars(each).items() if not name.startswith("_")} for each in found]

    def await_rows(self, count: int) -> None:
        until(lambda: len(self.rows()) >= count, f"{count} evaluations")

    def pace_s(self) -> float:
        """Seconds that a quick evaluation takes."""
        return mean([row["elapsed_s"] for row in self.rows() if row["fidelity"] == "F2" and not row["cached"]] or [1.0])

    def lines(self) -> list[str]:
        with self.store.read() as tx:
            return [e.data["text"] for e in events.of_topic(tx, jobs.topic(self.id), ("log.line",), None, 1000)]


@dataclass
class Killer:
    """Kills the job's conductor; `before` has the evaluations recorded at each kill."""

    service: Service
    watched: Watched
    rng: random.Random = field(default_factory=lambda: random.Random(SEED))
    before: list[list[dict[str, Any]]] = field(default_factory=list)

    def in_search(self) -> None:
        for due in sorted(self.rng.sample(range(1, LAST + 1), IN_SEARCH)):
            # At least one new evaluation in between: what dies twice with the same candidate fails it, as it should.
            least = max(due, len(self.before[-1]) + 1 if self.before else 0)
            self.watched.await_rows(least)
            self._kill(AFTER * self.watched.pace_s())
            assert self.watched.job.phase == "search"

    def in_training(self) -> None:
        for _ in range(IN_TRAINING):
            self._await_epoch(self._epochs())
            self._kill(IN_EPOCH_S)

    def _await_epoch(self, after: float) -> None:
        until(lambda: self._epochs() > after, "another epoch of a finalist")

    def _epochs(self) -> float:
        """The time at which the newest epoch of a finalist ended."""
        folder = self.service.data_dir / "jobs" / self.watched.id / "checkpoints"
        return max((each.stat().st_mtime for each in folder.glob("training-*finalist*.safetensors")), default=0.0)

    def _kill(self, within_s: float) -> None:
        time.sleep(self.rng.uniform(0.0, within_s))  # a random moment, not a wait for something
        dead = self.service.conductor()
        self.before.append(self.watched.rows())
        os.kill(dead, signal.SIGKILL)
        until(lambda: self.service.conductor() != dead, "another conductor")


@dataclass(frozen=True)
class Ended:
    """The job after its end."""

    job: Any
    epoch: int
    rows: list[dict[str, Any]]
    before: list[list[dict[str, Any]]]
    lines: list[str]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    folder = tmp_path_factory.mktemp("race")
    service = Service(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LOCK_DIR_VARIABLE, str(folder))
        service.start()
        store = Store(make_engine(Settings(data_dir=service.data_dir, database_url=None).url))
        try:
            service.post("/models", data={"name": "stripes"}, files={"file": ("stripes.onnx", network(SLOW))})
            service.post("/datasets", data={"name": "stripes"}, files={"file": ("stripes.npz", data_set(1500, SLOW))})
            with agent(service, tmp_path_factory.mktemp("agent") / "state") as device:
                service.post(f"/devices/{device}/table", json=probed())
                body = {**BODY, "targets": [{"device": device, "max_latency_ratio": 0.75}]}
                watched = Watched(store, service.post("/jobs", json=body)["id"])
                killer = Killer(service, watched)
                killer.in_search()
                killer.in_training()
                job = service.ended("race")
                yield Ended(job, watched.job.epoch, watched.rows(), killer.before, watched.lines())
        finally:
            store.close()
            service.end()


def test_the_job_ends_well(ended: Ended) -> None:
    assert (ended.job["state"], ended.job["verdict"], ended.job["failure"]) == ("succeeded", "met", None), ended.lines
    # A busy machine may cost further takeovers, e.g. if the store is locked for too long.
    assert ended.epoch > IN_SEARCH + IN_TRAINING, "every death was a takeover"
    assert not [line for line in ended.lines if "left the race" in line]


def test_nothing_recorded_is_lost_or_changed(ended: Ended) -> None:
    assert len(ended.before) == IN_SEARCH + IN_TRAINING
    for before in ended.before:
        assert before == ended.rows[: len(before)]
    assert [row["number"] for row in ended.rows] == list(range(1, len(ended.rows) + 1))
    assert len(ended.before[IN_SEARCH - 1]) < EVALUATIONS, "killed in the search, not after it"


def test_nothing_is_evaluated_twice_and_every_strategy_has_its_share(ended: Ended) -> None:
    paid = [row for row in ended.rows if not row["cached"] and not row["candidate"]["after_search"]]
    assert [row["status"] for row in paid] == ["completed"] * EVALUATIONS
    keys = [Candidate.from_json(row["candidate"]).key("network", "split", 0) for row in paid]
    assert len(set(keys)) == len(keys)
    shares = Counter(row["strategy"] for row in paid)
    assert set(STRATEGIES) <= set(shares)
    assert {row["fidelity"] for row in paid} >= {"F2", "F4"}


def test_every_finalist_is_trained_and_timed_once(ended: Ended) -> None:
    after = [row for row in ended.rows if row["candidate"]["after_search"]]
    assert max(Counter(row["candidate_id"] for row in after).values()) == 1
    assert sum(line.startswith("The control: ") for line in ended.lines) <= 1

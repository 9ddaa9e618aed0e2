"""A program: jobs whose evaluators, Ray nodes, conductors or API servers are killed ten times, and one left alone.

python kill_nine.py FOLDER DATABASE_URL      prints one JSON object

On the stack of docker-compose.yml with one more Ray node, none of which is the head: the head computes nothing, so
that the evaluator is always on a node that can die.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from compose_stack import Stack
from isolation import bring_up_loopback
from whole_job import SLOW, data_set, network, until

from hw_profiles.host_lock import HostLock
from service.settings import Settings
from service.store import Store, make_engine
from service.store.jobs import evaluations, jobs

EVALUATIONS = 50
KILLS = 10
LAST = 30
"""Evaluations after which the last kill is due, at the latest."""
AFTER = 2.0
"""A kill comes at a random moment within the time of so many evaluations after the one that it waits for."""
IMAGES = 2500
"""To judge candidates by."""
LASTING = ("id", "number", "strategy", "status", "fidelity", "metrics", "feasible", "cached")
VICTIMS = ("evaluator", "node", "conductor", "api")
NODES = ("ray-worker-1", "ray-worker-2")
APIS = ("api-1", "api-2")
CONDUCTORS = ("conductor-1", "conductor-2")
BODY: Mapping[str, Any] = {
    "model": "stripes",
    "dataset": "stripes",
    "limits": {"max_macs_ratio": 0.7},
    "methods": ["filter_prune"],
    "strategies": ["random", "greedy"],
    "budget": {"evaluations": EVALUATIONS, "wall_s": 1200, "finalists": 1},
    "training": {"epochs": 1, "augment": "none"},
    "seed": 7,
}
"""Without a device: its table would grow while the job runs, and with it what candidates are chosen by."""
SETTINGS = {"conductor": {"NETLATHE_LEASE_S": "2", "NETLATHE_RENEW_S": "0.5", "NETLATHE_JOB_PROCESSES": "1"}}


@dataclass(frozen=True)
class Watched:
    """A running job, read where it is recorded."""

    store: Store
    id: str

    def rows(self) -> list[dict[str, Any]]:
        """What does not change of each evaluation once it is recorded, but for how long it took."""
        with self.store.read() as tx:
            return [
                {**{name: getattr(each, name) for name in LASTING}, "values": each.candidate["values"]}
                for each in evaluations.of_job(tx, self.id)
            ]

    def ids(self) -> list[str]:
        """Of the evaluations, by number."""
        return [row["id"] for row in self.rows()]

    def pace_s(self) -> float:
        """Seconds that an evaluation takes."""
        with self.store.read() as tx:
            return mean(each.elapsed_s for each in evaluations.of_job(tx, self.id) if not each.cached)

    def owner(self) -> str:
        """The conductor that holds the job."""
        with self.store.read() as tx:
            return jobs.get(tx, self.id).lease_owner or ""

    def epoch(self) -> int:
        """How often the job was taken."""
        with self.store.read() as tx:
            return jobs.get(tx, self.id).epoch

    def await_rows(self, count: int) -> None:
        """Until so many evaluations are recorded."""
        until(lambda: len(self.ids()) >= count, f"{count} evaluations of {self.id}")


class Killer:
    """Kills one kind of victim on the stack, and starts what it killed again where nobody else would."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._turn = 0

    def evaluator(self, job: Watched) -> None:
        """The actor's process."""
        os.kill(self._actor()[1], signal.SIGKILL)

    def node(self, job: Watched) -> None:
        """Every process of the Ray node that has the actor."""
        name, _ = self._actor()
        self.stack.kill(name, whole=True)
        self.stack.start(name)

    def conductor(self, job: Watched) -> None:
        """The conductor that holds the job."""
        found: list[str] = []

        def there() -> bool:
            owner = job.owner()
            found[:] = [name for name in CONDUCTORS if f"-{self.stack.part(name).pid}-" in owner]
            return len(found) == 1

        until(there, "a conductor with the job")
        (name,) = found
        self.stack.kill(name)
        self.stack.start(name)

    def api(self, job: Watched) -> None:
        """One replica, then the other. The search waits for it to come back, as for an agent that times something."""
        name = APIS[self._turn % len(APIS)]
        self._turn += 1
        self.stack.kill(name)
        self.stack.start(name)
        with HostLock(self.stack.folder / "lock").exclusive():
            self.stack.await_healthy(name)

    def _actor(self) -> tuple[str, int]:
        """The node that has the one actor, and the actor's process id."""
        found: list[tuple[str, int]] = []

        def there() -> bool:
            found[:] = [(name, pid) for name in NODES for pid in self.stack.actors(name)]
            return len(found) == 1

        until(there, "one evaluator")
        return found[0]


def killed(job: Watched, kill: Callable[[Watched], None], rng: random.Random) -> list[list[str]]:
    """Kill at random moments of the search; the ids of what was recorded before each."""
    kills: list[list[str]] = []
    recorded = 0
    for due in sorted(rng.sample(range(1, LAST + 1), KILLS)):
        # At least one new evaluation in between: what dies twice with the same candidate fails it, as it should.
        job.await_rows(max(due, recorded + 1))
        time.sleep(rng.uniform(0.0, AFTER) * job.pace_s())  # a random moment, not a wait for something
        kills.append(job.ids())
        recorded = len(kills[-1])
        kill(job)
    return kills


def up(stack: Stack) -> None:
    """All parts, and the uploads."""
    stack.run("migrate")
    for name in ("ray-head", *NODES, *APIS, *CONDUCTORS):
        stack.start(name)
        if name == "ray-head":
            stack.await_healthy(name)
    for name in (*NODES, *APIS):
        stack.await_healthy(name)
    with stack.client("api-1") as client:
        until(lambda: client.ready()["executor"] == "ok" and client.ready()["conductors"] == 2, "the conductors")
        for name, content in (("stripes.onnx", network(SLOW)), ("stripes.npz", data_set(IMAGES, SLOW))):
            (stack.folder / name).write_bytes(content)
        client.models.create(stack.folder / "stripes.onnx", "stripes")
        client.datasets.create(stack.folder / "stripes.npz", "stripes")


def main(folder: Path, database_url: str, isolated: bool) -> dict[str, Any]:
    """What became of each job, by its victim."""
    told: dict[str, Any] = {}
    store = Store(make_engine(Settings(data_dir=folder, database_url=database_url).url))
    arguments = {"ray-head": ["--num-cpus=0"]}
    with Stack(folder, database_url, isolated, SETTINGS, arguments) as stack:
        up(stack)
        killer = Killer(stack)
        for seed, victim in enumerate(("nobody", *VICTIMS)):
            for api in APIS:
                stack.await_healthy(api)
            with stack.client("api-1") as client:
                job = Watched(store, client.jobs.create(name=f"kills-{victim}", **BODY).id)
                kills = killed(job, getattr(killer, victim), random.Random(seed)) if victim != "nobody" else []
                ended = client.jobs.wait(job.id)
                told[victim] = {
                    "state": ended.state,
                    "verdict": ended.verdict,
                    "failure": None if ended.failure is None else vars(ended.failure),
                    "epoch": job.epoch(),
                    "killed_after": kills,
                    "rows": job.rows(),
                    "front": sorted(each.number for each in client.jobs.front(job.id)),
                    "log": [line["text"] for line in client.jobs.log(job.id)["items"]],
                }
    store.close()
    return told


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), sys.argv[2], bring_up_loopback())) + "\n")

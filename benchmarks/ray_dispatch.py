"""Overhead that Ray adds to the evaluations: `python benchmarks/ray_dispatch.py`.

Dispatch: the search loop runs with one actor that answers at once; candidates and evaluations are stored as by a
conductor (SQLite, durable). The figure is the median time from one stored evaluation to the next, which includes
choosing a candidate, two transactions, the call and the answer. The goal is at most MAX_DISPATCH_MS. For comparison,
the same loop is timed without Ray, and the two transactions are timed alone.

Throughput: the same F2 evaluations of ResNet-20, one thread each, are run by two actors of a RayPool and by two bare
processes that get the next evaluation through a pipe as soon as they are free. Rounds are interleaved with alternating
order. The figure is the median of the ratios of wall times. The goal is at least MIN_SHARE_OF_BARE of the bare
processes' throughput.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection, wait
from pathlib import Path
from statistics import median
from typing import Any

from f2_overhead import material, widths
from stamp import stamp

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from search.strategies.random import Random, Settings
from search.synthetic.replay import make_replay
from service.conducting.store_ports import StorePorts
from service.files.blobs import Blobs
from service.store import Store, make_engine
from service.store.jobs import job_leases, jobs
from service.store.migrate import migrate
from service.testing import add_inputs, request
from workers.evaluating.evaluation_files import Material
from workers.evaluating.evaluator import EvaluatorFactory
from workers.on_ray.cluster import RayCluster
from workers.pools.in_process_pool import InProcessPool
from workers.pools.malloc_settings import keep_freed_memory
from workers.pools.pool import Evaluator, Pool
from workers.progress import Asked, Evaluated, Message, Phased
from workers.search.loop import Rules, loop

DISPATCHED = 400
MAX_DISPATCH_MS, MIN_SHARE_OF_BARE = 15.0, 0.90
WORKERS = 2
ROUNDS = 7
PER_ROUND = 8
READY_S = 120.0
RESULTS = Path(__file__).parent / "results" / "ray_dispatch.jsonl"


@dataclass(frozen=True)
class AtOnce:
    """An evaluator that does nothing."""

    def __call__(self) -> Evaluator:
        return self.evaluate

    @staticmethod
    def evaluate(candidate: Candidate) -> Evaluation:
        """Return a fixed accuracy."""
        return Evaluation(candidate, Status.COMPLETED, {"accuracy": 0.5})


def job_ports(folder: Path) -> StorePorts:
    """Return the ports of a running job in a fresh SQLite store."""
    folder.mkdir()
    store = Store(make_engine(f"sqlite:///{folder / 'netlathe.db'}"))
    migrate(store.engine)
    with store.begin() as tx:
        add_inputs(tx)
        jobs.create(tx, {**request(), "objective": {"metric": "accuracy", "goal": "max"}, "limits": {}})
        held = job_leases.claim(tx, "bench", 1e6, 5)
    assert held is not None
    return StorePorts(store, Blobs(folder), held, folder, offline_s=1.0, stopping=threading.Event())


def dispatched(pool: Pool, folder: Path) -> dict[str, float]:
    """Return the milliseconds from one stored evaluation to the next."""
    ports, at_s = job_ports(folder), list[float]()

    def emit(*messages: Message) -> None:
        ports.emit(*messages)
        if any(isinstance(message, Evaluated) for message in messages):
            at_s.append(time.perf_counter())

    problem = make_replay(0, evaluations=DISPATCHED).problem
    makers = {"random": lambda found: Random(found, Settings(), 0)}
    with pool:
        loop(problem, makers, pool, Rules(DISPATCHED), emit, signal=ports.signal)
    return percentiles([later - earlier for earlier, later in pairwise(at_s)])


def stored(folder: Path) -> dict[str, float]:
    """Return the milliseconds of a candidate's two transactions alone."""
    ports, taken_s = job_ports(folder), list[float]()
    for number in range(DISPATCHED):
        candidate = Candidate(f"c{number}", {"width": number})
        begun_s = time.perf_counter()
        ports.emit(Asked("random", candidate))
        evaluated = Evaluated("random", AtOnce.evaluate(candidate))
        ports.emit(evaluated, Phased("search", number, DISPATCHED))
        taken_s.append(time.perf_counter() - begun_s)
    return percentiles(taken_s)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and 95th percentile, in milliseconds."""
    ordered = sorted(seconds)
    return {"p50_ms": 1e3 * median(ordered), "p95_ms": 1e3 * ordered[int(0.95 * len(ordered))], "n": len(ordered)}


def bare(link: Connection, source: Material) -> None:
    """Run a process that evaluates one candidate after another with one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    keep_freed_memory()  # the same setting as in the workers, so that Ray is the only difference
    evaluate = EvaluatorFactory(source)()
    link.send("ready")
    while (candidate := link.recv()) is not None:
        evaluate(candidate)
        link.send("done")


def throughput(folder: Path, make_pool: Callable[[Material], Pool]) -> dict[str, Any]:
    """Return the wall seconds of the same evaluations by actors and by bare processes, in interleaved rounds."""
    source = material(folder)
    shares = [0.25 + 0.03 * (number // WORKERS) for number in range(PER_ROUND)]
    plain = Material(source.folder, source.methods)
    context = multiprocessing.get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = "1"
    pairs = [context.Pipe() for _ in range(WORKERS)]
    processes = [context.Process(target=bare, args=(theirs, plain), daemon=True) for _, theirs in pairs]
    for process in processes:
        process.start()
    links = [ours for ours, _ in pairs]
    taken: dict[str, list[float]] = {"ray": [], "bare": []}
    with make_pool(plain) as pool:

        def by_ray(name: str) -> None:
            for number, share in enumerate(shares):
                pool.submit(Candidate(f"{name}-{number}", widths(source.network, share)))
            left = PER_ROUND
            while left:
                evaluation = pool.next(READY_S)
                assert evaluation is not None
                assert evaluation.status is Status.COMPLETED, evaluation.reason
                left -= 1

        def by_processes(name: str) -> None:
            waiting = [Candidate(f"{name}-{i}", widths(source.network, share)) for i, share in enumerate(shares)]
            busy = list(links)
            for link in links:
                link.send(waiting.pop(0))
            while busy:
                for done in wait(busy):
                    assert isinstance(done, Connection)
                    done.recv()
                    if waiting:
                        done.send(waiting.pop(0))
                    else:
                        busy.remove(done)

        for link in links:
            link.recv()
        calls = {"ray": by_ray, "bare": by_processes}
        for name, call in calls.items():
            call(f"warm-{name}")
        for number in range(ROUNDS):
            for name in sorted(calls, reverse=bool(number % 2)):
                begun_s = time.perf_counter()
                calls[name](f"{name}-{number}")
                taken[name].append(time.perf_counter() - begun_s)
    for link in links:
        link.send(None)
    for process in processes:
        process.join()
    ratios = [plain_s / ray_s for plain_s, ray_s in zip(taken["bare"], taken["ray"], strict=True)]
    return {"share_of_bare": median(ratios), "low": min(ratios), "high": max(ratios), "seconds": taken}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="netlathe-bench-") as folder, RESULTS.open("w") as out:

        def tell(kind: str, **row: Any) -> None:
            print(json.dumps({"kind": kind, **{key: value for key, value in row.items() if key != "seconds"}}))
            out.write(json.dumps({"kind": kind, **row}) + "\n")

        cluster = RayCluster(cpus=WORKERS)
        begun_s = time.perf_counter()
        cluster.start()
        cluster.wait(READY_S)
        tell("facts", **stamp(), ray_up_s=time.perf_counter() - begun_s)
        from workers.on_ray.pool import RayPool

        tell("stored", **stored(Path(folder) / "stored"))
        tell("dispatch", pool="in process", **dispatched(InProcessPool(AtOnce()), Path(folder) / "local"))
        tell("dispatch", pool="ray", **dispatched(RayPool(AtOnce(), 1), Path(folder) / "ray"))
        found = throughput(Path(folder) / "f2", lambda source: RayPool(EvaluatorFactory(source), WORKERS))
        tell("throughput", **found)
        cluster.close()


if __name__ == "__main__":
    main()

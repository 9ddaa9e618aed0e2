"""A job that has ended, with the layers of two finalists in its report."""

from __future__ import annotations

import json
from typing import Any

from service_world import Uploaded, queue

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from service.files.blobs import Blobs
from service.store import Store
from service.store.jobs import artifacts, evaluations, job_leases
from workers.progress import Evaluated

REST: dict[str, Any] = {
    "layer": "whole network",
    "group": None,
    "role": None,
    "before": None,
    "after": None,
    "latency_ms": {"dev_1": [0.02, 0.02]},
    "share": 0.2,
    "sensitivity": None,
    "reason": "the cost of a call, and what the layers' times do not explain",
}


def row(layer: str, after: int, after_ms: float) -> dict[str, Any]:
    """One layer of 32 channels and 0.08 ms."""
    return REST | {
        "layer": layer,
        "group": layer,
        "role": "width",
        "before": 32,
        "after": after,
        "latency_ms": {"dev_1": [0.08, after_ms]},
        "share": 0.8,
        "sensitivity": 0.004,
        "reason": f"32 -> {after}: saves {0.08 - after_ms:.3f} ms of 0.080 ms; alone it costs 0.4 points",
    }


FINALISTS: list[dict[str, Any]] = [
    {"candidate": "c0", "strategy": "tpe", "layers": [row("block<1>", 24, 0.06), REST]},
    {"candidate": "c1", "strategy": "greedy", "layers": [row("block<1>", 20, 0.049), REST]},
]


def ended_job(
    store: Store,
    blobs: Blobs,
    uploaded: Uploaded,
    finalists: list[dict[str, Any]] = FINALISTS,
    untrained: dict[str, Any] | None = None,
) -> str:
    """Run a job by hand: two candidates, both timed, the second the best; and a third that is no finalist. Its id."""
    job_id = queue(store, uploaded, targets=[{"device": uploaded.device_id, "max_latency_ms": 5.0}])
    with store.begin() as tx:
        held = job_leases.claim(tx, "tests", lease_s=30, max_crashes=3)
        assert held is not None
        for name, strategy in (("c0", "tpe"), ("c1", "greedy"), ("c2", "tpe")):
            made = Candidate(name, {"block<1>": 24}, origin=strategy)
            evaluations.add(tx, held, Evaluated(strategy, Evaluation(made, Status.COMPLETED, {"accuracy": 0.9})))
        for name, strategy in (("c0", "tpe"), ("c1", "greedy")):
            timed = Candidate(f"{name}-timed", {"block<1>": 24}, parents=(name,), fidelity="F5", after_search=True)
            added = evaluations.add(
                tx, held, Evaluated(strategy, Evaluation(timed, Status.COMPLETED, {"accuracy": 0.9}), True)
            )
        assert added is not None
        job_leases.fence(tx, held, best={"strategy": "greedy", "accuracy": 0.91, "evaluation_id": added.id})
    report = blobs.put_bytes(json.dumps({"finalists": finalists, "untrained": untrained}).encode())
    with store.begin() as tx:
        blobs.record(tx, report)
        artifacts.add(tx, held, "report_json", "report.json", report)
        job_leases.end(tx, held, "succeeded", verdict="met")
    return job_id

"""Four jobs on a trained ResNet-20 through REST: `python benchmarks/resnet20_rest.py`.

Starts `netlathe serve` on a free loopback port with a temporary data folder, uploads the network with its preprocessing
and the small CIFAR-10, and submits in turn, each with at most 60 evaluations, 4 epochs and 30 minutes (race: 60) of
search and training:

    prune   filter_prune               greedy   at most 70 % of the original's measured latency, one thread
    int8    int8_ptq                   greedy   at most 65 %
    both    filter_prune + int8_ptq    greedy   at most 50 %
    race    filter_prune + int8_ptq    uniform, greedy, bayesian, tpe and nsga2 with equal shares    at most 45 %

Each job must end `met`, at most 4 points of accuracy below the control, with the predicted latency within 5 % of the
measured latency. The exit code is 0 only if all jobs do. One row per job is appended to
benchmarks/results/resnet20_rest.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet20 import PREPROCESSING, model_path, shared
from stamp import stamp

from netlathe import Client, Job, Latency, Summary
from service.processes.own_server import embedded_server

RESULTS = Path(__file__).parent / "results" / "resnet20_rest.jsonl"
DEVICE = "onnxruntime-t1-fp32"
ONLINE_WITHIN_S = 90.0
MAX_DROP, MAX_ERROR = 0.04, 0.05
BUDGET = {"evaluations": 60, "wall_s": 1800, "finalists": 3}
RACE = ("uniform", "greedy", "bayesian", "tpe", "nsga2")
TRAINING = {"epochs": 4}


@dataclass(frozen=True)
class Wanted:
    """A job to submit: its methods, its limit as a share of the original's measured latency, its strategies and its
    time.
    """

    methods: tuple[str, ...]
    ratio: float
    strategies: tuple[str, ...] = ("greedy",)
    wall_s: int = 1800


WANTED: Mapping[str, Wanted] = {
    "prune": Wanted(("filter_prune",), 0.70),
    "int8": Wanted(("int8_ptq",), 0.65),
    "both": Wanted(("filter_prune", "int8_ptq"), 0.50),
    "race": Wanted(("filter_prune", "int8_ptq"), 0.45, RACE, 3600),
}


def device(client: Client) -> str:
    """Return the name of this machine's one-thread device, once its agent has enrolled."""
    end_s = time.monotonic() + ONLINE_WITHIN_S
    while time.monotonic() < end_s:
        for each in client.devices.list():
            if each.name.endswith(DEVICE) and each.state in ("online", "busy"):
                return each.name
        time.sleep(0.5)
    raise SystemExit(f"no device {DEVICE} came online within {ONLINE_WITHIN_S:.0f} s")


def run(client: Client, name: str, on: str, seed: int) -> dict[str, Any]:
    """Submit one job and wait for its end; return its row."""
    wanted = WANTED[name]
    begun_s = time.monotonic()
    model = client.models.create(model_path(), "resnet20", preprocessing=PREPROCESSING)
    data = client.datasets.create(shared("cifar10-small.parquet"), "cifar10-small")
    job = client.jobs.create(
        model=model.id,
        dataset=data.id,
        targets=[{"device": on, "max_latency_ratio": wanted.ratio}],
        limits={"max_accuracy_drop": MAX_DROP},
        methods=list(wanted.methods),
        strategies=list(wanted.strategies),
        budget={**BUDGET, "wall_s": wanted.wall_s},
        training=TRAINING,
        seed=seed,
    )
    phases = _watched(client, job.id)
    job = client.jobs.get(job.id)
    row = {"name": name, "methods": wanted.methods, "ratio": wanted.ratio, "seed": seed, "phase_s": phases}
    evaluations = list(client.jobs.evaluations(job.id))
    row["evaluations"] = sum(each.fidelity == "F2" for each in evaluations)
    row["of_strategy"] = {
        name: dict(Counter(each.fidelity for each in evaluations if each.strategy == name))
        for name in wanted.strategies
    }
    row["chosen_of"] = (job.best or job.nearest or Summary()).strategy
    return {**row, **_found(job), "wall_s": round(time.monotonic() - begun_s, 1), "log": _log(client, job)}


def _watched(client: Client, job: str) -> dict[str, float]:
    """Return the seconds that the job spent in each phase, from its events."""
    spent: dict[str, float] = {}
    phase, since_s = "queued", time.monotonic()
    for seen in client.jobs.watch(job):
        now_s = time.monotonic()
        spent[phase] = spent.get(phase, 0.0) + now_s - since_s
        if seen.phase is not None and seen.phase != phase:
            print(f"  {seen.phase}, {seen.evaluations_done} evaluations", file=sys.stderr, flush=True)
            phase = seen.phase
        since_s = now_s
    return {name: round(seconds, 1) for name, seconds in spent.items()}


def _found(job: Job) -> dict[str, Any]:
    shown = job.best or job.nearest
    latency = next(iter(shown.latency_ms.values()), Latency()) if shown else Latency()
    original = next(iter(job.original.latency_ms.values()), Latency()) if job.original else Latency()
    known = latency.measured is not None and latency.predicted is not None
    return {
        "state": job.state,
        "verdict": job.verdict,
        "failure": None if job.failure is None else vars(job.failure),
        "original_ms": original.measured,
        "measured_ms": latency.measured,
        "measured_high_ms": latency.measured_high,
        "predicted_ms": latency.predicted,
        "prediction_error": latency.predicted / latency.measured - 1 if known else None,  # type: ignore[operator]
        "original_accuracy": job.original.accuracy if job.original else None,
        "control_accuracy": job.control.accuracy if job.control else None,
        "accuracy": shown.accuracy if shown else None,
        "accuracy_drop": vars(shown.accuracy_drop) if shown and shown.accuracy_drop else None,
        "test_accuracy": shown.test_accuracy if shown else None,
        "original_test_accuracy": job.original.test_accuracy if job.original else None,
        "macs": shown.macs if shown else None,
        "size_bytes": shown.size_bytes if shown else None,
    }


def _log(client: Client, job: Job) -> list[str]:
    return [str(line.get("text", line)) for line in client.jobs.log(job.id)["items"]]


def good(row: Mapping[str, Any]) -> bool:
    """Return True if the job ended as the goals demand."""
    if row["verdict"] != "met" or row["accuracy_drop"] is None or row["prediction_error"] is None:
        return False
    return bool(row["accuracy_drop"]["mean"] <= MAX_DROP and abs(row["prediction_error"]) <= MAX_ERROR)


def table(rows: list[dict[str, Any]]) -> str:
    """Return a table with one line per job."""
    lines = [
        f"{'job':6} {'limit':>6} {'verdict':>7} {'original':>9} {'measured':>9} {'ratio':>6} {'predicted':>9} "
        f"{'error':>6} {'control':>8} {'accuracy':>8} {'drop':>6} {'test':>7} {'evals':>5} {'wall':>6}"
    ]
    for row in rows:
        if row["measured_ms"] is None or row["accuracy"] is None or row["control_accuracy"] is None:
            lines.append(f"{row['name']:6} {row['ratio']:6.0%} {row['state']} {row['verdict']} {row['failure']}")
            continue
        error = row["prediction_error"]
        lines.append(
            f"{row['name']:6} {row['ratio']:6.0%} {row['verdict']:>7} {row['original_ms']:6.3f} ms "
            f"{row['measured_ms']:6.3f} ms {row['measured_ms'] / row['original_ms']:6.1%} "
            f"{row['predicted_ms']:6.3f} ms {error:+6.1%} {row['control_accuracy']:8.2%} {row['accuracy']:8.2%} "
            f"{row['accuracy_drop']['mean']:6.2%} {row['test_accuracy']:7.2%} {row['evaluations']:5d} "
            f"{row['wall_s']:4.0f} s"
        )
    return "\n".join(lines)


def _client(url: str, data_dir: Path) -> Client:
    return Client(url, (data_dir / "user-token").read_text().strip())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="*", choices=[[], *WANTED], help="jobs to run; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", type=Path, help="data folder to keep; default: a temporary one")
    chosen = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="netlathe-bench-") as folder:
        data_dir = chosen.data_dir or Path(folder) / "data"
        data_dir.mkdir(parents=True, exist_ok=True)
        with embedded_server(data_dir, data_dir / "server.log") as url, _client(url, data_dir) as client:
            on = device(client)
            for name in chosen.jobs or WANTED:
                print(f"{name} on {on}", file=sys.stderr, flush=True)
                row = run(client, name, on, chosen.seed)
                rows.append(row)
                with RESULTS.open("a") as out:
                    out.write(json.dumps({**row, "good": good(row), **stamp()}) + "\n")
                print(table([row]), file=sys.stderr, flush=True)
    print(table(rows))
    return 0 if all(good(row) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

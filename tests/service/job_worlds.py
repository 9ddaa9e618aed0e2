"""Runs that tests put in the place of workers.job.run: as resumable as the real one, and quick."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from patience import PATIENCE_S

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from workers.plan import JobPlan
from workers.ports import Outcome, Ports, Recorded, Signal
from workers.progress import Asked, Checkpointed, Evaluated, Logged, Made, Phased, Summarised

EVALUATIONS = 20


def candidate(number: int) -> Candidate:
    return Candidate(f"c{number}", {"width": number}, origin="random")


def search(plan: JobPlan, ports: Ports, pause_s: float = 0.0) -> Outcome:
    """Ask, "evaluate" and record EVALUATIONS candidates; each evaluation leaves a line in a file."""
    recorded: Recorded = ports.recorded()
    done = {each.evaluation.candidate.id for each in recorded.evaluations}
    asked = {each.candidate.id for each in recorded.asks}
    for number in range(EVALUATIONS):
        wanted: Signal = ports.signal()
        if wanted != "continue":
            return Outcome("paused" if wanted == "pause" else "cancelled", None, "")
        made = candidate(number)
        if made.id in done:
            continue
        if made.id not in asked:
            ports.emit(Asked("random", made))
        with (ports.work_dir.parent / f"{plan.job_id}.ran").open("a") as ran:
            ran.write(f"{made.id} {os.getpid()}\n")
        time.sleep(pause_s)
        metrics = {"accuracy": 0.9 - number / 100, "macs": 1000.0 - 10 * number}
        evaluation = Evaluation(made, Status.COMPLETED, metrics, pause_s)
        ports.emit(
            Evaluated("random", evaluation, feasible=True), Phased("search", number + 1, EVALUATIONS, 1.0, pause_s)
        )
    return Outcome("finished", "met", "It fits.")


def package(plan: JobPlan, ports: Ports) -> Outcome:
    """One evaluation, a summary, a log line, a checkpoint and a file."""
    evaluation = Evaluation(candidate(0), Status.COMPLETED, {"accuracy": 0.9, "macs": 10.0})
    checkpoint, report = ports.work_dir / "state.json", ports.work_dir / "report.json"
    checkpoint.write_text("{}")
    report.write_text('{"verdict": "met"}')
    ports.emit(Asked("random", candidate(0)), Evaluated("random", evaluation, feasible=True))
    ports.emit(
        Logged("info", "Done with <b>everything</b>."),
        Checkpointed("state", checkpoint),
        Summarised("best", {"evaluation_id": "c0", "strategy": "random", "accuracy": 0.9, "macs": 10}),
        Made("report_json", "report.json", report),
        Phased("package", 1, 1),
    )
    return Outcome("finished", "missed", "")


def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds. Fails after PATIENCE_S."""
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, "waited for too long"
        time.sleep(0.02)


def lines(path: Path) -> list[str]:
    """The lines of a file, none where it is not there yet."""
    return path.read_text().splitlines() if path.exists() else []

"""Rank correlation of F1, F2 and F3 with trained accuracy: `python benchmarks/proxy.py`.

CANDIDATES random candidates of ResNet-20 on CIFAR-10 (prune + int8), estimated to take at most 35 % of the original's
latency by a measured table. F1 is the summed layer loss from the statistics, F2 and F3 are what workers compute. A
candidate is trained by the final recipe of `search_race.py`, and the better of its forms on validation is tested: F4
is that form's accuracy on the test images that took no part in the choice, so that it shares no images with F2 and F3.

There is one row for each candidate and fidelity; existing rows are not computed again. `--quick` takes few candidates
of a small network on digits and a simulated device, whose rows go to `--work`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from racing.arena import DEVICE, Arena, Contest
from racing.digits_start import digits
from racing.entrants import INT8, PRUNE
from racing.final_training import forms, test_fields, unpacked
from racing.rows import Rows
from racing.start import cifar
from scipy.stats import kendalltau

from search import strategies
from search.candidate import Candidate
from search.metrics import latency_metric
from search.problem import Problem
from search.space.settings import check_settings
from workers.evaluating.evaluator import CutEvaluator

RESULTS = Path(__file__).parent / "results" / "proxy.jsonl"
WORK = Path(__file__).parents[1] / "build" / "proxy"
METHODS = (PRUNE, INT8)
FIDELITIES = ("F1", "F2", "F3")
TRAINED = "F4"
CANDIDATES, RATIO, SEED = 15, 0.35, 0
QUICK_CANDIDATES, QUICK_RATIO = 3, 0.85
MIN_TAU = 0.5
"""Goal for F2: below this, F2 is mended before anything is searched."""
DRAWS = 2_000


@dataclass(frozen=True)
class Correlation:
    """Kendall's tau with its 95 % bootstrap interval over candidates."""

    tau: float
    low: float
    high: float
    count: int


def correlation(rows: Sequence[Mapping[str, Any]], fidelity: str) -> Correlation:
    """Return the correlation of a fidelity's scores with the trained accuracies, over candidates that have both."""
    by = {(row["candidate"], row["fidelity"]): row["score"] for row in rows}
    names = sorted({name for name, kind in by if kind == TRAINED and (name, fidelity) in by})
    pairs = np.array([(by[name, fidelity], by[name, TRAINED]) for name in names])
    rng = np.random.default_rng(0)
    drawn = [kendalltau(*pairs[rng.integers(len(pairs), size=len(pairs))].T).statistic for _ in range(DRAWS)]
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return Correlation(float(kendalltau(*pairs.T).statistic), float(low), float(high), len(pairs))


def drawn(problem: Problem, count: int) -> list[Candidate]:
    """Return random candidates within the limit, as estimated."""
    family = strategies.load("random")
    found = family.make(problem, check_settings(family.settings, {}), SEED).ask(count)
    if len(found) < count:
        raise SystemExit(f"only {len(found)} of {count} random candidates are within the limit")
    return found


def rank(arena: Arena, rows: Rows, count: int) -> None:
    """Add the rows of F1 for all candidates, which also keep their values."""
    if rows.find("candidate", fidelity="F1", candidate=count - 1) is not None:
        return
    with arena.searching() as (_, make):
        problem = make(arena.found)
        for number, candidate in enumerate(drawn(problem, count)):
            begun_s = time.perf_counter()
            score = -float(problem.proxy([candidate.values])[0])
            spent_s = time.perf_counter() - begun_s
            predicted_ms = float(problem.estimate([candidate.values])[latency_metric(DEVICE)][0])
            share = predicted_ms / arena.found.original[latency_metric(DEVICE)]
            if rows.find("candidate", fidelity="F1", candidate=number) is None:
                values = candidate.to_json()["values"]
                rows.add(
                    "candidate",
                    candidate=number,
                    fidelity="F1",
                    score=score,
                    seconds=spent_s,
                    values=values,
                    predicted=share,
                )


def evaluated(arena: Arena, candidate: int, values: Mapping[str, Any], fidelity: str) -> Mapping[str, Any]:
    """Return the score of a candidate at F2 or F3."""
    evaluator = CutEvaluator(arena.material, len(arena.material.ranking[1]))
    done = evaluator(Candidate(f"proxy-{candidate}", values, fidelity=fidelity))  # type: ignore[arg-type]  # F2 or F3
    return {"score": done.metrics[arena.run.context.plan.metric]}


def trained(arena: Arena, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Train a candidate by the final recipe; return its accuracy on the unseen test images, and on validation."""
    best = max(forms(arena, {"methods": METHODS, "values": values}), key=lambda form: form.score)
    tested = test_fields(arena, best.model)
    unseen = unpacked(tested["right"], tested["images"])[arena.start.unseen :]
    return {"score": float(unseen.mean()), "images": len(unseen), "validation": best.score, "epoch": best.epoch}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, help=f"number of candidates, {CANDIDATES} if not given")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of files that are not committed")
    parser.add_argument("--quick", action="store_true", help="few candidates on digits and a simulated device")
    given = parser.parse_args(arguments)
    count = given.candidates or (QUICK_CANDIDATES if given.quick else CANDIDATES)
    start = digits() if given.quick else cifar()
    rows = Rows(given.work / RESULTS.name if given.quick else RESULTS)
    contest = Contest("proxy", METHODS, QUICK_RATIO if given.quick else RATIO, count)
    arena = Arena.open(start, contest, SEED, ["random"], given.work)
    rank(arena, rows, count)
    for number in range(count):
        complete(arena, rows, number)
    for fidelity in FIDELITIES:
        print(fidelity, correlation(list(rows), fidelity))


def complete(arena: Arena, rows: Rows, number: int) -> None:
    """Add a candidate's missing rows."""
    first = rows.find("candidate", fidelity="F1", candidate=number)
    assert first is not None
    values = first["values"]
    makers: dict[str, Callable[[], Mapping[str, Any]]] = {
        "F2": lambda: evaluated(arena, number, values, "F2"),
        "F3": lambda: evaluated(arena, number, values, "F3"),
        TRAINED: lambda: trained(arena, values),
    }
    for fidelity, make in makers.items():
        if rows.find("candidate", fidelity=fidelity, candidate=number) is None:
            begun_s = time.perf_counter()
            made = make()
            spent_s = time.perf_counter() - begun_s
            row = rows.add("candidate", candidate=number, fidelity=fidelity, seconds=spent_s, **made)
            print(f"candidate {number}, {fidelity}: {row['score']:.4f} in {spent_s:.1f} s", flush=True)


if __name__ == "__main__":
    main()

"""Time to predict 1,000 candidates from a full table: `python benchmarks/predict_candidates.py`.

The problem has 12 knobs with 32 levels each and 40 terms, most of them over two knobs and some over three, like the
problem of a residual network. With `--table FILE` (written by `netlathe table`, or left by predictor_accuracy.py in its
--work folder), a real problem is timed too: the filter-pruned ResNet-20, with a row measured on a device for every
kernel. The figures are the times for level arrays (as greedy steps and knapsacks use them), for candidates as values,
and for `estimate` (all metrics: latency, MACs, parameters, bytes), each the median of nine. The goal is at most
GOAL_MS.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from stamp import stamp

from search.space import Choice, Space
from search.terms import Term, Terms

KNOBS, LEVELS, TERMS, CANDIDATES, REPEATS = 12, 32, 40, 1000, 9
RESULTS = Path(__file__).parent / "results" / "predict_candidates.jsonl"
GOAL_MS = 20.0


def make_terms(space: Space, rng: np.random.Generator) -> Terms:
    terms = []
    for number in range(TERMS):
        chosen = rng.choice(KNOBS, size=3 if number % 4 == 0 else 2, replace=False)
        terms.append(Term(tuple(space.names[i] for i in chosen), rng.random([LEVELS] * len(chosen))))
    return Terms(space.names, 0.1, 1.0, tuple(terms), fixed_ms=0.2)


def median_ms(call: Callable[[], object]) -> float:
    call()  # warm-up: the tables are merged once
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        taken.append(1e3 * (time.perf_counter() - start))
    return median(taken)


def timed_figures(space: Space, terms: Terms, rng: np.random.Generator) -> dict[str, Any]:
    """Return the milliseconds that predicting CANDIDATES of the space takes."""
    candidates = [space.sample(rng) for _ in range(CANDIDATES)]
    levels = space.levels_of(candidates)
    return {
        "candidates": CANDIDATES,
        "knobs": len(space.knobs),
        "terms": len(terms.terms),
        "from_levels_ms": round(median_ms(lambda: terms.latency_ms(levels)), 3),
        "from_values_ms": round(median_ms(lambda: terms.latency_ms(space.levels_of(candidates))), 3),
    }


def synthetic(rng: np.random.Generator) -> dict[str, Any]:
    """Time predictions for a problem as large as any that is expected."""
    widths = tuple(8 * (i + 1) for i in range(LEVELS))
    space = Space(tuple(Choice(f"knob{i}", widths, ordered=True) for i in range(KNOBS)))
    return {"problem": "synthetic", **timed_figures(space, make_terms(space, rng), rng)}


def real(path: Path, rng: np.random.Generator) -> dict[str, Any]:
    """Time the filter-pruned ResNet-20 with a table in which every kernel was measured."""
    from resnet20 import builder

    from hw_profiles.tables.table import LatencyTable
    from search.problem import Objective
    from workers.problem.builder import Device, Wanted

    table = LatencyTable.from_json(json.loads(path.read_text()))
    made = builder(["filter_prune"], table.classes)
    device = Device("dev_1", table, (table.calibration,))
    ops = made.ops(table.device.runtime)
    missing = sum(entry.source != "measured" for entry in table.entries(ops))
    problem = made.problem([device], Wanted((Objective("accuracy", "max"),), (), {}, "", 60, {}))
    candidates = [problem.space.sample(rng) for _ in range(CANDIDATES)]
    return {
        "problem": "resnet20",
        "rows": len(ops),
        "not_measured": missing,
        **timed_figures(problem.space, made.latency(device), rng),
        "estimate_all_metrics_ms": round(median_ms(lambda: problem.estimate(candidates)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, help="a latency table as JSON")
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = [synthetic(rng), *([real(chosen.table, rng)] if chosen.table else [])]
    facts = {"goal_ms": GOAL_MS, "python": platform.python_version(), "numpy": np.__version__, **stamp()}
    with RESULTS.open("w") as out:
        for row in rows:
            print(json.dumps({**row, **facts}))
            out.write(json.dumps({**row, **facts}) + "\n")


if __name__ == "__main__":
    main()

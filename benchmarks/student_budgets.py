"""Time to find the students for 20 latency budgets from one table: `python benchmarks/student_budgets.py`.

The problems are like a ResNet-20: three streams, nine inner widths with 16 levels each, and the precision. In `stairs`,
channels are padded to tiles of 4, as on many devices. In `smooth`, every width takes another time and tables are noisy,
so that no width can be left out. With `--table FILE` (written by `netlathe table`), the filter-pruned ResNet-20 on a
measured device is added. The budgets lie between a quarter and four fifths of the original's latency. The seconds are
those of one processor, the median of five; the goal is at most GOAL_S. `gap` bounds the loss by which the students may
miss the best, as a share of the loss of the student with the middle budget; 0 means that all are exact.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stamp import stamp

from search.elimination.front import front
from search.terms import Term, Terms

Losses = Mapping[str, NDArray[np.float64]]
BUDGETS, LEVELS, STREAMS, BLOCKS, REPEATS = 20, 16, 3, 3, 5
TILE, NOISE = 4, 0.05
RESULTS = Path(__file__).parent / "results" / "student_budgets.jsonl"
GOAL_S = 2.0


def layers() -> Iterator[tuple[str, ...]]:
    """Yield the knobs of each layer; the stem and the head have one."""
    yield ("stream0",)
    for number in range(STREAMS * BLOCKS):
        stream = number // BLOCKS
        source = max(stream - (number % BLOCKS == 0), 0)
        yield f"stream{source}", f"inner{number}"
        yield f"inner{number}", f"stream{stream}"
    yield from ((f"stream{i}", f"stream{i + 1}") for i in range(STREAMS - 1))
    yield (f"stream{STREAMS - 1}",)


def made(stairs: bool) -> tuple[Terms, Losses]:
    """Return a problem's terms and losses."""
    rng = np.random.default_rng(0)
    widths = np.arange(1.0, LEVELS + 1)
    used = np.ceil(widths / TILE) * TILE if stairs else widths
    names = tuple(dict.fromkeys(name for knobs in layers() for name in knobs))
    terms = []
    for knobs in layers():
        grid = np.prod(np.meshgrid(*[used / LEVELS] * len(knobs), indexing="ij"), axis=0)
        noise = 1.0 if stairs else 1.0 + NOISE * rng.random(grid.shape)
        terms.append(Term((*knobs, "precision"), (grid * noise + 0.05)[..., None] * np.array([1.0, 0.6])))
    losses = {name: rng.lognormal(-1.0, 1.0) * (1.0 - widths / LEVELS) ** rng.uniform(1.0, 3.0) for name in names}
    return Terms((*names, "precision"), 0.1, 1.0, tuple(terms)), {**losses, "precision": np.array([0.0, 0.02])}


def real(path: Path) -> tuple[Terms, Losses]:
    """Return the terms of the filter-pruned ResNet-20, and losses of the usual shape."""
    from resnet20 import builder

    from hw_profiles.tables.table import LatencyTable
    from workers.problem.builder import Device

    table = LatencyTable.from_json(json.loads(path.read_text()))
    problem = builder(["filter_prune"], table.classes)
    terms = problem.latency(Device("dev_1", table, (table.calibration,)))
    rng = np.random.default_rng(0)
    levels = {knob.name: np.linspace(1.0, 0.0, knob.level_count) for knob in problem.space.levelled}
    return terms, {name: rng.lognormal(-1.0, 1.0) * cut**1.5 for name, cut in levels.items()}


def timed(problem: str, terms: Terms, losses: Losses) -> dict[str, Any]:
    """Return one row: the processor seconds for all budgets, and the gap."""
    whole = np.array([[int(np.argmin(losses[name])) for name in terms.knobs]])
    budgets_ms = [float(b) for b in terms.latency_ms(whole)[0] * np.linspace(0.25, 0.8, BUDGETS)]
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        found = front(terms, losses, budgets_ms)
        taken.append(time.process_time() - start)
    assert found is not None, "the tables are too wide to be joined"
    at = [found.at(budget_ms) for budget_ms in budgets_ms]
    middle = at[BUDGETS // 2]
    assert middle is not None, "the middle budget is below the fastest network"
    return {
        "problem": problem,
        "knobs": len(terms.knobs),
        "budgets": BUDGETS,
        "met": sum(index is not None for index in at),
        "processor_s": round(median(taken), 3),
        "gap": round(found.gap / float(found.loss[middle]), 6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, help="a latency table as JSON")
    chosen = parser.parse_args()
    rows = [timed("stairs", *made(True)), timed("smooth", *made(False))]
    rows += [timed("resnet20", *real(chosen.table))] if chosen.table else []
    facts = {"goal_s": GOAL_S, "python": platform.python_version(), "numpy": np.__version__, **stamp()}
    with RESULTS.open("w") as out:
        for row in rows:
            print(json.dumps({**row, **facts}))
            out.write(json.dumps({**row, **facts}) + "\n")


if __name__ == "__main__":
    main()

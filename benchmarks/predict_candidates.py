"""How long 1,000 candidates take to predict from a full table: `python benchmarks/predict_candidates.py`.

A problem of 12 knobs with 32 levels each and 40 terms, most of two knobs and some of three, as the blocks of a
residual network give them. Two figures: level arrays (what greedy steps and knapsacks use), and candidates as
values (what strategies ask `estimate` for). Goal: at most 20 ms.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from search.space import Choice, Space
from search.terms import Term, Terms

KNOBS, LEVELS, TERMS, CANDIDATES, REPEATS = 12, 32, 40, 1000, 51


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


def main() -> None:
    rng = np.random.default_rng(0)
    widths = tuple(8 * (i + 1) for i in range(LEVELS))
    space = Space(tuple(Choice(f"knob{i}", widths, ordered=True) for i in range(KNOBS)))
    terms = make_terms(space, rng)
    candidates = [space.sample(rng) for _ in range(CANDIDATES)]
    levels = space.levels_of(candidates)
    figures = {
        "candidates": CANDIDATES,
        "knobs": KNOBS,
        "terms": TERMS,
        "from_levels_ms": round(median_ms(lambda: terms.latency_ms(levels)), 3),
        "from_values_ms": round(median_ms(lambda: terms.latency_ms(space.levels_of(candidates))), 3),
        "goal_ms": 20.0,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""Accuracy of `bayesian` in finding where accuracy crosses a level: `python benchmarks/sparsity_inference.py`.

The curves are known and fall like a sigmoid, as the accuracy of trained networks does along Condensa's single sparsity.
Each sample adds a normal error of 0.3 points, and the level is two points below the dense accuracy. The strategy's
answer is the sparsest sample that reached the level, which a job would keep. `bisection` gets the same curves and
errors of the same size. The goals over SEEDS seeds are a median error of at most MAX_ERROR with at most MAX_SAMPLES
samples, and a median error no larger than the median error of `bisection`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stamp import stamp

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from search.problem import Objective, Problem
from search.space import Choice, Float, Knob, Space
from search.strategies import load

NOISE = 0.003
DROP = 0.02
"""Condensa's tolerance: two points."""
WIDTH = 1000
SEEDS = 20
MAX_ERROR, MAX_SAMPLES = 0.01, 10
RESULTS = Path(__file__).parent / "results" / "sparsity_inference.jsonl"


@dataclass(frozen=True)
class Collapse:
    """Accuracy as a function of the sparsity s. It falls from `top` to `chance` over about four times `scale`, and is
    halfway down at `center`.
    """

    center: float
    scale: float
    top: float = 0.93
    chance: float = 0.1

    def accuracy(self, s: float) -> float:
        """Return the accuracy at s without noise."""
        return self.chance + (self.top - self.chance) / (1.0 + math.exp((s - self.center) / self.scale))

    @property
    def level(self) -> float:
        """The lowest accepted accuracy."""
        return self.accuracy(0.0) - DROP

    @property
    def crossing(self) -> float:
        """The sparsity at which accuracy is at the level."""
        share = (self.level - self.chance) / (self.top - self.chance)
        return self.center + self.scale * math.log(1.0 / share - 1.0)


@dataclass(frozen=True, eq=False)
class Trial:
    """One curve, over filters (`units`) or single weights, with the errors of its samples."""

    kind: str
    seed: int

    @property
    def curve(self) -> Collapse:
        """The curve drawn from the seed. Without filters, accuracy falls early and slowly; without weights, late and
        suddenly.
        """
        rng = np.random.default_rng([self.seed, 1])
        if self.kind == "units":
            return Collapse(rng.uniform(0.4, 0.9), rng.uniform(0.02, 0.06))
        return Collapse(rng.uniform(0.9, 0.98), rng.uniform(0.005, 0.02))

    @property
    def problem(self) -> Problem:
        """The problem of finding the greatest sparsity that the level allows."""
        knob: Knob = (
            Choice("block", tuple(range(1, WIDTH + 1)), ordered=True)
            if self.kind == "units"
            else Float("weight_prune", 0.005, 1.0)
        )
        return Problem(
            space=Space((knob,)),
            objectives=(Objective("size_bytes", "min"),),
            constraints=(),
            estimate=lambda batch: {"size_bytes": np.array([1e6 * (1.0 - self.sparsity(v)) for v in batch])},
            statistics={"importance": {"block": np.random.default_rng([self.seed, 2]).uniform(size=WIDTH)}},
            original={"accuracy": self.curve.accuracy(0.0), "size_bytes": 1e6},
            level=self.curve.level,
        )

    def sparsity(self, values: Mapping[str, object]) -> float:
        """Return the share of filters or weights that these values leave out."""
        (value,) = values.values()
        assert isinstance(value, int | float)
        return 1.0 - value / WIDTH if self.kind == "units" else 1.0 - value

    def found(self, strategy: str) -> tuple[float, int]:
        """Return the sparsest sample at or above the level, and the number of samples taken."""
        family = load(strategy)
        searching = family.make(self.problem, family.settings(), self.seed)
        rng = np.random.default_rng([self.seed, 3])
        done: list[tuple[float, float]] = []
        while asked := searching.ask(1):
            s = self.sparsity(asked[0].values)
            accuracy = self.curve.accuracy(s) + NOISE * rng.standard_normal()
            done.append((s, accuracy))
            searching.tell([_evaluation(asked[0], accuracy, 1.0 - s)], [])
        reached = [s for s, accuracy in done if accuracy >= self.curve.level]
        return max(reached, default=0.0), len(done)


def _evaluation(candidate: Candidate, accuracy: float, density: float) -> Evaluation:
    return Evaluation(candidate, Status.COMPLETED, {"accuracy": accuracy, "size_bytes": 1e6 * density})


def errors(strategy: str, kind: str, seeds: int) -> tuple[list[float], list[int]]:
    """Return, per seed, |found - true| and the number of samples taken."""
    trials = [Trial(kind, seed) for seed in range(seeds)]
    found = [trial.found(strategy) for trial in trials]
    return [abs(s - t.curve.crossing) for (s, _), t in zip(found, trials, strict=True)], [n for _, n in found]


def row(strategy: str, kind: str, seeds: int) -> dict[str, Any]:
    """Return the published row of one strategy on one kind of curve."""
    wrong, taken = errors(strategy, kind, seeds)
    return {
        "kind": kind,
        **stamp(),
        "strategy": strategy,
        "seeds": seeds,
        "noise": NOISE,
        "drop": DROP,
        "median_error": round(float(np.median(wrong)), 5),
        "mean_error": round(float(np.mean(wrong)), 5),
        "largest_error": round(max(wrong), 5),
        "median_samples": float(np.median(taken)),
        "most_samples": max(taken),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=SEEDS)
    seeds = parser.parse_args().seeds
    with RESULTS.open("w") as out:
        for kind in ("units", "weights"):
            for strategy in ("bayesian", "bisection"):
                line = json.dumps(row(strategy, kind, seeds))
                print(line)
                out.write(line + "\n")


if __name__ == "__main__":
    main()

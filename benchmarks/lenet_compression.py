"""LeNets at the sparsity that `bayesian` infers for a loss of 0.3 points: `python benchmarks/lenet_compression.py`.

There is one knob, the density of single weights. Every sample is a full L-C training run from the original's weights.
The level to reach is the original's accuracy on the validation digits less 0.3 points. The report shows the sparsest
sample that reaches this level: its accuracy on the test digits beside the original's, its non-zero weights, and the
bytes of these weights with their indices (`compress.counting.cost.sparse_bytes`), in float32 and float16. The goal for
LeNet-5 is at least MIN_FEWER times fewer weights.

`--sweep` trains at 30 densities, evenly spaced in their logarithm, fits a falling (isotonic) curve to the accuracies on
the validation digits, and prints how far the inferred sparsity is from the point at which the fit crosses the level.
The goal is a distance of at most MAX_APART.

Samples that are already in the results are not trained again; the originals are measured only once.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lenet import NETWORKS, PIXELS, images, network, training
from sklearn.isotonic import IsotonicRegression
from stamp import stamp

from compress.counting.cost import cost
from compress.evidence import Evidence
from compress.network import Network
from compress.scheme import Scheme
from compress.tasks.classification import TASK
from compress.training.lc import Schedule, lc
from compress.training.recipe import Recipe
from search.evaluation import Evaluation, Status
from search.problem import Objective, Problem
from search.space import Space
from search.strategies import load
from workers.evaluating.scores import scores_in_file

RECIPE = Recipe(epochs=16, batch=128, lr=0.07, weight_decay=0.0, alpha=0.0, augment="crop")
DROP = 0.003
MIN_FEWER = {"lenet5": 14.0}
MAX_APART = 0.02
SCHEME = Scheme.of([("weight_prune", {}), ("fp16", {})])
SWEEP = 30
SPARSEST = 0.995
RESULTS = Path(__file__).parent / "results" / "lenet_compression.jsonl"


def problem(name: str) -> Problem:
    """Build the problem of reaching the level on the validation digits with as few non-zero weights as possible."""
    whole = original(name)
    total, knobs = float(whole["nonzeros"]), SCHEME.knobs(network(name), {})
    return Problem(
        space=Space(tuple(knob for knob in knobs if knob.name == "weight_prune")),
        objectives=(Objective("nonzeros", "min"),),
        constraints=(),
        estimate=lambda batch: {"nonzeros": np.array([total * float(each["weight_prune"]) for each in batch])},  # type: ignore[arg-type]  # a Float's value
        original={"accuracy": whole["validation"], "nonzeros": total},
        level=level(whole),
        images=whole["validation_images"],
    )


def level(whole: Mapping[str, Any]) -> float:
    """Return the lowest accuracy on the validation digits that reaches the level."""
    return float(whole["validation"]) - DROP


def original(name: str) -> dict[str, Any]:
    """Return the row of the untouched network; an existing row is read, not made again."""
    for each in known():
        if {"kind": "original", "network": name}.items() <= each.items():
            return each
    whole = network(name)
    scores = {split: scores_in_file(TASK, whole.save(), *images(split)) for split in ("validation", "test")}
    return _kept(
        {
            "kind": "original",
            "network": name,
            "nonzeros": cost(whole).nonzeros,
            "size_bytes": cost(whole).size_bytes,
            **{split: float(seen.mean()) for split, seen in scores.items()},
            "validation_images": len(scores["validation"]),
            "test_images": len(scores["test"]),
        }
    )


def known() -> list[dict[str, Any]]:
    """Return the existing rows."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def sample(name: str, density: float) -> dict[str, Any]:
    """Train once at this density and return the row; an existing row is read, not made again."""
    key = {"network": name, "density": density, "recipe": asdict(RECIPE), "schedule": asdict(Schedule())}
    for each in known():
        if key.items() <= each.items():
            return each
    *_, last = lc(network(name), training(), PIXELS, RECIPE, SCHEME.bind({"weight_prune": density}))
    trained = last.network()
    made = {**key, "nonzeros": cost(trained).nonzeros, **_facts(trained, "fp32")}
    made |= _facts(SCHEME.bind({"weight_prune": density, "fp16": "fp16"}).rewrite(trained, Evidence()), "fp16")
    return _kept(made)


def _kept(made: dict[str, Any]) -> dict[str, Any]:
    made |= stamp()
    with RESULTS.open("a") as out:
        out.write(json.dumps(made) + "\n")
    return made


def _facts(final: Network, form: str) -> dict[str, float]:
    shares = {
        split: float(scores_in_file(TASK, final.save(), *images(split)).mean()) for split in ("validation", "test")
    }
    return {**{f"{split}_{form}": share for split, share in shares.items()}, f"bytes_{form}": cost(final).stored_bytes}


def inferred(name: str) -> dict[str, Any] | None:
    """Return the sparsest sample of the search that is at or above the level, or None."""
    wanted, least = problem(name), level(original(name))
    family = load("bayesian")
    searching = family.make(wanted, family.settings(), 0)
    samples = []
    while asked := searching.ask(1):
        made = sample(name, float(asked[0].values["weight_prune"]))  # type: ignore[arg-type]  # a Float's value
        metrics = {"accuracy": made["validation_fp32"], "nonzeros": float(made["nonzeros"])}
        searching.tell([Evaluation(asked[0], Status.COMPLETED, metrics)], [])
        samples.append(made)
        print(json.dumps({k: v for k, v in made.items() if k not in ("recipe", "schedule")}), flush=True)
    return sparsest(samples, least)


def sparsest(samples: Sequence[dict[str, Any]], least: float) -> dict[str, Any] | None:
    """Return the sample with the fewest non-zero weights among those that reach the level, or None."""
    reached = [each for each in samples if each["validation_fp32"] >= least]
    return min(reached, key=lambda each: int(each["nonzeros"]), default=None)


def fewer(whole: Mapping[str, Any], found: Mapping[str, Any]) -> float:
    """Return the factor by which the number of non-zero weights has shrunk."""
    return float(whole["nonzeros"] / found["nonzeros"])


def sweep_densities() -> list[float]:
    """Return SWEEP densities, from 1 down to the density at the sparsity SPARSEST."""
    return [round(float(each), 6) for each in np.geomspace(1.0, 1.0 - SPARSEST, SWEEP)]


def swept(name: str, processes: int) -> list[dict[str, Any]]:
    """Return the samples of the sweep."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,)) as pool:
        return list(pool.map(sample, [name] * SWEEP, sweep_densities()))


def crossing(rows: Sequence[Mapping[str, Any]], least: float) -> float | None:
    """Return the sparsity at which the isotonic fit of the validation accuracies falls below the level.

    Return None if the fit is never above the level: with this recipe, even the dense LeNet-300-100 loses more accuracy
    than the level allows.
    """
    s = np.array([1.0 - row["density"] for row in rows])
    accuracy = np.array([row["validation_fp32"] for row in rows])
    fitted = IsotonicRegression(increasing=False).fit(s, accuracy).predict(s)
    for (left, above), (right, below) in pairwise(sorted(zip(s.tolist(), fitted.tolist(), strict=True))):
        if above >= least > below:
            return float(left + (right - left) * (above - least) / (above - below))
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("networks", nargs="*", choices=[[], *NETWORKS], help="networks to compress; default: all")
    parser.add_argument("--sweep", action="store_true", help="also find where a sweep of 30 samples crosses the level")
    parser.add_argument("--processes", type=int, default=2, help="number of processes of the sweep")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.networks or NETWORKS:
        whole, found = original(name), inferred(name)
        if found is None:
            print(f"{name}: no sample is within {DROP:.1%} of the original")
            continue
        print(
            f"{name}: sparsity {1 - found['density']:.4f}, {fewer(whole, found):.1f}x fewer non-zeros "
            f"({found['nonzeros']:,} of {whole['nonzeros']:,}); test {whole['test']:.2%} -> {found['test_fp32']:.2%} "
            f"(fp16 {found['test_fp16']:.2%}); bytes {whole['size_bytes']:,} -> {found['bytes_fp32']:,} "
            f"(fp16 {found['bytes_fp16']:,})"
        )
        if given.sweep:
            crosses = crossing(swept(name, given.processes), level(whole))
            apart = (
                "nowhere" if crosses is None else f"at {crosses:.4f}: off by {abs(1 - found['density'] - crosses):.4f}"
            )
            print(f"{name}: the sweep crosses the level {apart}")


if __name__ == "__main__":
    main()

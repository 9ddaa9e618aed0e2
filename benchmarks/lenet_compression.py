"""LeNets at the sparsity that `bayesian` infers for at most 0.3 points: `python benchmarks/lenet_compression.py`.

One knob, the density of single weights; every sample is a whole L-C training from the original's weights, ranked on the
validation digits against the original less 0.3 points. Of the samples that reach that level the sparsest is reported:
its accuracy on the test digits beside the original's, its numbers that are not zero, and the bytes that they take with
their indices (`compress.cost.sparse_bytes`), in float32 and float16. Goal: at least 14 times fewer numbers for LeNet-5.

Samples that are in the results are not trained again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lenet import NETWORKS, PIXELS, images, network, training

from compress.cost import cost
from compress.evidence import Evidence
from compress.lc import Schedule, lc
from compress.network import Network
from compress.recipe import Recipe
from compress.scheme import Scheme
from search.evaluation import Evaluation, Status
from search.problem import Objective, Problem
from search.space import Space
from search.strategies import load
from workers.accuracy import right_in_file

RECIPE = Recipe(epochs=16, batch=128, lr=0.07, weight_decay=0.0, alpha=0.0, augment="crop")
DROP = 0.003
SCHEME = Scheme.of([("weight_prune", {}), ("fp16", {})])
RESULTS = Path(__file__).parent / "results" / "lenet_compression.jsonl"


def problem(name: str) -> Problem:
    """As few numbers as the level on the validation digits lets there be."""
    whole = network(name)
    right = right_in_file(whole.save(), *images("validation"))
    total = cost(whole).nonzeros
    return Problem(
        space=Space(tuple(knob for knob in SCHEME.knobs(whole, {}) if knob.name == "weight_prune")),
        objectives=(Objective("nonzeros", "min"),),
        constraints=(),
        estimate=lambda batch: {"nonzeros": np.array([total * float(each["weight_prune"]) for each in batch])},  # type: ignore[arg-type]  # a Float's value
        original={"accuracy": float(right.mean()), "nonzeros": float(total)},
        level=float(right.mean()) - DROP,
        images=len(right),
    )


def known() -> list[dict[str, Any]]:
    """The samples that are there."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def sample(name: str, density: float) -> dict[str, Any]:
    """One training at this density and what came of it; read where it has been done."""
    key = {"network": name, "density": density, "recipe": asdict(RECIPE), "schedule": asdict(Schedule())}
    for each in known():
        if key.items() <= each.items():
            return each
    *_, last = lc(network(name), training(), PIXELS, RECIPE, SCHEME.bind({"weight_prune": density}))
    trained = last.network()
    made = {**key, "nonzeros": cost(trained).nonzeros, **_facts(trained, "fp32")}
    made |= _facts(SCHEME.bind({"weight_prune": density, "fp16": "fp16"}).rewrite(trained, Evidence()), "fp16")
    with RESULTS.open("a") as out:
        out.write(json.dumps(made) + "\n")
    return made


def _facts(final: Network, form: str) -> dict[str, float]:
    shares = {split: float(right_in_file(final.save(), *images(split)).mean()) for split in ("validation", "test")}
    return {**{f"{split}_{form}": share for split, share in shares.items()}, f"bytes_{form}": cost(final).stored_bytes}


def inferred(name: str) -> dict[str, Any] | None:
    """The sparsest sample of the search that is at or above the level; None where none is."""
    wanted = problem(name)
    family = load("bayesian")
    searching = family.make(wanted, family.settings(), 0)
    reached = []
    while asked := searching.ask(1):
        made = sample(name, float(asked[0].values["weight_prune"]))  # type: ignore[arg-type]  # a Float's value
        metrics = {"accuracy": made["validation_fp32"], "nonzeros": float(made["nonzeros"])}
        searching.tell([Evaluation(asked[0], Status.COMPLETED, metrics)], [])
        assert wanted.level is not None
        if made["validation_fp32"] >= wanted.level:
            reached.append(made)
        print(json.dumps({k: v for k, v in made.items() if k not in ("recipe", "schedule")}), flush=True)
    return min(reached, key=lambda each: int(each["nonzeros"]), default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("networks", nargs="*", choices=[[], *NETWORKS], help="which of them; all where none is named")
    chosen = parser.parse_args().networks or list(NETWORKS)
    torch.set_num_threads(1)
    for name in chosen:
        whole, found = network(name), inferred(name)
        if found is None:
            print(f"{name}: no sample is within {DROP:.1%} of the original")
            continue
        before, test = cost(whole), right_in_file(whole.save(), *images("test")).mean()
        print(
            f"{name}: sparsity {1 - found['density']:.4f}, {before.nonzeros / found['nonzeros']:.1f}x fewer non-zeros "
            f"({found['nonzeros']:,} of {before.nonzeros:,}); test {test:.2%} -> {found['test_fp32']:.2%} "
            f"(fp16 {found['test_fp16']:.2%}); bytes {before.size_bytes:,} -> {found['bytes_fp32']:,} "
            f"(fp16 {found['bytes_fp16']:,})"
        )


if __name__ == "__main__":
    main()

"""L-C against direct compression with fine-tuning at equal epochs: `python benchmarks/lc_against_direct.py`.

LeNet-5 or LeNet-300-100 (`--network`), 10,000 training digits. Both ways get the same recipe, schemes and seeds; a seed
draws the batches of both. `weights` makes single weights zero by one threshold over all layers; `filters` leaves so many
of the filters of each block. There is no distillation. L-C's epochs are split between its L steps and the training of
its last theta. Hyper-parameters were chosen on seed 0 of LeNet-5 and the validation digits, see the rows of kind
`attempt` (most of them from before L steps kept their rate); accuracy is counted on the test digits. The interval is
normal, 95 %, over test digits of their difference, each digit's averaged over the seeds.

Rows that are there are not made again; `--attempt` makes one row with other settings, counted on validation alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lenet import NETWORKS, PIXELS, images, network, training

from compress.cost import cost
from compress.direct import direct
from compress.evidence import Evidence
from compress.fit import Step, fit
from compress.groups import prunable_blocks
from compress.importance import score
from compress.lc import Schedule, lc
from compress.network import Network
from compress.recipe import Recipe
from compress.scheme import BoundScheme, Scheme
from workers.accuracy import right_in_file

RECIPE = Recipe(epochs=16, batch=128, lr=0.07, weight_decay=0.0, alpha=0.0, augment="crop")
SCHEMES: Mapping[str, BoundScheme] = {
    **{
        f"weights {sparsity:.0%}": Scheme.of([("weight_prune", {})]).bind({"weight_prune": round(1 - sparsity, 4)})
        for sparsity in (0.95, 0.98)
    },
    "filters 60%": Scheme.of([("filter_prune", {"importance": "l2", "refit": False})]).bind(
        {"conv1": 8, "conv2": 20, "fc1": 200}
    ),
}
WAYS = ("direct", "lc")
RESULTS = Path(__file__).parent / "results" / "lc_against_direct.jsonl"


def trained(way: str, whole: Network, bound: BoundScheme, recipe: Recipe, schedule: Schedule) -> Network:
    """The network compressed and trained."""
    part = training()
    if bound.steps("structure") and way == "direct":
        return last(fit(without(whole, bound), part, PIXELS, recipe, whole))
    if way == "direct":
        return last(direct(whole, part, PIXELS, recipe, bound, whole))
    theta = last(lc(whole, part, PIXELS, recipe, bound, whole, schedule=schedule))
    return without(theta, bound) if bound.steps("structure") else theta


def without(whole: Network, bound: BoundScheme) -> Network:
    """Without the units of the smallest filters: in a theta those that are zero."""
    return bound.rewrite(whole, Evidence(importance=score(whole, prunable_blocks(whole), "l2")))


def last(steps: Iterator[Step]) -> Network:
    *_, step = steps
    return step.network()


def row(way: str, start: str, name: str, recipe: Recipe, schedule: Schedule, splits: Sequence[str]) -> dict[str, Any]:
    """One training and what came of it, `wrong` being the digits of the last split that it gets wrong."""
    begun_s = time.process_time()
    final = trained(way, network(start), SCHEMES[name], recipe, schedule)
    spent_s = time.process_time() - begun_s
    right = {split: right_in_file(final.save(), *images(split)) for split in splits}
    return {
        "way": way,
        "network": start,
        "scheme": name,
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        **{split: round(float(seen.mean()), 5) for split, seen in right.items()},
        "nonzeros": cost(final).nonzeros,
        "stored_bytes": cost(final).stored_bytes,
        "processor_s": round(spent_s, 1),
        "recipe": asdict(recipe),
        "schedule": asdict(schedule) if way == "lc" else None,
        "wrong": np.flatnonzero(~right[splits[-1]]).tolist(),
    }


def known() -> list[dict[str, Any]]:
    """The rows that are there."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def keep(kind: str, made: Mapping[str, Any]) -> None:
    with RESULTS.open("a") as out:
        out.write(json.dumps({"kind": kind, **made}) + "\n")
    shown = {key: value for key, value in made.items() if key not in ("wrong", "recipe")}
    print(json.dumps(shown), flush=True)


def found(way: str, start: str, name: str, seed: int, epochs: int) -> dict[str, Any]:
    """The row of this run, made where it is not there."""
    recipe = replace(RECIPE, seed=seed, epochs=epochs)
    schedule = asdict(Schedule()) if way == "lc" else None
    wanted = {
        "kind": "run",
        "way": way,
        "network": start,
        "scheme": name,
        "recipe": asdict(recipe),
        "schedule": schedule,
    }
    for each in known():
        if wanted.items() <= each.items():
            return each
    made = row(way, start, name, recipe, Schedule(), ["validation", "test"])
    keep("run", made)
    return made


def compared(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """One line of the table: both accuracies, and by how much L-C is ahead on the same digits."""
    digits = np.arange(len(images("test")[1]))
    own = [each for each in rows if each["scheme"] == name]
    right = {way: np.array([~np.isin(digits, e["wrong"]) for e in own if e["way"] == way]) for way in WAYS}
    shown = "  ".join(f"{way} {100 * each.mean():.2f} %" for way, each in right.items())
    ahead = right["lc"].mean(axis=0) - right["direct"].mean(axis=0)
    half = 1.96 * ahead.std(ddof=1) / len(ahead) ** 0.5
    mean, low, high = (100 * each for each in (ahead.mean(), ahead.mean() - half, ahead.mean() + half))
    seeds = ", ".join(f"{100 * each:+.2f}" for each in right["lc"].mean(axis=1) - right["direct"].mean(axis=1))
    return f"{name:12} {shown}  lc ahead by {mean:+.2f} [{low:+.2f}, {high:+.2f}] points; by seed {seeds}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attempt", choices=WAYS, help="one training on seed 0, counted on validation")
    parser.add_argument("--network", choices=NETWORKS, default="lenet5")
    parser.add_argument("--scheme", choices=SCHEMES, default="weights 98%")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of recipe or schedule")
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs, help="of both ways")
    parser.add_argument("--seeds", type=int, default=3, help="as many of each way")
    parser.add_argument("--only", action="append", choices=SCHEMES, help="compare these schemes alone")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.attempt:
        given = {name: json.loads(value) for name, value in (each.split("=") for each in chosen.set)}
        recipe = replace(RECIPE, **{name: value for name, value in given.items() if name in asdict(RECIPE)})
        schedule = replace(Schedule(), **{n: value for n, value in given.items() if n not in asdict(RECIPE)})
        keep("attempt", row(chosen.attempt, chosen.network, chosen.scheme, recipe, schedule, ["validation"]))
        return
    names = chosen.only or [name for name in SCHEMES if chosen.network == "lenet5" or name.startswith("weights")]
    rows = [
        found(way, chosen.network, name, seed, chosen.epochs)
        for seed in range(chosen.seeds)
        for name in names
        for way in WAYS
    ]
    for name in names:
        print(compared(name, rows))


if __name__ == "__main__":
    main()

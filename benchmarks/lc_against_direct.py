"""L-C against direct compression with fine-tuning at equal epochs: `python benchmarks/lc_against_direct.py`.

The network is LeNet-5, LeNet-300-100 or ResNet-20 with its norms (`--network`), and there are 10,000 training images.
Both ways get the same recipe, schemes and seeds; the same seed draws the batches of both ways. `weights` sets single
weights to zero by one threshold over all layers (LAMP); `filters` keeps a given number of filters in each block of
LeNet-5. There is no distillation. L-C's epochs are split between its L steps and the training of its last theta.

Accuracy is measured on the test images. The difference has two 95 % intervals. The interval over seeds (Student's t)
shows whether the difference would appear in other training runs, on these images; the interval over images (normal,
averaged over the seeds) shows whether the difference would appear on other images. The hyper-parameters are the
defaults of L-C's schedule, which were tuned on seed 0 of LeNet-5, and more seeds were added if the first was
inconclusive. So only the seeds from UNSEEN on are a fair test: they were trained in one go, and no result was looked at
in between. `--first-seed` shows only the seeds from a given one on. There is no goal, because this is a comparison.

Existing rows are not computed again. `--attempt` makes one row with other settings, whose accuracy is measured only on
validation.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import lenet
import numpy as np
import resnet20
import torch
from numpy.typing import NDArray
from scipy.stats import t
from stamp import stamp

from compress.counting.cost import cost
from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing
from compress.evidence import Evidence
from compress.graph.groups import prunable_blocks
from compress.network import Network
from compress.pruning.importance import score
from compress.scheme import BoundScheme, Scheme
from compress.tasks.classification import TASK
from compress.training.direct import direct
from compress.training.fit import Step, fit
from compress.training.lc import Schedule, lc
from compress.training.recipe import Recipe
from workers.evaluating.scores import scores_in_file

RECIPE = Recipe(epochs=16, batch=128, lr=0.07, weight_decay=0.0, alpha=0.0, augment="crop")


@dataclass(frozen=True)
class Start:
    """A trained network, the data for training it further, and a function from a split to preprocessed test images and
    labels.
    """

    network: Callable[[], Network]
    training: Callable[[], Part]
    images: Callable[[str], tuple[NDArray[np.float32], NDArray[np.int64]]]
    pixels: Preprocessing = lenet.PIXELS
    recipe: Recipe = RECIPE


@cache
def cifar() -> Part:
    """The first 10,000 training images of CIFAR-10."""
    with tempfile.TemporaryDirectory(prefix="netlathe-bench-") as folder:
        part = resnet20.dataset(Path(folder)).train
        return part.take(np.arange(len(part)))


STARTS: Mapping[str, Start] = {
    **{name: Start(partial(lenet.network, name), lenet.training, lenet.images) for name in lenet.NETWORKS},
    "resnet20": Start(
        resnet20.with_norms,
        cifar,
        resnet20.official,
        Preprocessing.from_json(resnet20.PREPROCESSING),
        replace(RECIPE, epochs=8, lr=0.05, weight_decay=5e-4, augment="crop_flip"),
    ),
}
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
UNSEEN: Mapping[tuple[str, str], int] = {("lenet5", "weights 95%"): 12, ("lenet5", "weights 98%"): 3}
"""(network, scheme) -> the first unseen seed. From it on, no result was seen before all were trained."""
TESTED = 8000
"""The test images of each network: rows 2,000-9,999 of the official test images."""
RESULTS = Path(__file__).parent / "results" / "lc_against_direct.jsonl"


def trained(way: str, start: Start, bound: BoundScheme, recipe: Recipe, schedule: Schedule) -> Network:
    """Compress and train the network; return it."""
    whole, part, pixels = start.network(), start.training(), start.pixels
    if bound.steps("structure") and way == "direct":
        return last(fit(without(whole, bound), part, pixels, recipe, whole))
    if way == "direct":
        return last(direct(whole, part, pixels, recipe, bound, whole))
    theta = last(lc(whole, part, pixels, recipe, bound, whole, schedule=schedule))
    return without(theta, bound) if bound.steps("structure") else theta


def without(whole: Network, bound: BoundScheme) -> Network:
    """Return the network without the units that have the smallest filters; in a theta, those filters are zero."""
    return bound.rewrite(whole, Evidence(importance=score(whole, prunable_blocks(whole), "l2")))


def last(steps: Iterator[Step]) -> Network:
    *_, step = steps
    return step.network()


def row(way: str, start: str, name: str, recipe: Recipe, schedule: Schedule, splits: Sequence[str]) -> dict[str, Any]:
    """Train once and return the row; `wrong` lists the images of the last split that are classified wrongly."""
    begun_s = time.process_time()
    final = trained(way, STARTS[start], SCHEMES[name], recipe, schedule)
    spent_s = time.process_time() - begun_s
    scores = {split: scores_in_file(TASK, final.save(), *STARTS[start].images(split)) for split in splits}
    return {
        "way": way,
        "network": start,
        "scheme": name,
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        **{split: round(float(seen.mean()), 5) for split, seen in scores.items()},
        "nonzeros": cost(final).nonzeros,
        "stored_bytes": cost(final).stored_bytes,
        "processor_s": round(spent_s, 1),
        "recipe": asdict(recipe),
        "schedule": asdict(schedule) if way == "lc" else None,
        "wrong": np.flatnonzero(scores[splits[-1]] == 0.0).tolist(),
        **stamp(),
    }


def known() -> list[dict[str, Any]]:
    """Return the existing rows."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def keep(kind: str, made: Mapping[str, Any]) -> None:
    with RESULTS.open("a") as out:
        out.write(json.dumps({"kind": kind, **made}) + "\n")
    shown = {key: value for key, value in made.items() if key not in ("wrong", "recipe")}
    print(json.dumps(shown), flush=True)


def found(way: str, start: str, name: str, seed: int, epochs: int | None) -> dict[str, Any]:
    """Return the row of this run; make it if it does not exist."""
    recipe = replace(STARTS[start].recipe, seed=seed)
    recipe = replace(recipe, epochs=epochs or recipe.epochs)
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


@dataclass(frozen=True)
class Comparison:
    """The accuracy of each way in percent, and L-C's lead over direct compression in points; the test images are the
    same.
    """

    accuracy: Mapping[str, float]
    by_seed: NDArray[np.float64]
    by_image: NDArray[np.float64]

    @property
    def ahead(self) -> float:
        """The mean lead."""
        return float(self.by_seed.mean())

    @property
    def over_seeds(self) -> tuple[float, float]:
        """The interval over seeds; if its ends have the same sign, other training runs would show the difference
        too.
        """
        return _interval(self.by_seed, float(t.ppf(0.975, len(self.by_seed) - 1)))

    @property
    def over_images(self) -> tuple[float, float]:
        """The interval over images; if its ends have the same sign, other images would show the difference too."""
        return _interval(self.by_image, 1.96)


def compared(rows: Sequence[Mapping[str, Any]]) -> Comparison:
    """Compare the runs of both ways with one network, scheme and recipe."""
    images = np.arange(TESTED)
    own = {way: sorted((e for e in rows if e["way"] == way), key=lambda each: int(each["seed"])) for way in WAYS}
    seeds = [[each["seed"] for each in own[way]] for way in WAYS]
    if seeds[0] != seeds[1] or len(set(seeds[0])) < len(seeds[0]):
        raise ValueError(f"each way must run once with each seed: {dict(zip(WAYS, seeds, strict=True))}")
    right = {way: np.array([~np.isin(images, each["wrong"]) for each in found]) for way, found in own.items()}
    by_seed, by_image = (100 * (right["lc"].mean(axis) - right["direct"].mean(axis)) for axis in (1, 0))
    return Comparison({way: float(100 * each.mean()) for way, each in right.items()}, by_seed, by_image)


def line(name: str, found: Comparison) -> str:
    """Return one line of the table."""
    shown = "  ".join(f"{way} {percent:.2f} %" for way, percent in found.accuracy.items())
    return (
        f"{name:12} {shown}  lc ahead by {found.ahead:+.2f} points, over seeds {_shown(found.over_seeds)}, over images "
        f"{_shown(found.over_images)}; in {(found.by_seed > 0).sum()} of {len(found.by_seed)} seeds: "
        f"{', '.join(f'{each:+.2f}' for each in found.by_seed)}"
    )


def _interval(differences: NDArray[np.float64], quantile: float) -> tuple[float, float]:
    half = float(quantile * differences.std(ddof=1) / len(differences) ** 0.5)
    return float(differences.mean()) - half, float(differences.mean()) + half


def _shown(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:+.2f}, {interval[1]:+.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attempt", choices=WAYS, help="do one training run on seed 0 and measure it on validation")
    parser.add_argument("--network", choices=STARTS, default="lenet5")
    parser.add_argument("--scheme", choices=SCHEMES, default="weights 98%")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a field of the recipe or the schedule"
    )
    parser.add_argument("--epochs", type=int, help="number of epochs of both ways; default: the recipe's number")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds of each way, at least 2")
    parser.add_argument("--first-seed", type=int, default=0, help="first seed")
    parser.add_argument("--only", action="append", choices=SCHEMES, help="compare only these schemes")
    chosen = parser.parse_args()
    if chosen.network != "lenet5" and any(name.startswith("filters") for name in (chosen.only or [])):
        parser.error("--only filters ...: these schemes cut the blocks of lenet5 and of no other network")
    if chosen.seeds < 2:
        parser.error(f"--seeds {chosen.seeds}: a single training run of each way gives no interval")
    torch.set_num_threads(1)
    if chosen.attempt:
        given = {name: json.loads(value) for name, value in (each.split("=") for each in chosen.set)}
        recipe = replace(
            STARTS[chosen.network].recipe, **{name: value for name, value in given.items() if name in asdict(RECIPE)}
        )
        schedule = replace(Schedule(), **{n: value for n, value in given.items() if n not in asdict(RECIPE)})
        keep("attempt", row(chosen.attempt, chosen.network, chosen.scheme, recipe, schedule, ["validation"]))
        return
    names = chosen.only or [name for name in SCHEMES if chosen.network == "lenet5" or name.startswith("weights")]
    rows = [
        found(way, chosen.network, name, seed, chosen.epochs)
        for seed in range(chosen.first_seed, chosen.first_seed + chosen.seeds)
        for name in names
        for way in WAYS
    ]
    for name in names:
        print(line(name, compared([each for each in rows if each["scheme"] == name])))


if __name__ == "__main__":
    main()

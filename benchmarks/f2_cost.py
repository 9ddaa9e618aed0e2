"""The cost of F2 compared with a plain evaluation, and how well it ranks: `python benchmarks/f2_cost.py cost`, `rank`.

A plain evaluation cuts the candidate and scores it on 2,000 images. F2 also refits the readers of the cut channels and
re-estimates the batch norms, on NORM_IMAGES images. `cost` times both, and F2 with other numbers of images,
interleaved, in processor seconds of one thread: on ResNet-20, and on MobileNetV2's form for CIFAR with random weights.

`rank` evaluates random candidates of ResNet-20 (prune + int8) in each of these ways. Kendall's tau tells whether fewer
images give another ranking. Existing rows are not computed again.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from f2_overhead import RANKING_IMAGES, Methods, material, widths
from mobilenet import mobilenet
from racing.rows import Rows
from scipy.stats import kendalltau

from compress.graph.groups import prunable_blocks
from compress.importing.normalise import load_network
from search.candidate import Candidate
from workers.evaluating.evaluation_files import Material
from workers.evaluating.evaluator import NORM_IMAGES, CutEvaluator

RESULTS = Path(__file__).parent / "results" / "f2_cost.jsonl"
METHODS: Methods = (("filter_prune", {}), ("int8_ptq", {}))
PLAIN: Methods = (("filter_prune", {"refit": False}), ("int8_ptq", {}))
IMAGES = (128, 256, 1024)
MOST_IMAGES = str(max(IMAGES))
NETWORKS = ("resnet20", "mobilenetv2")
SHARE = 0.5
PRECISIONS = ("fp32", "int8")
ROUNDS = 3
CANDIDATES, KEPT, SEED = 15, (0.3, 0.9), 0
"""Number of random candidates, and the shares of a block's channels that they keep."""
MAX_COST, MIN_TAU = 1.3, 0.95


def evaluators(source: Material) -> dict[str, CutEvaluator]:
    """Return the plain evaluation, and F2 with each number of images for the norms."""
    plain = CutEvaluator(Material(source.folder, PLAIN), RANKING_IMAGES, norm_images=0)
    return {"plain": plain, **{str(n): CutEvaluator(source, RANKING_IMAGES, norm_images=n) for n in IMAGES}}


def timed(source: Material, precision: str) -> dict[str, list[float]]:
    """Return name -> processor seconds of each round, at half of the width."""
    values = {**widths(source.network, SHARE), "int8_ptq": precision}
    ways = evaluators(source)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name in sorted(ways, reverse=bool(number % 2)):
            begun_s = time.process_time()
            ways[name](Candidate(name, values))
            taken[name].append(time.process_time() - begun_s)
    return {name: each[1:] for name, each in taken.items()}


def cost(rows: Rows, folder: Path) -> None:
    """Add the missing rows of kind `cost`."""
    for network in NETWORKS:
        missing = [each for each in PRECISIONS if rows.find("cost", network=network, precision=each) is None]
        if not missing:
            continue
        model = None if network == "resnet20" else load_network(mobilenet().SerializeToString())
        source = material(folder / network, model, METHODS, measured=True)
        for precision in missing:
            passes = source.passes.to_json()
            rows.add("cost", network=network, precision=precision, passes=passes, seconds=timed(source, precision))


def drawn(source: Material) -> list[dict[str, Any]]:
    """Return the values of the random candidates; every block keeps a random share of its channels."""
    rng = np.random.default_rng(SEED)
    blocks = prunable_blocks(source.network)
    shares = rng.uniform(*KEPT, (CANDIDATES, len(blocks)))
    kept = [{b.name: max(1, round(s * b.width)) for b, s in zip(blocks, each, strict=True)} for each in shares.tolist()]
    return [{**each, "int8_ptq": "int8"} for each in kept]


def rank(rows: Rows, folder: Path) -> None:
    """Add the missing rows of kind `rank`."""
    missing = [number for number in range(CANDIDATES) if rows.find("rank", candidate=number) is None]
    if not missing:
        return
    source = material(folder / "rank", None, METHODS, measured=True)
    ways, candidates = evaluators(source), drawn(source)
    for number in missing:
        values = candidates[number]
        scores = {name: way(Candidate(f"c{number}", values)).metrics[source.task.metric] for name, way in ways.items()}
        rows.add("rank", candidate=number, values=values, scores=scores)
        print(f"candidate {number}: {scores}", flush=True)


def tau(rows: Sequence[Mapping[str, Any]], one: str, other: str) -> float:
    """Return Kendall's tau between two ways of scoring the candidates."""
    scores = [row["scores"] for row in rows if row["kind"] == "rank"]
    return float(kendalltau([each[one] for each in scores], [each[other] for each in scores]).statistic)


def ratios(row: Mapping[str, Any], name: str) -> list[float]:
    """Return the processor time of one way as a multiple of the plain evaluation's, round by round."""
    return [own / plain for own, plain in zip(row["seconds"][name], row["seconds"]["plain"], strict=True)]


def show(rows: Rows) -> None:
    """Print all figures side by side."""
    for row in (row for row in rows if row["kind"] == "cost"):
        shown = ", ".join(f"{name} images {median(ratios(row, name)):.2f}" for name in map(str, IMAGES))
        plain_s = median(row["seconds"]["plain"])
        print(f"{row['network']} {row['precision']}: plain {plain_s:.2f} s; as multiples of it: {shown}")
    ranked = [row for row in rows if row["kind"] == "rank"]
    for name in ("plain", *map(str, IMAGES)) if ranked else ():
        print(f"{name}: tau with {MOST_IMAGES} images {tau(ranked, name, MOST_IMAGES):.3f}")
    print(f"F2 takes {NORM_IMAGES} images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=("cost", "rank", "show"))
    given, rows = parser.parse_args(), Rows(RESULTS)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="netlathe-bench-") as folder:
        {"cost": cost, "rank": rank, "show": lambda *_: None}[given.stage](rows, Path(folder))
    show(rows)


if __name__ == "__main__":
    main()

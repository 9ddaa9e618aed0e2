"""Time of a job's statistics on MobileNetV2: `python benchmarks/statistics_time.py`.

The parts of the statistics phase with prune + int8 on MobileNetV2's form for CIFAR, in processor seconds of one thread:
`prepare` makes the network trainable, `gather` computes the methods' evidence and the layer errors, and `look` is one
quick evaluation. `looks` of them give all sensitivities; `places` would be looked at without layer errors. The weights
are random, and the norms have the statistics of the data, as in a trained network. A row is appended.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch
from f2_overhead import RANKING_IMAGES, REFERENCE_IMAGES, Methods
from mobilenet import mobilenet
from racing.rows import Rows
from resnet20 import PREPROCESSING, Images, dataset, images

from compress.data.preprocessing import Preprocessing
from compress.graph.groups import prunable_blocks
from compress.importing.normalise import load_network
from compress.network import Network
from compress.pruning.settle import settled
from compress.scheme import Scheme
from compress.task import Targets
from compress.tasks.classification import TASK
from compress.training.renormalise import renormalise
from compress.training.restate import restated
from search.candidate import Candidate
from search.space import Space
from workers.evaluating.evaluation_files import Material
from workers.evaluating.evaluator import QUICK, EvaluatorFactory
from workers.evaluating.passes import fastest
from workers.problem.layer_errors import layer_errors
from workers.problem.sensitivity import Looks, Place

T = TypeVar("T")
RESULTS = Path(__file__).parent / "results" / "statistics_time.jsonl"
METHODS: Methods = (("filter_prune", {}), ("int8_ptq", {}))
STEP = 8
"""Widths are multiples of this number, as on most devices."""
LOOKS = 5
"""Number of looks that are timed."""
MAX_S = 60.0


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """Return what the call returns, and its processor seconds."""
    begun_s = time.process_time()
    made = call()
    return made, time.process_time() - begun_s


def prepared(network: Network, reference: Images) -> Network:
    """Return the network as the statistics phase makes it trainable."""
    for prepare in (restated, settled, renormalise):
        network = prepare(network, reference)
    return network


def candidate(space: Space, place: Place) -> Candidate:
    """Return the candidate of a look."""
    (knob,) = (each for each in space.levelled if each.name == place[0])
    return Candidate(f"{place}", {**space.whole, knob.name: knob.value(place[1])}, recipe=QUICK)


def measure(rows: Rows, folder: Path) -> None:
    """Append a row."""
    data, scheme = dataset(folder / "decoded"), Scheme.of(METHODS)
    reference, labels = images(data, "train", REFERENCE_IMAGES)
    drawn = restated(load_network(mobilenet().SerializeToString()), reference)
    network, prepare_s = timed(lambda: prepared(drawn, reference))
    evidence, gather_s = timed(lambda: scheme.gather(network, reference, Targets(TASK, labels)))
    passes, passes_s = timed(lambda: fastest(network, reference))
    made, ranking = Material(folder / "material", METHODS), images(data, "validation", RANKING_IMAGES)
    short, preprocessing = data.sample("train", 2, seed=0), Preprocessing.from_json(PREPROCESSING)
    made.write(network, ranking, reference, evidence, short, preprocessing, passes=passes)
    space = Space(scheme.knobs(network, {b.name: range(STEP, b.width + 1, STEP) for b in prunable_blocks(network)}))
    looks, errors_s = timed(lambda: Looks.of(space, layer_errors(space, made)))
    evaluate = EvaluatorFactory(made)()
    evaluate(Candidate("first", space.whole, recipe=QUICK))
    step = len(looks.places) // LOOKS
    look_s = [timed(lambda place=place: evaluate(candidate(space, place)))[1] for place in looks.places[::step]]
    rows.add(
        "phase",
        prepare_s=prepare_s,
        gather_s=gather_s + passes_s + errors_s,
        look_s=look_s,
        looks=1 + len(looks.places),
        places=1 + len(Looks(space, {}).places),
    )


def phase_s(row: Mapping[str, Any]) -> float:
    """Return the processor seconds of the whole phase."""
    return float(row["prepare_s"] + row["gather_s"] + row["looks"] * median(row["look_s"]))


def main() -> None:
    torch.set_num_threads(1)
    rows = Rows(RESULTS)
    with tempfile.TemporaryDirectory(prefix="netlathe-bench-") as folder:
        measure(rows, Path(folder))
    row = list(rows)[-1]
    print(row, f"the phase: {phase_s(row):.1f} s, goal at most {MAX_S:.0f} s", sep="\n")


if __name__ == "__main__":
    main()

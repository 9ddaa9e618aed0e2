"""Overhead of F2 over the forward passes of the cut network: `python benchmarks/f2_overhead.py`.

F2 is what a worker does: bind the values, cut, refit by least squares, re-estimate batch norms, measure the
accuracy on 2,000 images. The bare passes are only the forward passes of the same cut network on the same images in the
same batches: those for the norms in train mode, the 2,000 in eval mode; the module is made beforehand. The figures are
medians of nine interleaved pairs, in processor time and in wall time, with one thread. The goal is an overhead of at
most MAX_OVERHEAD.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from resnet20 import PREPROCESSING, Images, dataset, images, model_path
from stamp import stamp

from compress.data.preprocessing import Preprocessing
from compress.graph.groups import prunable_blocks
from compress.graph.module import TorchNetwork
from compress.graph.rewrites import rewritten
from compress.importing.normalise import load_network
from compress.network import Network
from compress.scheme import Scheme
from compress.task import Targets
from compress.tasks.classification import TASK
from compress.training.renormalise import renormalise
from search.candidate import Candidate
from workers.evaluating.evaluation_files import Material
from workers.evaluating.evaluator import NORM_IMAGES, CutEvaluator
from workers.evaluating.images import BATCH
from workers.evaluating.passes import fastest

PAIRS = 9
REFERENCE_IMAGES, RANKING_IMAGES = 1024, 2000
MAX_OVERHEAD = 0.10
SHARES = {"whole": 1.0, "three quarters": 0.75, "half": 0.5, "quarter": 0.25}
RESULTS = Path(__file__).parent / "results" / "f2_overhead.jsonl"
Seconds = tuple[float, float]
"""Processor and wall seconds."""
Methods = tuple[tuple[str, Mapping[str, Any]], ...]
PRUNE: Methods = (("filter_prune", {}),)


def material(
    folder: Path, network: Network | None = None, methods: Methods = PRUNE, short: int = 2, measured: bool = False
) -> Material:
    """Write the files that the statistics phase of a job writes.

    Args:
        network: the network with its batch norms; if None, ResNet-20.
        short: number of images that F3 trains on.
        measured: True if candidates run in the way that is fastest for the network, as in a job; else in torch.
    """
    data = dataset(folder / "decoded")
    reference, labels = images(data, "train", REFERENCE_IMAGES)
    network = network or renormalise(rewritten(load_network(model_path())), reference)
    evidence = Scheme.of(methods).gather(network, reference, Targets(TASK, labels))
    made = Material(folder / "material", methods)
    ranking, preprocessing = images(data, "validation", RANKING_IMAGES), Preprocessing.from_json(PREPROCESSING)
    passes = fastest(network, reference) if measured else None
    made.write(network, ranking, reference, evidence, data.sample("train", short, seed=0), preprocessing, passes=passes)
    return made


def widths(network: Network, share: float) -> dict[str, int]:
    """Return widths that keep this share of each block, in multiples of 4. A share of 1 keeps all but one channel."""
    return {
        block.name: max(4, round(share * block.width / 4) * 4) if share < 1 else block.width - 1
        for block in prunable_blocks(network)
    }


def bare(module: TorchNetwork, reference: Images, ranking: Images) -> None:
    """Run the forward passes of F2 and nothing else."""
    module.train()
    with torch.inference_mode():
        for start in range(0, len(reference), BATCH):
            module(torch.from_numpy(reference[start : start + BATCH]))
    module.eval()
    with torch.inference_mode():
        for start in range(0, len(ranking), BATCH):
            module(torch.from_numpy(ranking[start : start + BATCH]))


def timed(call: Callable[[], object]) -> Seconds:
    """Return the processor and wall seconds of one call."""
    wall_s, processor_s = time.perf_counter(), time.process_time()
    call()
    return time.process_time() - processor_s, time.perf_counter() - wall_s


def compare(evaluator: CutEvaluator, source: Material, name: str, share: float) -> dict[str, Any]:
    """Time nine interleaved pairs of F2 and the bare passes at these widths; return the row."""
    chosen = widths(source.network, share)
    candidate = Candidate(name, chosen)
    module, _ = evaluator.cut(candidate)
    reference, (ranking, _labels) = source.reference[:NORM_IMAGES], source.ranking
    calls: dict[str, Callable[[], object]] = {
        "f2": lambda: evaluator(candidate),
        "bare": lambda: bare(module, reference, ranking),
    }
    taken: dict[str, list[Seconds]] = {key: [] for key in calls}
    for call in calls.values():
        call()
    for number in range(PAIRS):
        for key in sorted(calls, reverse=bool(number % 2)):
            taken[key].append(timed(calls[key]))
    pairs = list(zip(taken["f2"], taken["bare"], strict=True))
    figures = {
        f"overhead_{clock}": median(whole[at] / passes[at] - 1 for whole, passes in pairs)
        for at, clock in enumerate(("processor", "wall"))
    }
    return {"name": name, "widths": chosen, **figures, "seconds": taken}


def main() -> None:
    torch.set_num_threads(1)
    facts = {
        "threads": 1,
        "batch": BATCH,
        "reestimated_on": NORM_IMAGES,
        "accuracy_on": RANKING_IMAGES,
        "torch": torch.__version__,
        **stamp(),
    }
    print(json.dumps(facts))
    with tempfile.TemporaryDirectory(prefix="netlathe-bench-") as folder, RESULTS.open("w") as out:
        out.write(json.dumps({"kind": "facts", **facts}) + "\n")
        source = material(Path(folder))
        evaluator = CutEvaluator(source, RANKING_IMAGES)
        for name, share in SHARES.items():
            row = compare(evaluator, source, name, share)
            out.write(json.dumps({"kind": "widths", **row}) + "\n")
            f2_s = median(wall_s for _, wall_s in row["seconds"]["f2"])
            shown = {key: round(value, 4) for key, value in row.items() if isinstance(value, float)}
            print(json.dumps({"name": name, "widths": row["widths"], **shown, "f2_s": round(f2_s, 3)}))


if __name__ == "__main__":
    main()

"""The search over channel masks: its speed, and its gain on ResNet-20: `python benchmarks/channel_masks.py`.

Speed: masks of 64 channels whose error `lost` is computed per second of processor time, with one thread, in REPEATS
runs. The goal is MIN_MASKS_PER_S.
Gain: for each block of ResNet-20 and each eighth of its width, `lost` of the mask found and of two baselines: the
channels with the largest L1 norms, and greedy backward elimination. `lost` is the share of the variance of the readers'
outputs that goes with the removed channels. The goals: never worse than a baseline, and better than the better baseline
on at least half of the blocks of 32 channels or more, over the block's widths.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from f2_overhead import material
from stamp import stamp

from compress.graph.groups import prunable_blocks
from compress.pruning.importance import score
from search.channel_masks.baselines import eliminated, least_important
from search.channel_masks.choice import MaskSearch
from search.channel_masks.fitness import lost

CHANNELS, MASKS, REPEATS = 64, 200_000, 15
MIN_MASKS_PER_S = 100_000
MIN_BETTER = 0.5
"""Share of the blocks of WIDE channels or more on which the search must be better than both baselines."""
WIDE = 32
RESULTS = Path(__file__).parent / "results" / "channel_masks.jsonl"


def masks_per_s(rng: np.random.Generator) -> float:
    """Score random masks of one random Gram matrix; return the masks per second of processor time."""
    made = rng.standard_normal((CHANNELS, 2 * CHANNELS))
    gram, masks = made @ made.T, rng.random((MASKS, CHANNELS)) < 0.5
    begun_s = time.process_time()
    lost(gram, masks)
    return MASKS / (time.process_time() - begun_s)


def gains(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each block and width."""
    source = material(folder)
    blocks = prunable_blocks(source.network)
    norms = score(source.network, blocks, "l1")
    for block in blocks:
        search = MaskSearch(source.known["gram"][block.name], norms[block.name], few=1)
        for keep in range(block.width // 8, block.width, block.width // 8):
            baselines = np.stack([least_important(search.importance, keep), eliminated(search.gram, keep)])
            l1, greedy = lost(search.gram, baselines).tolist()
            found = search.best(keep)
            errors = {"l1": l1, "greedy": greedy, "search": found.lost}
            yield {"block": block.name, "width": block.width, "keep": keep, "optimal": found.optimal, **errors}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="netlathe-bench-") as folder, RESULTS.open("w") as out:

        def write(kind: str, row: dict[str, Any]) -> None:
            out.write(json.dumps({"kind": kind, **row}) + "\n")
            print(json.dumps(row))

        write("facts", {"channels": CHANNELS, "masks": MASKS, "threads": 1, "numpy": np.__version__, **stamp()})
        rng = np.random.default_rng(0)
        rates = [round(masks_per_s(rng)) for _ in range(REPEATS)]
        write("speed", {"masks_per_s": rates})
        print(f"median {np.median(rates):,.0f} masks/s, lowest {min(rates):,}, highest {max(rates):,}")
        for row in gains(Path(folder)):
            write("gain", row)


if __name__ == "__main__":
    main()

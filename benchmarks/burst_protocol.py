"""How well a timing repeats: the burst protocol against warm-up-then-median, on the same blocks.

    python benchmarks/burst_protocol.py [--rounds 30] [--jsonl FILE]

Each block is timed twice by each way. `bursts`: the quiet latency of even against odd rounds of one interleaved
run. `median`: 10 warm-up runs, then the median of 50, block after block, in two passes. Printed is the relative
difference of the two figures of one block: the smaller, the better the way repeats on this machine under the
load it has now. Rows go to --jsonl as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hw_profiles.device import DeviceConfig
from hw_profiles.ops import Op
from hw_profiles.probe import probe_op
from hw_profiles.runtimes.onnxruntime import RUNTIME
from hw_profiles.slope import slope_models
from hw_profiles.timing import BurstProtocol, Sample, split_half

WARM_RUNS, TIMED_RUNS = 10, 50


def blocks() -> dict[str, Op]:
    """3x3 convolutions of ResNet-20's sizes, whole and cut."""
    shapes = [(16, 16, 32), (12, 12, 32), (32, 32, 16), (24, 20, 16), (30, 30, 16), (64, 64, 8), (48, 36, 8)]
    return {f"{into}-{out}@{size}": probe_op(into, out, size) for into, out, size in shapes}


def burst_differences(models: Mapping[str, bytes], device: DeviceConfig, rounds: int) -> dict[str, float]:
    """Split-half difference of the quiet latency, by model."""
    protocol = BurstProtocol(min_rounds=rounds, max_rounds=rounds)
    results = RUNTIME.time(models, device, protocol)
    return {key: split_half(r.minima_us) for key, r in results.items() if isinstance(r, Sample)}


def median_differences(models: Mapping[str, bytes], device: DeviceConfig) -> dict[str, float]:
    """Relative difference of the medians of two passes, by model."""
    first, second = (medians_us(models, device) for _ in range(2))
    return {key: abs(first[key] - second[key]) / (0.5 * (first[key] + second[key])) for key in models}


def medians_us(models: Mapping[str, bytes], device: DeviceConfig) -> dict[str, float]:
    """Warm-up, then the median of many runs in a row, one model after the other."""
    protocol = BurstProtocol(
        warm_runs=WARM_RUNS, timed_runs=TIMED_RUNS, min_rounds=1, max_rounds=1, split_half=1.0, round_s=0.0
    )
    found = {}
    for key, model in models.items():
        result = RUNTIME.time({key: model}, device, protocol)[key]
        if isinstance(result, Sample):
            found[key] = result.medians_us[0]
    return found


def spread(differences: Sequence[float]) -> str:
    """Median, 90th percentile and maximum in percent."""
    middle, high = np.percentile(differences, [50, 90])
    return f"{100 * middle:7.2f} {100 * high:7.2f} {100 * max(differences):7.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="rounds of bursts (default 30)")
    parser.add_argument("--jsonl", type=Path, help="append the rows to this file")
    arguments = parser.parse_args()
    device = RUNTIME.configs("bench")[0]
    models = {name: slope_models(op)[1] for name, op in blocks().items()}
    started = time.perf_counter()
    bursts = burst_differences(models, device, arguments.rounds)
    bursts_s = time.perf_counter() - started
    medians = median_differences(models, device)
    medians_s = time.perf_counter() - started - bursts_s
    load = os.getloadavg()[0]
    print(f"onnxruntime {RUNTIME.version()}, 1 thread, load {load:.1f}; difference between two figures, percent")
    print(f"{'block':12} {'bursts':>8} {'median':>8}")
    for name in models:
        print(f"{name:12} {100 * bursts[name]:8.2f} {100 * medians[name]:8.2f}")
    print(f"{'':12} {'median':>7} {'p90':>7} {'max':>7}")
    print(f"{'bursts':12} {spread(list(bursts.values()))}   ({bursts_s:.1f} s)")
    print(f"{'median':12} {spread(list(medians.values()))}   ({medians_s:.1f} s)")
    if arguments.jsonl:
        with arguments.jsonl.open("a") as file:
            for name in models:
                row = {"block": name, "bursts": bursts[name], "median": medians[name], "rounds": arguments.rounds}
                file.write(json.dumps({**row, "load": load, "runtime": RUNTIME.version()}) + "\n")


if __name__ == "__main__":
    main()

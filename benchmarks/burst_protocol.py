"""Repeatability of a timing: `python benchmarks/burst_protocol.py`.

Times six widths of ResNet-20 and the slope models of six of its kernels five times in two ways: the usual way (each
model alone: 3 ms of warm-up, then the median of 25 runs) and short bursts (1 warm-up and 6 timed runs, all models
round-robin, low percentile of burst minima, 20 rounds). The figures are relative differences between every two passes
of a model: the median over models and pairs and the 90th percentile, for both ways, before and after a common scale is
removed from each pass. The load of the machine is printed beside the figures, because on an idle machine both ways give
good results.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from resnet20 import RUNTIME, builder, drawn

from hw_profiles.device import DeviceConfig
from hw_profiles.host_lock import HostLock
from hw_profiles.runtimes import load
from hw_profiles.tables.features import features_of
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.timing.copies_timing import slope_models
from hw_profiles.timing.protocol import BurstProtocol, Sample

PASSES = 5
NETWORKS = KERNELS = 6
ROUNDS = 20
WARM_S, RUNS = 0.003, 25
RESULTS = Path(__file__).parent / "results" / "burst_protocol.jsonl"
Latencies = Mapping[str, float]


def models() -> dict[str, bytes]:
    """Return the whole networks and the slope models, by name."""
    # Widths are multiples of 16, as on AVX-512; any other grid would work too.
    made = builder(["filter_prune"], KernelClasses(16, 16, 4, 16, 1.5))
    rng = np.random.default_rng(7)
    networks = {
        f"network-{i}": made.kernels.rewritten({**made.whole, **drawn(made.kernels.ordered, rng, lean=True)}).save()
        for i in range(NETWORKS)
    }
    ops = sorted(made.ops(RUNTIME), key=lambda op: features_of(op)["macs"])
    chosen = [ops[rank] for rank in np.linspace(len(ops) // 3, len(ops) - 1, KERNELS).astype(int)]
    return networks | {
        f"kernel-{i}-{part}": model
        for i, op in enumerate(chosen)
        for part, model in zip(("one", "four"), slope_models(op), strict=True)
    }


def bursts(found: Mapping[str, bytes], device: DeviceConfig) -> Latencies:
    """Time the models in short bursts; return each model's latency without load, in microseconds."""
    protocol = BurstProtocol(min_rounds=ROUNDS, max_rounds=ROUNDS, seed=time.monotonic_ns() % 2**32)
    samples = load(RUNTIME).time(found, device, protocol)
    return {name: sample.timing().quiet_us for name, sample in samples.items() if isinstance(sample, Sample)}


def medians(found: Mapping[str, bytes], device: DeviceConfig) -> Latencies:
    """Time one model after the other; return the median of RUNS runs after a warm-up, in microseconds."""
    taken: dict[str, float] = {}
    for name, model in found.items():
        alone = BurstProtocol(warm_runs=_warm_runs(model, device), timed_runs=RUNS, min_rounds=1, max_rounds=1)
        sample = load(RUNTIME).time({name: model}, device, alone)[name]
        assert isinstance(sample, Sample)
        taken[name] = sample.medians_us[0]
    return taken


def _warm_runs(model: bytes, device: DeviceConfig) -> int:
    once = load(RUNTIME).time({"model": model}, device, BurstProtocol(timed_runs=1, min_rounds=1, max_rounds=1))
    sample = once["model"]
    assert isinstance(sample, Sample)
    return max(1, int(WARM_S * 1e6 / sample.minima_us[0]))


def repeatability(passes: list[Latencies]) -> dict[str, float]:
    """Return the relative differences between every two passes of a model."""
    figures: dict[str, float] = {}
    logs = np.log(np.array([[each[name] for name in passes[0]] for each in passes]))
    for label, values in (("", logs), ("_scaled", logs - np.median(logs - logs.mean(axis=0), axis=1, keepdims=True))):
        differences = np.concatenate([np.abs(values[a] - values[b]) for a, b in combinations(range(len(values)), 2)])
        figures[f"median{label}"] = float(np.median(differences))
        figures[f"p90{label}"] = float(np.percentile(differences, 90))
    return figures


def main() -> None:
    device = next(config for config in load(RUNTIME).configs("local") if config.threads == 1)
    found = models()
    ways: Mapping[str, Callable[[Mapping[str, bytes], DeviceConfig], Latencies]] = {"median": medians, "bursts": bursts}
    taken: dict[str, list[Latencies]] = {name: [] for name in ways}
    rows: list[dict[str, Any]] = []
    for number in range(PASSES):
        for name, way in ways.items():
            with HostLock().exclusive():
                begun_s = time.monotonic()
                taken[name].append(way(found, device))
            seconds, load_1 = round(time.monotonic() - begun_s, 2), round(os.getloadavg()[0], 1)
            rows.append({"way": name, "pass": number, "seconds": seconds, "load": load_1, "us": taken[name][-1]})
    facts = {"models": len(found), "passes": PASSES, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    with RESULTS.open("w") as out:
        for name, passes in taken.items():
            seen_load = [row["load"] for row in rows if row["way"] == name]
            figures = {"way": name, **repeatability(passes), "load": [min(seen_load), max(seen_load)], **facts}
            print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}))
            out.write(json.dumps({"kind": "figures", **figures}) + "\n")
        for row in rows:
            out.write(json.dumps({"kind": "pass", **row}) + "\n")


if __name__ == "__main__":
    main()

"""Accuracy of predicted latencies of networks that were never timed: `python benchmarks/predictor_accuracy.py`.

Two processes run one after the other. The first learns the device's kernel classes, fills the latency table of every
kernel that a filter-pruned ResNet-20 can contain, and fits a + b * sum on 20 random networks of that space. The second
draws 60 other networks with another seed, predicts their latencies, and times the networks whole, interleaved, together
with three of the first process's networks as anchors. On a shared machine all latencies change together by a tenth and
more within minutes. The anchors show this common scale, and it is removed, as a job does when it compares its
prediction with its measurement. The figures before the removal are printed too. Each batch is timed in a child process
of its own, under the host lock, as on an agent.

`--variant int8` does the same for the quantised networks. Raw rows go to benchmarks/results/ as JSONL. The goals are a
mean absolute relative error of at most MAX_MAPE and a Kendall's tau of at least MIN_TAU.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from resnet20 import RUNTIME, builder, drawn
from scipy.stats import kendalltau
from stamp import stamp

from hw_profiles.device import DeviceConfig
from hw_profiles.host_lock import HostLock
from hw_profiles.ops import Op
from hw_profiles.runtimes import load
from hw_profiles.tables.anchors import Session, session
from hw_profiles.tables.calibration import calibrate
from hw_profiles.tables.features import features_from_json
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.tables.probe import probe
from hw_profiles.tables.table import LatencyTable, Row
from hw_profiles.timing.batch import Batch, Work
from hw_profiles.timing.copies_timing import slope_models, slope_timing
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample
from search.space import Values
from workers.problem.builder import ProblemBuilder
from workers.problem.kernel_table import NodeTable

METHODS = {"fp32": ("filter_prune",), "int8": ("filter_prune", "int8_ptq")}
RESULTS = Path(__file__).parent / "results"
CALIBRATION_NETWORKS, CALIBRATION_SEED = 20, 101
HELD_OUT_NETWORKS, HELD_OUT_SEED = 60, 202
MAX_MAPE, MIN_TAU = 0.03, 0.90
LEASE = 64
ANCHORS = 6
REDONE = 3
BLOCKS = BurstProtocol(max_rounds=30)
NETWORKS = BurstProtocol(min_rounds=20)
HELD_OUT = BurstProtocol(min_rounds=40, max_rounds=40)
Say = Callable[..., None]


class Bench:
    """Times models as an agent does: each batch in a child process, with the machine locked."""

    def __init__(self, work: Path, say: Say) -> None:
        self.device = next(d for d in load(RUNTIME).configs("local") if d.threads == 1)
        self._work, self._say = work, say
        self._references_us: dict[str, float] = {}
        self._anchors: list[Op] = []

    def samples(self, files: Mapping[str, Mapping[str, bytes]], protocol: BurstProtocol) -> dict[str, Any]:
        """Time all models together. The models are given by key and file name; the result has a Sample or a Failure for
        each.
        """
        with tempfile.TemporaryDirectory(dir=self._work) as folder:
            wanted = []
            for number, (key, parts) in enumerate(files.items()):
                paths = {name: Path(folder) / f"{number}-{name}.onnx" for name in parts}
                for name, model in parts.items():
                    paths[name].write_bytes(model)
                wanted.append(Work(key, paths))
            return dict(Batch(self.device, protocol, HostLock()).time(wanted))

    def rows(self, ops: Sequence[Op]) -> list[Row]:
        """Return slope rows, timed in several leases. Each lease is scaled by its anchors; the first lease sets the
        anchors.
        """
        found: list[Row] = []
        pending = list(ops)
        refused = 0
        while pending:
            lease, anchors = pending[:LEASE], [op for op in self._anchors if op not in pending[:LEASE]]
            parts = {op.key: dict(zip(("low", "high"), slope_models(op), strict=True)) for op in (*lease, *anchors)}
            timings = {
                key: slope_timing(each["low"], each["high"])
                for key, each in self.samples(parts, BLOCKS).items()
                if not _failed(key, each, self._say)
            }
            seen = self._seen({op.key: timings[op.key].quiet_us for op in anchors if op.key in timings})
            if not seen.accepted and refused < REDONE:
                refused += 1
                continue
            if not seen.accepted:
                self._say(f"accepted after {REDONE} refused sessions: spread {seen.spread:.1%}")
            refused = 0
            found += [Row.of(op, timings[op.key], seen.scale, epoch=1) for op in lease if op.key in timings]
            pending = pending[len(lease) :]
            if not self._anchors:
                self._choose(found, lease)
            self._say(f"{len(found)} rows, {len(pending)} to go, scale {seen.scale:.3f}")
        return found

    def _seen(self, measured_us: Mapping[str, float]) -> Session:
        """Return the state of the session according to its anchors; the first lease sets the anchors and is its own
        reference.
        """
        if not measured_us:
            return Session(1.0, 0.0)
        return session(self._references_us, measured_us, measured_us)

    def _choose(self, rows: Sequence[Row], ops: Sequence[Op]) -> None:
        ordered = sorted(rows, key=lambda row: row.latency_us)
        chosen = [ordered[rank] for rank in np.linspace(len(rows) // 2, len(rows) - 1, ANCHORS).round().astype(int)]
        self._references_us = {row.key: row.latency_us for row in chosen}
        self._anchors = [op for op in ops if op.key in self._references_us]


def _failed(key: str, found: Any, say: Say) -> bool:
    if isinstance(found, Failure):
        say(f"{key[:12]}: {found.reason}")
    return isinstance(found, Failure)


class Space:
    """One variant of the space; it draws networks and lists the ops of a drawn network."""

    def __init__(self, variant: str, classes: KernelClasses) -> None:
        self.builder: ProblemBuilder = builder(METHODS[variant], classes)
        self.setting = self.builder.settings[-1]

    @property
    def ops(self) -> list[Op]:
        """Return every op that a network of this variant can contain."""
        parts = (
            table.parts[table.at({**values, **self.setting})]
            for table in self.builder.tables
            for values in self._every_point(table)
        )
        return list({op.key: op for part in parts for op in part.ops[RUNTIME]}.values())

    def _every_point(self, table: NodeTable) -> Iterator[Values]:
        for values in product(*([knob.value(level) for level in range(knob.level_count)] for knob in table.knobs)):
            yield {**self.builder.whole, **{knob.name: value for knob, value in zip(table.knobs, values, strict=True)}}

    def draw(self, count: int, seed: int) -> dict[str, Values]:
        """Draw networks: half of them with each knob drawn separately, half with all knobs leaning towards small or
        large widths.
        """
        rng = np.random.default_rng(seed)
        knobs = self.builder.kernels.ordered
        return {
            f"{'leaning' if i % 2 else 'uniform'}-{i}": {**drawn(knobs, rng, bool(i % 2)), **self.setting}
            for i in range(count)
        }

    def models(self, values: Mapping[str, Values]) -> dict[str, dict[str, bytes]]:
        """Return the networks as files."""
        return {name: {"whole": self.builder.kernels.rewritten(each).save()} for name, each in values.items()}

    def parts(self, values: Values) -> tuple[Op, ...]:
        """Return the ops of one network, read from the kernel table."""
        return self.builder.ops_at(values, RUNTIME)


def fill(variant: str, work: Path, say: Say) -> None:
    """Run the first process: fill the table and calibrate."""
    begun_s = time.monotonic()
    bench = Bench(work, say)
    curves = probe()
    probed = bench.rows(curves.ops)
    classes = curves.learn({row.key: row.latency_us for row in probed})
    say(f"kernel classes: {classes}")
    space = Space(variant, classes)
    known = {row.key for row in probed}
    rows = bench.rows([op for op in space.ops if op.key not in known])
    filled_s = time.monotonic() - begun_s
    table = LatencyTable(bench.device, 1, classes=classes).updated([*probed, *rows])
    values = space.draw(CALIBRATION_NETWORKS, CALIBRATION_SEED)
    samples = bench.samples(space.models(values), NETWORKS)
    quiet_us = [samples[name]["whole"].timing().quiet_us for name in values]
    sums_us, sigmas_us = table.sums_us([space.parts(each) for each in values.values()])
    line = calibrate(sums_us.tolist(), sigmas_us.tolist(), quiet_us)
    (work / "table.json").write_text(json.dumps(table.updated(calibration=line).to_json()))
    facts = {"rows": len(rows), "probe_rows": len(probed), "fill_s": filled_s, "space_ops": len(space.ops)}
    (work / "fill.json").write_text(json.dumps({**facts, "total_s": time.monotonic() - begun_s}))
    with (work / "rows.jsonl").open("w") as out:
        for row in (*probed, *rows):
            out.write(json.dumps({"kind": "row", **row.to_json()}) + "\n")
        for i, (name, each) in enumerate(values.items()):
            out.write(json.dumps(_network("calibration", name, each, sums_us[i], samples[name]["whole"])) + "\n")


def check(variant: str, work: Path, say: Say) -> dict[str, Any]:
    """Run the second process: predict other networks and time them; return the figures."""
    table = LatencyTable.from_json(json.loads((work / "table.json").read_text()))
    space = Space(variant, table.classes)
    drawn_values = space.draw(HELD_OUT_NETWORKS, HELD_OUT_SEED)
    known = space.draw(CALIBRATION_NETWORKS, CALIBRATION_SEED)
    values = {name: each for name, each in drawn_values.items() if each not in known.values()}
    references_us = _anchors(work)
    anchors = {f"anchor-{name}": known[name] for name in references_us}
    parts = [space.parts(each) for each in values.values()]
    predictions = table.predict(parts)
    sums_us, _ = table.sums_us(parts)
    samples = Bench(work, say).samples(space.models({**values, **anchors}), HELD_OUT)
    timed = [samples[name]["whole"] for name in values]
    now_us = {name: samples[f"anchor-{name}"]["whole"].timing().quiet_us for name in references_us}
    seen = session(references_us, now_us, now_us)
    with (work / "rows.jsonl").open("a") as out:
        for name, sum_us, prediction, sample in zip(values, sums_us, predictions, timed, strict=True):
            row = _network("held_out", name, values[name], sum_us, sample)
            interval = {"predicted_us": prediction.latency_us, "low_us": prediction.low_us}
            out.write(json.dumps({**row, **interval, "high_us": prediction.high_us}) + "\n")
    measured_us = np.array([sample.timing().quiet_us for sample in timed])
    truth_us = measured_us * seen.scale
    halves = np.array([[_quiet(sample.minima_us[start::2]) for start in (0, 1)] for sample in timed])
    predicted_us = np.array([prediction.latency_us for prediction in predictions])
    inside = [p.low_us <= t <= p.high_us for p, t in zip(predictions, truth_us, strict=True)]
    noise = np.abs(halves[:, 0] / halves[:, 1] - 1)
    return {
        "variant": variant,
        "held_out_networks": len(values),
        **_errors(predicted_us, truth_us),
        "session_scale": seen.scale,
        "without_anchors": _errors(predicted_us, measured_us),
        "interval_coverage": float(np.mean(inside)),
        "interval_half_width": float(np.mean([(p.high_us - p.low_us) / (2 * p.latency_us) for p in predictions])),
        "noise_floor_mape": float(noise.mean()),
        "noise_floor_tau": float(kendalltau(halves[:, 0], halves[:, 1]).statistic),
        "latency_range_us": [float(truth_us.min()), float(truth_us.max())],
        "calibration": table.calibration.to_json(),
        "classes": table.classes.to_json(),
        "held_out_sources": sorted({entry.source for prediction in predictions for entry in prediction.blocks}),
    }


def _anchors(work: Path) -> dict[str, float]:
    """Return the smallest, the middle and the largest calibration network, with their latencies when they were
    calibrated.
    """
    rows = [json.loads(line) for line in (work / "rows.jsonl").read_text().splitlines()]
    took_us = {row["name"]: _quiet(row["minima_us"]) for row in rows if row["kind"] == "calibration"}
    ordered = sorted(took_us, key=lambda name: took_us[name])
    return {ordered[rank]: took_us[ordered[rank]] for rank in (0, len(ordered) // 2, -1)}


def errors_of(held_out: Sequence[Mapping[str, Any]], scale: float) -> list[float]:
    """Return relative errors of the predictions in these rows, with the session's common scale removed."""
    return [row["predicted_us"] / (scale * _quiet(row["minima_us"])) - 1 for row in held_out]


def class_spreads(rows: Sequence[Mapping[str, Any]], classes: Mapping[str, Any]) -> list[float]:
    """Return the relative standard deviation of the latencies of each kernel class that has several rows."""
    found, learned = defaultdict(list), KernelClasses.from_json(classes)
    for row in rows:
        found[learned.class_of(features_from_json(row["features"]))].append(row["latency_us"])
    return [float(np.std(each) / np.mean(each)) for name, each in found.items() if name is not None and len(each) > 1]


def _quiet(minima_us: Sequence[float]) -> float:
    return float(np.percentile(minima_us, 5))


def _errors(predicted_us: np.ndarray, truth_us: np.ndarray) -> dict[str, float]:
    error = predicted_us / truth_us - 1
    return {
        "mape": float(np.abs(error).mean()),
        "bias": float(error.mean()),
        "spread": float(error.std()),
        "max_error": float(np.abs(error).max()),
        "within_10": float((np.abs(error) <= 0.10).mean()),
        "within_5": float((np.abs(error) <= 0.05).mean()),
        "kendall_tau": float(kendalltau(predicted_us, truth_us).statistic),
    }


def _network(kind: str, name: str, values: Values, sum_us: float, sample: Sample) -> dict[str, Any]:
    bursts = {"minima_us": sample.minima_us, "medians_us": sample.medians_us}
    return {"kind": kind, "name": name, "values": dict(values), "sum_us": float(sum_us), **bursts}


def _device_facts(device: DeviceConfig) -> dict[str, Any]:
    model = next((line for line in _cpuinfo() if line.startswith("model name")), "").partition(":")[2].strip()
    facts = {
        "device": device.to_json(),
        "processor": model or platform.processor(),
        "python": platform.python_version(),
    }
    return {**facts, **stamp()}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=sorted(METHODS), default="fp32")
    parser.add_argument("--stage", choices=("fill", "check"), help="run only one of the two processes; needs --work")
    parser.add_argument("--work", type=Path, help="folder for the files that the first process leaves for the second")
    chosen = parser.parse_args()
    torch.set_num_threads(1)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if chosen.stage == "fill":
        fill(chosen.variant, chosen.work, say)
    elif chosen.stage == "check":
        (chosen.work / "check.json").write_text(json.dumps(check(chosen.variant, chosen.work, say)))
    else:
        work = chosen.work or Path(tempfile.mkdtemp(prefix="netlathe-bench-"))
        work.mkdir(parents=True, exist_ok=True)
        for stage in ("fill", "check"):
            own = ["--variant", chosen.variant, "--stage", stage, "--work", str(work)]
            subprocess.run([sys.executable, __file__, *own], check=True)
        _report(chosen.variant, work)


def _report(variant: str, work: Path) -> None:
    """Print the figures, and store them with the raw rows."""
    device = next(d for d in load(RUNTIME).configs("local") if d.threads == 1)
    figures = {**json.loads((work / "check.json").read_text()), **json.loads((work / "fill.json").read_text())}
    path = RESULTS / f"predictor_accuracy-{variant}.jsonl"
    with path.open("w") as out:
        out.write(json.dumps({"kind": "figures", **figures, **_device_facts(device)}) + "\n")
        out.write((work / "rows.jsonl").read_text())
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()

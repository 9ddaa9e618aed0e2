"""Time of a job's statistics phase: `python benchmarks/statistics_time.py`.

MobileNetV2's form for CIFAR with random weights, prune + int8, two worker processes, a simulated device. `gather` makes
the network trainable and computes the methods' evidence; `looks` are the quick evaluations for the sensitivities. Each
has its processor seconds, those of the workers included, and its wall seconds. Rows are appended.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import resnet20
from mobilenet import mobilenet
from racing.arena import Arena, Contest
from racing.digits_start import FEW_BURSTS
from racing.rows import Rows
from racing.start import Start

from hw_profiles.runtimes.simulated.engine import SimulatedRuntime
from workers.phases.statistics import gathered, statistics
from workers.plan import Effort
from workers.pools.executor import LocalExecutor

RESULTS = Path(__file__).parent / "results" / "statistics_time.jsonl"
PROCESSES = 2
MAX_WALL_S = 60.0


def start() -> Start:
    """Return the network, its data and a device whose timings take no time."""
    return Start(
        name="mobilenetv2",
        model=mobilenet().SerializeToString(),
        data=resnet20.shared("cifar10-small.parquet").read_bytes(),
        data_name="cifar10-small.parquet",
        runtime=SimulatedRuntime(),
        test=lambda: resnet20.official("test"),
        preprocessing=resnet20.PREPROCESSING,
        effort=Effort(processes=PROCESSES),
        kernels=FEW_BURSTS,
        whole=FEW_BURSTS,
        step=FEW_BURSTS,
    )


def processor_s() -> float:
    """Return the processor seconds of this process and of its finished children."""
    now = os.times()
    return now.user + now.system + now.children_user + now.children_system


@contextmanager
def timed() -> Iterator[Callable[[], dict[str, float]]]:
    """Yield a function that returns the seconds that the block took, once it has ended."""
    begun_s, taken = (processor_s(), time.perf_counter()), dict[str, float]()
    yield lambda: taken
    taken |= {"processor_s": processor_s() - begun_s[0], "wall_s": time.perf_counter() - begun_s[1]}


def main() -> None:
    rows = Rows(RESULTS)
    with tempfile.TemporaryDirectory(prefix="netlathe-bench-") as folder:
        contest = Contest("statistics", ("filter_prune", "int8_ptq"), 0.5, 1)
        arena = Arena.open(start(), contest, 0, ["random"], Path(folder))
        run = replace(arena.run, executor=LocalExecutor())
        with timed() as gather:
            material = gathered(run.context, run.inputs, arena.found)
        with timed() as looks, statistics(run, arena.found) as known:
            knobs = len(known.curves)
        lines = [line for line in run.context.ports.lines if "sensitivity" in line]  # type: ignore[attr-defined]  # ports in memory
        row = rows.add("phase", knobs=knobs, passes=material.passes.to_json(), said=lines, gather=gather(), looks=looks())
    wall_s = sum(row[part]["wall_s"] for part in ("gather", "looks"))
    print(row, f"together {wall_s:.1f} s, goal at most {MAX_WALL_S:.0f} s", sep="\n")


if __name__ == "__main__":
    main()

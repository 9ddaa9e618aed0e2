"""Chooses the cores that timings run on: always the same big cores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CPU = Path("/sys/devices/system/cpu")


def big_cores() -> tuple[int, ...]:
    """Return the numbers of the fastest cores that this process may use; all of them if their speeds are unknown."""
    if not hasattr(os, "sched_getaffinity"):
        return tuple(range(os.cpu_count() or 1))
    allowed = sorted(os.sched_getaffinity(0))
    speeds = {core: _speed(core) for core in allowed}
    fastest = max(speeds.values())
    return tuple(core for core in allowed if speeds[core] == fastest)


def _speed(core: int) -> int:
    """Return a number that orders cores by speed: the relative capacity if it is known, else the highest clock rate,
    else 0.
    """
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        path = _CPU / f"cpu{core}" / name
        if path.is_file():
            return int(path.read_text())
    return 0


@contextmanager
def pinned(threads: int) -> Iterator[tuple[int, ...]]:
    """Pin this thread, and the threads that it starts, to `threads` big cores; yield their numbers.

    If the system does not support affinity or has fewer cores than threads, yields () and pins nothing. Cores with high
    numbers are taken first, because interrupts and the system's own work gather on cores with low numbers.
    """
    cores = big_cores()[-threads:]
    if not hasattr(os, "sched_setaffinity") or len(cores) < threads:
        yield ()
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield cores
    finally:
        os.sched_setaffinity(0, before)

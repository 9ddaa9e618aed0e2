"""The burst scheduler: times many calls interleaved, so that a disturbance affects all of them alike.

Interference on a shared machine lasts for 0.1-1 s and slows everything about twofold (seen on one machine; no rows
kept). Short bursts spread over many rounds meet quiet moments for every model; a longer series of consecutive runs does
not. benchmarks/burst_protocol.py measures how well both ways repeat (docs/benchmarks.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample, split_half

# The first burst of a model also pays for page faults and lazily made buffers.
FIRST_WARM_RUNS = 3
# After `min_rounds`, which spread over many disturbances, only a few models are still unsettled. Their rounds may
# follow each other faster, because otherwise these few would hold up the whole batch.
LATER_ROUND_SHARE = 0.25


def run_bursts(
    calls: Mapping[str, Callable[[], object]],
    protocol: BurstProtocol,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Sample | Failure]:
    """Time every call according to `protocol`; return one answer for each key. `clock` and `sleep` are in seconds.

    A call that raises an exception becomes a Failure, and the other calls continue. A sample that did not settle has
    `suspect` set to `unsettled`. `progress(done, all)` is called after each round.
    """
    runs = {key: _Run(key, call) for key, call in calls.items()}
    rng = np.random.default_rng(protocol.seed)
    for done in range(1, protocol.max_rounds + 1):
        pending = [run for run in runs.values() if run.pending]
        if not pending:
            break
        start_s = clock()
        for index in rng.permutation(len(pending)):
            pending[index].burst(protocol, clock)
        if done >= protocol.min_rounds and (done - protocol.min_rounds) % protocol.round_step == 0:
            for run in pending:
                run.settle(protocol)
        if progress:
            progress(sum(not run.pending for run in runs.values()), len(runs))
        wanted_s = protocol.round_s * (1.0 if done < protocol.min_rounds else LATER_ROUND_SHARE)
        rest_s = wanted_s - (clock() - start_s)
        if rest_s > 0 and done < protocol.max_rounds and any(run.pending for run in runs.values()):
            sleep(rest_s)
    return {key: run.result() for key, run in runs.items()}


class _Run:
    """The bursts of one model so far."""

    def __init__(self, key: str, call: Callable[[], object]) -> None:
        self._key, self._call = key, call
        self._minima_us: list[float] = []
        self._medians_us: list[float] = []
        self._failure: Failure | None = None
        self._settled = False

    @property
    def pending(self) -> bool:
        return not self._settled and self._failure is None

    def burst(self, protocol: BurstProtocol, clock: Callable[[], float]) -> None:
        call = self._call
        elapsed_s = np.empty(protocol.timed_runs)
        try:
            for _ in range(protocol.warm_runs if self._minima_us else max(protocol.warm_runs, FIRST_WARM_RUNS)):
                call()
            for run in range(protocol.timed_runs):
                start_s = clock()
                call()
                elapsed_s[run] = clock() - start_s
        # each engine raises its own exceptions; one failing model must not end a batch
        except Exception as error:
            self._failure = Failure(self._key, f"{type(error).__name__}: {error}"[:500], "run")
            return
        if elapsed_s.min() <= 0:
            self._failure = Failure(self._key, "the clock did not advance over a run", "clock")
            return
        self._minima_us.append(float(elapsed_s.min()) * 1e6)
        self._medians_us.append(float(np.median(elapsed_s)) * 1e6)

    def settle(self, protocol: BurstProtocol) -> None:
        self._settled = split_half(tuple(self._minima_us)) <= protocol.split_half

    def result(self) -> Sample | Failure:
        if self._failure:
            return self._failure
        extra = {} if self._settled else {"suspect": "unsettled"}
        return Sample(self._key, tuple(self._minima_us), tuple(self._medians_us), extra)

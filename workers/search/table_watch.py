"""TableWatch: requests the table rows that a running search needs, and swaps in newer tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from hw_profiles.ops import Op
from search.evaluation import Evaluation, Status
from search.problem import Problem
from workers.profiling.timed_device import Profile
from workers.running.context import Context

LOOK_S = 10.0
"""Minimum number of seconds between two checks for newer tables, because each newer table restarts the strategies."""
ASKED_AT_ONCE = 64


class TableWatch:
    """Gives the loop a new problem when a table has grown, and requests the rows that predictions need most.

    Each kernel is weighted by how often it occurs in the candidates evaluated so far; the rows with the largest
    uncertainty x frequency are requested first. The search does not wait for these rows. `profile` and `problem`
    reflect the newest tables.
    """

    def __init__(self, context: Context, profile: Profile, make: Callable[[Profile], Problem]) -> None:
        self.profile = profile
        self.problem = make(profile)
        self._context = context
        self._make = make
        self._looked_s = context.clock_s()
        self._seen: dict[str, Counter[str]] = {timed.target.device_id: Counter() for timed in profile.devices}
        self._ops: dict[str, dict[str, Op]] = {timed.target.device_id: {} for timed in profile.devices}
        self._asked: set[tuple[str, str]] = set()

    def note(self, evaluation: Evaluation) -> None:
        """Count the kernels of a finished evaluation."""
        if evaluation.status is not Status.COMPLETED:
            return
        for timed in self.profile.devices:
            open_ops = self.profile.builder.ops_at(evaluation.candidate.values, timed.table.device.runtime)
            unknown = [op for op in open_ops if op.key not in timed.table.rows]
            self._seen[timed.target.device_id].update(op.key for op in unknown)
            self._ops[timed.target.device_id] |= {op.key: op for op in unknown}

    def refresh(self) -> Problem | None:
        """Return a problem with newer tables; None if no table has changed."""
        if self._context.clock_s() - self._looked_s < LOOK_S:
            return None
        self._looked_s = self._context.clock_s()
        self._ask()
        tables = {t.target.device_id: self._context.ports.table(t.target.device_id) for t in self.profile.devices}
        if all(tables[t.target.device_id].epoch == t.table.epoch for t in self.profile.devices):
            return None
        newer = tuple(timed.with_table(tables[timed.target.device_id]) for timed in self.profile.devices)
        self.profile = replace(self.profile, devices=newer)
        self.problem = self._make(self.profile)
        return self.problem

    def epochs(self) -> Mapping[str, int]:
        """Map each device id to the table snapshot that predictions use now."""
        return {timed.target.device_id: timed.table.epoch for timed in self.profile.devices}

    def _ask(self) -> None:
        for timed in self.profile.devices:
            device_id = timed.target.device_id
            fresh = [op for key, op in self._ops[device_id].items() if (device_id, key) not in self._asked]
            sigmas_us = [entry.sigma_us for entry in timed.table.entries(fresh)]
            worth = {
                op.key: self._seen[device_id][op.key] * (sigma_us if math.isfinite(sigma_us) else 1.0)
                for op, sigma_us in zip(fresh, sigmas_us, strict=True)
            }
            wanted = sorted(fresh, key=lambda op: -worth[op.key])[:ASKED_AT_ONCE]
            if wanted:
                self._asked |= {(device_id, op.key) for op in wanted}
                self._context.ports.fill(device_id, wanted, [worth[op.key] for op in wanted])

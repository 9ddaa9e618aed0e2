"""OnDevice: the result on one device of a job with several devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workers.judging.judged import Judged, best_of, judge, nearest_of
from workers.plan import JobPlan, Target
from workers.ports import Verdict
from workers.profiling.timed_device import Profile
from workers.running.inputs import Inputs
from workers.training.trained import Trained


@dataclass(frozen=True)
class OnDevice:
    """The best judged network within the limits of one device or, if there is none, the nearest to them.

    Only this device's limit on latency counts, and the limits on other metrics; `alone` is the judgement by these.
    `row` is the network's row of the result table.
    """

    target: Target
    alone: Judged
    row: Mapping[str, Any]

    @property
    def trained(self) -> Trained:
        return self.alone.trained

    @property
    def verdict(self) -> Verdict:
        return "met" if self.alone.met else "missed"


def on_each_device(
    plan: JobPlan,
    inputs: Inputs,
    profile: Profile,
    control: Trained,
    found: Sequence[Judged],
    row: Callable[[Judged], Mapping[str, Any]],
) -> tuple[OnDevice, ...]:
    """Choose a network for each device among all judged ones; return nothing if the job has fewer than two devices."""

    judged = {each.trained.name: each for each in found}

    def on(target: Target) -> OnDevice:
        its_own = replace(plan, targets=(target,))
        alone = [judge(its_own, inputs, profile, control, each.trained, each.timed_on(target)) for each in found]
        chosen = best_of(alone) or nearest_of(alone)
        assert chosen is not None, "a job that came this far has at least one finalist"
        return OnDevice(target, chosen, row(judged[chosen.trained.name]))

    return tuple(on(target) for target in plan.targets) if len(plan.targets) > 1 else ()

"""The verify phase: times every finalist as a whole network beside the original, and judges it by how its file behaves
when measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from compress.scoring.difference import Difference
from hw_profiles.timing.protocol import Failure
from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from search.metrics import latency_metric, parse_limit, parse_limits, row_of
from search.problem import Constraint, Objective
from search.ranking.nearness import distance
from search.ranking.preference import preference
from workers.errors import MeasurementFailed
from workers.judging.timed import Timed, timed_on
from workers.plan import JobPlan, Target
from workers.profiling.refusals import refused
from workers.profiling.timed_device import Profile
from workers.progress import Evaluated
from workers.running.context import Context
from workers.running.inputs import Inputs
from workers.training.trained import GivenUp, Trained

Role: TypeAlias = Literal["finalist", "neighbour", "uncut"]
"""The role of a judged network: a finalist of the search, a smaller neighbour of a finalist, or the control in place of
a finalist.
"""
GiveUp: TypeAlias = Callable[[str, GivenUp], None]


@dataclass(frozen=True)
class Judged:
    """A judged finalist. `broken` has a sentence for each limit that does not hold, and `doubts` a sentence for each
    limit on the score that lies within the interval of the loss. `table_epochs` maps each device id to the snapshot of
    the predictions. `utility` is the objective, and more is better. `distance` is the distance from the limits as users
    weigh them (`search.ranking.nearness`); it is infinite for a network that guesses. `metric` is the name of the
    score, and `role` is the role in which the network is judged.
    """

    trained: Trained
    timed: tuple[Timed, ...]
    drop: Difference
    violation: float
    utility: float
    distance: float
    metric: str
    broken: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    table_epochs: Mapping[str, int] = field(default_factory=dict)
    role: Role = "finalist"

    @property
    def met(self) -> bool:
        """True if the file, as measured, meets every limit."""
        return not self.broken

    def timed_on(self, target: Target) -> tuple[Timed, ...]:
        """Return the timing on this target; empty if there is none."""
        return tuple(each for each in self.timed if each.device_id == target.device_id)

    @property
    def measured(self) -> Mapping[str, float]:
        """The metrics measured on the file itself."""
        latency = {latency_metric(each.device_id): each.measured_ms for each in self.timed}
        return {**self.trained.counts, **latency, self.metric: self.trained.score}

    @property
    def evaluations(self) -> tuple[Evaluated, ...]:
        """The F4 and F5 evaluations of the candidate: F4 after training, F5 as measured on the file. Both have this
        verdict.

        The uncut network has no F4 evaluation, because the control's training was its training.
        """
        trained = self.trained
        origin, strategy = trained.candidate_id, trained.strategy or ""
        made = Candidate(origin, trained.values, origin=strategy, parents=(origin,), after_search=True)
        taught = replace(made, id=f"{origin}-trained", fidelity="F4")
        file = replace(made, id=f"{origin}-timed", fidelity="F5")
        after = trained.score if trained.left is None else trained.left
        known = {**trained.predicted, **trained.counts, self.metric: after}
        done = Evaluation(taught, Status.COMPLETED, known, trained.elapsed_s)
        timed = Evaluated(strategy, Evaluation(file, Status.COMPLETED, self.measured), self.met)
        if self.role == "uncut":
            return (timed,)
        return (Evaluated(strategy, done, self.met, table_epochs=self.table_epochs), timed)

    @property
    def only_slow(self) -> bool:
        """True if only latency limits are missed."""
        return bool(self.broken) and self.violation == sum(each.excess for each in self.timed)


def judged(
    context: Context,
    inputs: Inputs,
    profile: Profile,
    control: Trained,
    finalists: Sequence[Trained],
    give_up: GiveUp,
    attempt: int = 0,
    role: Role = "finalist",
) -> tuple[Judged, ...]:
    """Time all finalists, the control, the original and the anchors in one lease per target, then judge.

    A finalist that a device refuses is given up.

    Args:
        give_up: called with the id of a candidate that is given up, and the reason.
        role: the role in which the finalists are judged.

    Raises:
        DeviceOffline, MeasurementFailed: raised by the ports, or no finalist is left.
        Halted: the user paused or cancelled the job.
    """
    timed: dict[str, list[Timed]] = {each.name: [] for each in finalists}
    for number, device in enumerate(profile.devices):
        context.at("verify", number, len(profile.devices) + 1)
        here = timed_on(context, inputs, profile, device, control, finalists, attempt)
        _warn_of_refusals(context, device.target, here, role)
        for one in finalists:
            found = here[one.name]
            if isinstance(found, Timed):
                timed[one.name].append(found)
            else:
                give_up(one.candidate_id, GivenUp(f"{device.target.device_name} refuses it: {found.reason}"))
        finalists = [each for each in finalists if isinstance(here[each.name], Timed)]
    verdicts = tuple(
        replace(judge(context.plan, inputs, profile, control, each, timed[each.name]), role=role) for each in finalists
    )
    known = {each.evaluation.candidate.id for each in context.recorded.evaluations}
    for verdict in verdicts:
        _say(context, verdict)
        context.ports.emit(*(each for each in verdict.evaluations if each.evaluation.candidate.id not in known))
    return verdicts


def _warn_of_refusals(context: Context, target: Target, here: Mapping[str, Timed | Failure], role: Role) -> None:
    failures = refused(here)
    for name, failure in failures.items():
        context.warn(f"{name} is given up, because {target.device_name} refuses it: {failure.reason}.")
    if role == "finalist" and here and len(failures) == len(here):
        reason = next(iter(failures.values())).reason
        raise MeasurementFailed(target.device_id, f"it refuses every finalist: {reason}")


def best_of(found: Sequence[Judged]) -> Judged | None:
    """Return the finalist that meets every limit and ranks first by `search.ranking.preference`."""
    met = [each for each in found if each.met]
    return min(met, key=lambda each: (*_rank(each), each.trained.name), default=None)


def nearest_of(found: Sequence[Judged]) -> Judged | None:
    """Return the finalist to offer if no finalist meets every limit: the nearest to the limits by
    `search.ranking.nearness`.

    This measure weighs every limit, and ranks last the networks that do no better than guessing; ties are ranked as in
    `best_of`.
    """
    return min(found, key=lambda each: (each.distance, each.violation, *_rank(each), each.trained.name), default=None)


def _rank(each: Judged) -> tuple[float, ...]:
    return preference(each.utility, each.measured, each.metric)


def judge(
    plan: JobPlan, inputs: Inputs, profile: Profile, control: Trained, each: Trained, timed: Sequence[Timed]
) -> Judged:
    """Judge one network by the plan's limits, from its file's scores and its timings on the plan's targets."""
    targets = {target.device_id: target for target in plan.targets}
    broken = [_slow(targets[t.device_id], t) for t in timed if t.excess]
    violation = sum(t.excess for t in timed)
    latency = {latency_metric(t.device_id): t.measured_ms for t in timed}
    metrics = {**each.counts, **latency, plan.metric: each.score}
    lost, doubts = inputs.task.compare(control.scores, each.scores), list[str]()
    given = 0 if control.ruined else control.ended_at
    if each.epochs > given:
        how = "had" if control.ruined else "continued a sample and had"
        doubts.append(f"{each.candidate_id} {how} {each.epochs} epochs; the control had {given}")
    limits = _other_limits(plan, profile, control)
    for name, constraint in limits:
        over = constraint.violation(metrics)
        if over:
            violation += over
            seen = metrics[constraint.metric]
            broken.append(_over(name, constraint, seen))
        allowed = control.score - constraint.bound
        if parse_limit(name).form == "drop" and lost.low < allowed < lost.high:
            within = f"within the 95 % interval of the loss of {each.candidate_id}"
            doubts.append(f"{name} is {plan.metric_row.told(allowed)}, {within}: {_told(plan, lost)}")
    epochs = {device.target.device_id: device.table.epoch for device in profile.devices}
    utility = Objective(plan.objective_key, plan.objective_goal).utility(metrics)
    far = sum(math.log1p(t.excess) for t in timed)
    far += distance((one for _, one in limits), metrics, plan.metric, inputs.chance)
    far = math.inf if inputs.task.guesses(each.scores, inputs.chance) else far
    return Judged(each, tuple(timed), lost, violation, utility, far, plan.metric, tuple(broken), tuple(doubts), epochs)


def _over(name: str, constraint: Constraint, seen: float) -> str:
    row = row_of(constraint.metric)
    return f"{name} does not hold: {row.heading} is {row.told(seen)}, and the bound is {row.told(constraint.bound)}"


def _slow(target: Target, timed: Timed) -> str:
    return (
        f"{target.device_name}: {timed.measured_ms:.3f} ms, at most {timed.measured_high_ms:.3f} ms with 97.5 % "
        f"certainty, but the limit is {timed.limit_ms:.3f} ms ({timed.statistic})"
    )


def _other_limits(plan: JobPlan, profile: Profile, control: Trained) -> list[tuple[str, Constraint]]:
    """Return all limits except the latency limits. Limits on the score refer to the control, all other limits to the
    original.
    """
    found = []
    for name, value in plan.limits.items():
        if value is None:
            continue
        limit = parse_limit(name)
        against = {plan.metric: control.score} if limit.metric.name == plan.metric else profile.original
        found += [(name, constraint) for constraint in parse_limits({name: value}, against)]
    return found


def _say(context: Context, each: Judged) -> None:
    latency = ", ".join(f"{t.measured_ms:.3f} ms (predicted {t.predicted_ms:.3f})" for t in each.timed)
    verdict = "meets every limit" if each.met else "; ".join(each.broken)
    metric = context.plan.metric_row
    score = f"{metric.heading} {metric.told(each.trained.score)}, {_change(context.plan, each.drop)}"
    context.say(f"{each.trained.name}: {latency or 'no target'}; {score}: {verdict}.")


def _change(plan: JobPlan, lost: Difference) -> str:
    """Say how the score changed; the interval is that of the loss, so its sign is the same for all networks."""
    word = "gained" if lost.mean < 0 else "lost"
    return f"{word} {plan.metric_row.told(abs(lost.mean))} (loss {_told(plan, lost)})"


def _told(plan: JobPlan, lost: Difference) -> str:
    mean, low, high = (plan.metric_row.lost(value) for value in (lost.mean, lost.low, lost.high))
    return f"{mean} [{low}, {high}] against the control on {lost.count} images"

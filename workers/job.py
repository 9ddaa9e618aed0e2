"""run: one job from a plan to an outcome, through the phases of a job's life.

    profile -> statistics -> search -> train -> verify -> package

Each phase finds what an earlier run of the same job recorded and goes on from there, so a run may die at any
point: the next one repeats at most one evaluation, one epoch or one measurement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from compress.training.recipe import Recipe
from hw_profiles.host_lock import HostLock
from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from search.metrics import METRICS
from search.problem import Problem
from workers.errors import JobFailed
from workers.evaluating.accuracy import drop, interval, right_in_file
from workers.evaluating.evaluation_files import Material
from workers.evaluating.evaluator import EvaluatorFactory
from workers.evaluating.whole_training import Sampler
from workers.phases.package import Findings, package
from workers.phases.profile import Profile, TimedDevice, original_right, profile
from workers.phases.search import cut_short, problem_of, searched
from workers.phases.statistics import gathered, norm_count, sensitivities
from workers.phases.train import FINALIST, Trained, Trainer, chosen_finalists, recipe_of
from workers.phases.verify import Judged, best_of, judged, nearest_of
from workers.plan import JobPlan
from workers.pools.executor import Executor, LocalExecutor
from workers.ports import Outcome, Ports, Recorded, Verdict
from workers.progress import Evaluated, Slot, Summarised
from workers.reporting.summary import COUNTS, predicted_summary, summary
from workers.running.context import Context, Halted
from workers.running.decided import decided
from workers.running.inputs import Inputs
from workers.search.endpoints import ORIGIN, REACH, UNCHANGED, nearest_corner, out_of_reach, unchanged, uncut_within
from workers.search.neighbour import smaller_neighbour
from workers.search.table_watch import TableWatch
from workers.training.common_epochs import common_epochs, shortened, trains
from workers.training.parallel_training import OUT_OF_TIME

__all__ = ["JobPlan", "Outcome", "Ports", "Recorded", "run"]

NEIGHBOURS = 2
"""Slightly smaller networks tried when latency alone is a little too high."""
NEIGHBOUR = "neighbour-"
A_LITTLE = 0.10
SLOWEST = 5.0
"""Times the control's training that a sample may take: L-C is slower, and others may compute beside it."""
ALIKE = 0.97
"""Of the original: folding its batch norms alone takes a few numbers away."""
_SLOTS: Mapping[Verdict, tuple[Slot, Slot]] = {"met": ("best", "nearest"), "missed": ("nearest", "best")}
"""The slot that a verdict fills, and the one that it leaves empty."""


def run(plan: JobPlan, ports: Ports, lock: HostLock | None = None, executor: Executor | None = None) -> Outcome:
    """Run a job, or go on with it.

    Args:
        lock: shared around heavy work; the default is this machine's.
        executor: what evaluates and trains; the default is this machine's own processes.

    Raises:
        JobFailed: it cannot go on; `code`, `step`, `field` and `detail` say why.
        LeaseLost, DeviceOffline, MeasurementFailed: out of the ports; none of them is the job's fault.
        PoolBroken: no evaluator comes up; nor is that.
    """
    context = Context(plan, ports, ports.recorded(), lock or HostLock())
    try:
        return _Run(context, executor or LocalExecutor()).outcome()
    except Halted as halted:
        return Outcome("paused" if halted.end == "paused" else "cancelled", None, f"{halted.end} by the user")


class _Run:
    def __init__(self, context: Context, executor: Executor) -> None:
        self.context = context
        self.executor = executor
        self.inputs = Inputs.open(context)
        self.summaries: dict[str, Mapping[str, Any]] = {}
        self.given_up: Mapping[str, str] = {}

    def outcome(self) -> Outcome:
        """Every phase in turn."""
        found = profile(self.context, self.inputs)
        self._summarise("original", self._original(found))
        blocked = self._under_the_floor(found)
        if blocked is not None:
            return self._missed_early(found, blocked)
        material = gathered(self.context, self.inputs, found)
        found, problem, evaluated = self._search(found, material)
        nearest = decided(
            self.context, "out-of-reach", lambda: out_of_reach(problem, found.builder, found.smallest, evaluated)
        )
        if nearest:
            return self._missed_untrained(found, problem, nearest[0], evaluated)
        control, verdicts = self._train_and_verify(found, material, problem, evaluated)
        return self._concluded(found, control, verdicts, evaluated)

    # profile

    def _original(
        self, found: Profile, beside: Mapping[str, Mapping[str, float]] | None = None, test: float | None = None
    ) -> dict[str, Any]:
        """`beside`: what it took in the session that the finalists were judged in, once there was one."""
        first = {timed.target.device_id: {"measured": timed.resting_ms(timed.original)} for timed in found.devices}
        return summary(
            accuracy=found.original["accuracy"],
            test_accuracy=test,
            latency_ms=beside or first,
            counts=found.original,
        )

    def _under_the_floor(self, found: Profile) -> TimedDevice | None:
        """A target that nothing in the space can reach: neither by table nor as the smallest network runs."""
        for timed in found.devices:
            if min(timed.resting_ms(timed.smallest), found.floor_ms(timed)) > timed.allowed_ms:
                return timed
        return None

    def _missed_early(self, found: Profile, timed: TimedDevice) -> Outcome:
        reason = (
            f"{timed.target.device_name}: {timed.limit_ms:.3f} ms are asked for, and the smallest network that "
            f"the methods can make takes {timed.resting_ms(timed.smallest):.3f} ms."
        )
        metrics = found.builder.counts(found.smallest)
        latency = {each.target.device_id: {"measured": each.resting_ms(each.smallest)} for each in found.devices}
        return self._missed(found, reason, summary(latency_ms=latency, counts=metrics, values=dict(found.smallest)))

    def _missed(
        self, found: Profile, reason: str, nearest: Mapping[str, Any], evaluated: Sequence[Evaluated] = ()
    ) -> Outcome:
        """The end of a job of which nothing is trained."""
        self.context.say(reason, "warning")
        self._clear("best")
        self._summarise("nearest", nearest)
        package(self.context, self.inputs, found, Findings("missed", reason, self.summaries, evaluated))
        return Outcome("finished", "missed", reason, self.summaries)

    # statistics and search

    def _search(self, found: Profile, material: Material) -> tuple[Profile, Problem, Sequence[Evaluated]]:
        """What was evaluated, and the profile and the problem by the newest tables."""
        plan, reference = self.context.plan, None
        training, deadline_s = Recipe(), plan.effort.candidate_s
        if trains(self.context):
            control = self._control_ahead(material)
            with self.context.computing():
                reference = float(right_in_file(control.model, *material.ranking).mean())
            training = replace(recipe_of(self.context, self.inputs), epochs=common_epochs(self.context))
            deadline_s += SLOWEST * control.elapsed_s
        factory = EvaluatorFactory(material, training=training)
        with self.executor.pool(factory, plan.effort.processes, deadline_s, self.context.lock.shared) as pool:
            curves = sensitivities(self.context, found.builder.space, material, pool)

            def make(newest: Profile) -> Problem:
                return problem_of(self.context, newest, curves, material, reference, self.inputs.chance)

            watch = TableWatch(self.context, found, make)
            ended = searched(self.context, self.inputs, watch, pool, Sampler(material, training).reached)
        return watch.profile, watch.problem, ended.evaluated

    def _control_ahead(self, material: Material) -> Trained:
        """Trained before a search of whole trainings: what those may lose, they may lose against it."""
        self.context.at("statistics", 0, 1)
        trainer = Trainer(
            self.context, self.inputs, material, recipe_of(self.context, self.inputs), 1, phase="statistics"
        )
        trainer.ahead(self.executor)
        return trainer.control()

    def _missed_untrained(
        self, found: Profile, problem: Problem, nearest: Evaluated, evaluated: Sequence[Evaluated]
    ) -> Outcome:
        candidate = nearest.evaluation.candidate
        known = [candidate.values, found.smallest, *(each.evaluation.candidate.values for each in evaluated)]
        over = problem.violations(known)
        reason = (
            f"No network that was found is predicted within {REACH:.0%} of the limits: each is at least "
            f"{over.min():.1%} over them. The nearest that is worth having, {candidate.id}, is {over[0]:.1%} over "
            "them. Nothing was trained."
        )
        row = {**predicted_summary(nearest), "values": dict(candidate.values)}
        if candidate.origin == ORIGIN:  # no evaluation of the search
            row["evaluation_id"] = None
        if candidate.id == UNCHANGED:
            row["accuracy"] = found.original["accuracy"]
        return self._missed(found, reason, row, evaluated)

    # train and verify

    def _train_and_verify(
        self, found: Profile, material: Material, problem: Problem, evaluated: Sequence[Evaluated]
    ) -> tuple[Trained, tuple[Judged, ...]]:
        budget = self.context.plan.budget
        chosen = decided(
            self.context,
            "finalists",
            lambda: self._chosen(found, problem, evaluated, budget.finalists),
        )
        self.context.at("train", 0, len(chosen) + 1)
        trainer, control = self._control(found, material, chosen)
        self._summarise(
            "control",
            summary(accuracy=control.accuracy, counts=control.counts, accuracy_interval=interval(control.right)),
        )
        trainer.ahead(self.executor, chosen)
        finalists = self._trained(trainer, chosen)
        verdicts = judged(self.context, self.inputs, found, control, finalists)
        for attempt in range(1, NEIGHBOURS + 1):
            wanted = decided(
                self.context, f"{NEIGHBOUR}{attempt}", partial(self._neighbour, problem, verdicts, attempt)
            )
            trainer.ahead(self.executor, wanted)
            trained = trainer.finalist(wanted[0].strategy, wanted[0].evaluation) if wanted else None
            if trained is None:
                break
            verdicts += judged(self.context, self.inputs, found, control, [trained], attempt)
        verdicts += self._uncut(found, problem, control, verdicts)
        self.given_up = trainer.given_up
        return control, verdicts

    def _uncut(
        self, found: Profile, problem: Problem, control: Trained, verdicts: Sequence[Judged]
    ) -> tuple[Judged, ...]:
        """The control, judged as the uncut network, if no finalist meets the limits and the nearest one has lost
        accuracy: what has lost too much of it is no answer, and the uncut network may be nearer.
        """
        nearest = nearest_of(verdicts)
        known = [each.trained.candidate_id for each in verdicts]
        if nearest is None or best_of(verdicts) is not None or nearest.only_slow or UNCHANGED in known:
            return ()
        if nearest.trained.accuracy >= control.accuracy:
            return ()
        corner = unchanged(problem, found.builder).evaluation
        values, predicted = corner.candidate.values, corner.metrics
        uncut = replace(control, name=f"{FINALIST}{UNCHANGED}", strategy=ORIGIN, values=values, predicted=predicted)
        return judged(self.context, self.inputs, found, control, [uncut], NEIGHBOURS + 1, searched=False)

    def _control(self, found: Profile, material: Material, chosen: Sequence[Evaluated]) -> tuple[Trainer, Trained]:
        """The control, and a trainer of the form that trains well: given-back batch norms are taken away again
        where the control loses accuracy by them.
        """
        recipe, total = recipe_of(self.context, self.inputs), len(chosen) + 1
        given_back = norm_count(material.network) != norm_count(self.inputs.network)
        trainer = Trainer(self.context, self.inputs, material, recipe, total)
        # While the form is in doubt, the control goes first: finalists of the wrong form would be trained in vain.
        trainer.ahead(self.executor, () if given_back else chosen)
        control = trainer.control()
        lost = drop(original_right(self.context, self.inputs), control.right)
        if lost.low <= 0.0:
            return trainer, control
        self.context.say(f"Training costs the control {lost.mean:.2%} of the original's accuracy.", "warning")
        if not given_back:
            return trainer, control
        if not self._lasts_for_another(control):
            return trainer, control
        plain = gathered(self.context, self.inputs, found, norms=False)
        other = Trainer(self.context, self.inputs, plain, recipe, total, form="plain-")
        other.ahead(self.executor)
        again = other.control()
        if again.accuracy <= control.accuracy:
            self.context.say("Removing the inserted batch norms did not improve the control; they are kept.")
            return trainer, control
        self.context.say("Removing the inserted batch norms improved the control; they are removed.")
        return other, again

    def _lasts_for_another(self, control: Trained) -> bool:
        """Whether a second control and one finalist fit into the wall seconds; decided once."""
        known = self.context.recall("second-control")
        if known is None:
            fits = self.context.spent_s + 2.0 * control.elapsed_s <= self.context.plan.budget.wall_s
            known = {"fits": fits}
            self.context.keep("second-control", known)
            if not fits:
                text = "The wall seconds do not last for a second control without the batch norms that it was given."
                self.context.say(text, "warning")
        return bool(known["fits"])

    def _trained(self, trainer: Trainer, chosen: Sequence[Evaluated]) -> list[Trained]:
        """The first in any case, another one where the wall seconds will last for it."""
        context, done, longest_s = self.context, list[Trained](), 0.0
        for each in chosen:
            if done and not trainer.has(each.evaluation) and context.spent_s + longest_s > context.plan.budget.wall_s:
                trainer.give_up(each.evaluation, f"{OUT_OF_TIME} do not last for it")
                continue
            begun_s = context.spent_s
            trained = trainer.finalist(each.strategy, each.evaluation)
            longest_s = max(longest_s, context.spent_s - begun_s)
            done += [trained] if trained is not None else []
        if not done:
            raise JobFailed("finalists_diverged", "train", "the training of every finalist diverged or was stopped")
        return done

    def _chosen(
        self, found: Profile, problem: Problem, evaluated: Sequence[Evaluated], count: int
    ) -> Sequence[Evaluated]:
        """The best of the search; where nothing of it is within the limits, the uncut network before the nearest."""
        chosen = chosen_finalists(evaluated, problem, count)
        if any(each.feasible for each in chosen):
            return chosen
        uncut = uncut_within(problem, found.builder, [each.evaluation.candidate.values for each in evaluated])
        if chosen and uncut:
            text = "Nothing that was evaluated is within the limits, and the uncut network may be: it is trained first."
            self.context.say(text)
        if chosen:
            return [*uncut, *chosen][:count]
        ends = uncut[:count] or [nearest_corner(problem, found.builder, found.smallest)]
        names = ", ".join(each.evaluation.candidate.id for each in ends)
        self.context.warn(f"The search evaluated no candidate to its end: what is judged is the {names} network.")
        return ends

    def _worth_another(self, verdicts: Sequence[Judged]) -> Judged | None:
        """The nearest, where latency alone keeps it from the limits, and by little."""
        nearest = nearest_of(verdicts)
        if nearest is None or nearest.met or not nearest.only_slow:
            return None
        return nearest if max(each.excess for each in nearest.timed) <= A_LITTLE else None

    def _lasts_for(self, nearest: Judged) -> bool:
        return self.context.spent_s + nearest.trained.elapsed_s < self.context.plan.budget.wall_s

    def _neighbour(self, problem: Problem, verdicts: Sequence[Judged], attempt: int) -> list[Evaluated]:
        """One candidate, where a smaller one is worth a training; else none."""
        nearest = self._worth_another(verdicts)
        if nearest is None or not self._lasts_for(nearest):
            return []
        values = smaller_neighbour(problem, nearest.trained.values, nearest.timed)
        if values is None:
            return []
        self.context.say(f"{nearest.trained.name} is a little too slow: a smaller neighbour is trained.")
        metrics = {name: float(column[0]) for name, column in problem.estimate([values]).items()}
        origin = nearest.trained.candidate_id
        candidate = Candidate(f"{NEIGHBOUR}{attempt}", values, origin="neighbour", parents=(origin,))
        return [Evaluated(nearest.trained.strategy or "", Evaluation(candidate, Status.COMPLETED, metrics))]

    # package

    def _concluded(
        self, found: Profile, control: Trained, verdicts: Sequence[Judged], evaluated: Sequence[Evaluated]
    ) -> Outcome:
        chosen = best_of(verdicts)
        verdict: Verdict = "met" if chosen is not None else "missed"
        shown = chosen or nearest_of(verdicts)
        assert shown is not None, "a job that came this far has at least one finalist"
        test = self._test_accuracies(shown.trained)
        beside = {timed.device_id: {"measured": timed.original_ms} for timed in shown.timed}
        self._summarise("original", self._original(found, beside, test["original"]))
        slot, other = _SLOTS[verdict]
        self._clear(other)
        self._summarise(slot, self._shown(shown, test["chosen"], len(verdicts)))
        reason = "Every limit holds on the file itself." if shown.met else "; ".join(shown.broken) + "."
        warnings = [f"{doubt}; {_chosen_among(len(verdicts))}." for doubt in shown.doubts]
        warnings += [*shortened(self.context), *cut_short(self.context, evaluated), *self._out_of_time(verdicts)]
        warnings += [*self._without_gain(found, shown), *_larger(found, shown)]
        for warning in warnings:
            self.context.warn(warning)
        told = warnings, self.given_up
        findings = Findings(verdict, reason, self.summaries, evaluated, verdicts, shown.trained, *told)
        package(self.context, self.inputs, found, findings)
        return Outcome("finished", verdict, reason, self.summaries)

    def _out_of_time(self, verdicts: Sequence[Judged]) -> list[str]:
        """What the wall seconds did not last for, after the search."""
        said, wall = [], f"{self.context.plan.budget.wall_s:g} wall seconds did not last"
        late = [name for name, reason in self.given_up.items() if reason.startswith(OUT_OF_TIME)]
        if late:
            said.append(f"{wall} to train these to their end: {', '.join(late)}.")
        tried = sum(each.trained.candidate_id.startswith(NEIGHBOUR) for each in verdicts)
        nearest = self._worth_another(verdicts)
        if nearest is not None and tried < NEIGHBOURS and not self._lasts_for(nearest):
            said.append(f"{nearest.trained.candidate_id} is a little too slow: {wall} for a smaller neighbour.")
        return said

    def _without_gain(self, found: Profile, shown: Judged) -> list[str]:
        """A sentence where what the least was wanted of did not become less, or nothing did."""
        wanted, counts = self.context.plan.objective_metric, shown.trained.counts
        if wanted in counts and counts[wanted] >= found.original[wanted]:
            seen, before = (METRICS[wanted].show(value) for value in (counts[wanted], found.original[wanted]))
            return [f"{METRICS[wanted].label}: {seen}, and the original has {before}: nothing was gained."]
        slower = all(timed.measured_ms >= timed.original_ms for timed in shown.timed)
        if slower and all(counts[name] > ALIKE * found.original[name] for name in COUNTS):
            return ["The result is neither smaller nor faster than the original."]
        return []

    def _test_accuracies(self, chosen: Trained) -> dict[str, float]:
        """Read once, at the end, for the original and the one chosen file."""
        known = self.context.recall("test-accuracy")
        if known is not None and known["name"] != chosen.name:
            detail = f"the test part was read for {known['name']} and would be read again for {chosen.name}"
            raise JobFailed("test_read_twice", "package", detail)
        if known is None:
            with self.context.computing():
                original = self.inputs.test_accuracy(self.inputs.network.save())
                known = {"name": chosen.name, "original": original, "chosen": self.inputs.test_accuracy(chosen.model)}
            self.context.keep("test-accuracy", known)
        return known

    def _shown(self, each: Judged, test_accuracy: float, finalists: int) -> dict[str, Any]:
        return summary(
            evaluation_id=f"{each.trained.candidate_id}-timed",
            strategy=each.trained.strategy,
            accuracy=each.trained.accuracy,
            test_accuracy=test_accuracy,
            latency_ms={timed.device_id: timed.row() for timed in each.timed},
            counts=each.trained.counts,
            accuracy_drop={"mean": each.drop.mean, "low": each.drop.low, "high": each.drop.high, "n": each.drop.count},
            accuracy_interval=interval(each.trained.right),
            finalists=finalists,
            values=dict(each.trained.values),
        )

    def _summarise(self, slot: Slot, row: Mapping[str, Any]) -> None:
        self.summaries[slot] = row
        self.context.ports.emit(Summarised(slot, row))

    def _clear(self, slot: Slot) -> None:
        """Nothing stands there: what a search announced as the best so far may have met no limit in the end."""
        self.summaries.pop(slot, None)
        self.context.ports.emit(Summarised(slot, None))


def _larger(found: Profile, shown: Judged) -> list[str]:
    """A sentence where the file takes more bytes than the upload."""
    made, came = shown.trained.counts["size_bytes"], found.original["size_bytes"]
    if made <= came:
        return []
    return [f"The result is larger than the upload: {made:,.0f} bytes, and the upload has {came:,.0f}."]


def _chosen_among(count: int) -> str:
    """The best of several by the images that judge them looks better than it is."""
    if count == 1:
        return "it was the only finalist"
    return f"it was chosen among {count} finalists on these very images, which flatters it"

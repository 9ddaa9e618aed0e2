"""Greedy descent to the limit, one step of one knob at a time (NetAdapt, Yang et al. 2018), then local swaps.

As in the paper, a round makes one proposal per knob: the knob is cut until the table predicts the round's target
latency. The round evaluates the proposals and commits to the one that loses the least score per latency saved. The
departures make do with tens of evaluations instead of thousands:
- a round only evaluates the most promising knobs, according to F1 statistics scaled by the evaluations so far;
- rounds are few, so steps are large: the leading knob loses at most a part of its width, and the rest of the step is
  made up by the cuts with the least predicted loss, of any knobs. With many rounds there is no such rest, as in plain
  NetAdapt;
- other options of unordered knobs (int8) are tried first, and are taken at once if they lose almost nothing;
- the first round also proposes a point that meets the limit in one step, so that a short budget suffices;
- several limits may hold at once: "latency" is the summed relative violation of all constraints;
- after the limit is met, the rest of the budget goes to raising widths and swapping width between knobs.

Every proposal is computed from the known evaluations alone, so that a restart loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from search.candidate import Candidate
from search.evaluation import Evaluation
from search.knowledge import Knowledge
from search.problem import Problem
from search.space.settings import Bounds, Doc
from search.stepping.lattice import Lattice, Point, distinct
from search.stepping.losses import Losses
from search.stepping.moves import Moves
from search.strategy import StrategyFamily


@dataclass(frozen=True)
class Settings:
    """Settings for how the budget is used."""

    descent: Annotated[float, Doc("share of the evaluations used to reach the limit"), Bounds(0.1, 1.0)] = 0.5
    lead: Annotated[
        float, Doc("largest share of its width that the leading knob of a round loses"), Bounds(0.05, 1.0)
    ] = 0.35
    free_loss: Annotated[
        float,
        Doc("largest share of the objective that an option (int8) may lose to be taken at once"),
        Bounds(0.0, 0.2),
    ] = 0.01
    curiosity: Annotated[
        float, Doc("standard deviations added to the predicted result of a swap"), Bounds(0.0, 5.0)
    ] = 0.5


@dataclass(frozen=True, eq=False)
class Stage:
    """Proposals, the most promising first. The stage is complete once `width` of its proposals have succeeded, taken in
    order.
    """

    base: Point
    proposals: tuple[Point, ...]
    width: int


class Greedy:
    """Strategy whose stages depend only on results of earlier stages, so that a new instance can take over.

    The seed is not used. Raises: InvalidInput for a Subset knob.
    """

    def __init__(self, problem: Problem, settings: Settings, seed: int) -> None:
        self._problem = problem
        self._settings = settings
        self._lattice = Lattice(problem)
        self._losses = Losses(problem, self._lattice)
        self._known = Knowledge(problem, "greedy", seed)
        budget = max(1, round(settings.descent * problem.evaluations))
        self._width = min(max(2, round(budget**0.5)), budget, len(problem.space.knobs))
        self._rounds = max(1, (budget - 1) // self._width)
        self._way_down = len(self._options(self._lattice.top).proposals) + 1 + self._rounds * self._width

    def ask(self, count: int) -> list[Candidate]:
        stage = self._descend()
        if stage is None:
            return self._improve(count)
        wanted = [p for p in self._counted(stage) if self._known.fresh(self._lattice.values(p))]
        # Repeated failures, or new latency tables that change every step, must not make the descent endless.
        if wanted and self._known.asked >= self._way_down:
            return self._improve(count)
        return [self._candidate(point, stage.base) for point in wanted[:count]]

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        self._known.note(evaluations, pending)

    def _candidate(self, point: Point, base: Point) -> Candidate:
        parents = self._known.parents(self._lattice.values(base))
        return self._known.candidate(self._lattice.values(point), parents)

    def _resolved(self, point: Point) -> bool:
        return self._known.resolved(self._lattice.values(point))

    def _utility(self, point: Point) -> float | None:
        return self._known.utility(self._lattice.values(point))

    # Descent: stages until the limit is met.

    def _descend(self) -> Stage | None:
        """Return the first stage whose results are incomplete; None once the descent is done."""
        base, trail = self._lattice.top, list[Point]()
        self._check_reachable()
        for stage_number in range(self._rounds + 1):
            stage = self._options(base) if stage_number == 0 else self._round(base, trail, stage_number)
            counted = self._counted(stage)
            if not all(self._resolved(point) for point in counted):
                return stage
            trail += counted
            base = self._commit(stage, counted, free_only=stage_number == 0)
        return None

    def _check_reachable(self) -> None:
        """Raise Infeasible before any evaluation if the estimate leads to no point within the limits."""
        reached = self._reach(Moves(self._lattice, self._losses.loss))
        if self._lattice.violation(reached) > 0.0:
            raise self._lattice.infeasible(reached)

    def _reach(self, moves: Moves) -> Point:
        """Return the end of the walk at the least predicted loss from the uncut network down to the limits.

        If the walk ends above the limits, return whichever is nearest to them: its end or the smallest network of one
        of the options.
        """
        reached, violation = moves.walk(self._lattice.top, 0.0)
        if violation > 0.0:
            options = range(max([1, *(self._lattice.counts[i] for i in self._lattice.unordered)]))
            corners = [corner for option in options if moves.allows(corner := self._corner(option))]
            reached = min((reached, *corners), key=self._lattice.violation)
        return moves.give_back(reached)

    def _corner(self, option: int) -> Point:
        """Return the point with every width at its smallest value and every unordered knob at the option with this
        number.
        """
        corner = np.zeros_like(self._lattice.top)
        for i in self._lattice.unordered:
            corner[i] = min(option, self._lattice.counts[i] - 1)
        return corner

    def _counted(self, stage: Stage) -> list[Point]:
        """Return the proposals that the stage waits for; a failed proposal is replaced by the next in line."""
        counted: list[Point] = []
        useful = 0
        for point in stage.proposals:
            if useful == stage.width:
                break
            counted.append(point)
            useful += not (self._resolved(point) and self._utility(point) is None)
        return counted

    def _options(self, base: Point) -> Stage:
        """Return the stage that tries every other option of an unordered knob that reduces the violation.

        The stage also has the uncut network, for comparison, if the budget allows it or its score is unknown.
        """
        moves = Moves(self._lattice, self._losses.loss)
        violation = self._lattice.violation(base)
        others = [
            point
            for i in self._lattice.unordered
            for point in moves.sweep(base, i, range(1, self._lattice.counts[i]))
            if self._lattice.violation(point) < violation
        ]
        unknown = self._problem.objective.metric not in self._problem.original
        if violation == 0.0 or (others and (unknown or self._problem.evaluations >= 20)):
            others.append(base)
        return Stage(base, tuple(others), len(others))

    def _round(self, base: Point, trail: Sequence[Point], number: int) -> Stage:
        """Return the stage with one proposal per knob, cut to the round's target; least loss per gain comes first."""
        violation = self._lattice.violation(base)
        if violation == 0.0:
            return Stage(base, (), 0)
        target = violation * (1.0 - 1.0 / (self._rounds - number + 1))
        losses = self._fitted(trail)
        moves = Moves(self._lattice, losses.loss, self._banned(trail))
        proposals = distinct([p for i in range(len(base)) for p in self._lead(base, i, target, moves)])
        if not proposals:
            return Stage(base, (), 0)
        points = np.stack(proposals)
        prices = (losses.loss(points) - losses.loss(base[None])) / (violation - self._lattice.violations(points))
        ranked = list(points[np.argsort(prices, kind="stable")])
        if number > 1:
            return Stage(base, tuple(ranked), self._width)
        # Also go all the way by prediction alone, so that a point within the limits is known from the first round on.
        return Stage(base, tuple(distinct([self._reach(moves), *ranked])), self._width + 1)

    def _lead(self, base: Point, knob: int, target: float, moves: Moves) -> Iterator[Point]:
        """Yield the point in which `knob` is cut towards the target and the other knobs make up the rest."""
        if knob in self._lattice.unordered:
            return  # the stage of options tries these knobs; `fill` may still choose their options at the measured loss
        shares = self._lattice.rungs[knob].shares
        floor = int(np.searchsorted(shares, shares[base[knob]] * (1.0 - self._settings.lead)))
        led = moves.lower(base, knob, target, floor=min(floor, int(base[knob])))
        if self._lattice.violation(led) < self._lattice.violation(base):
            filled = moves.fill(led, target, frozen=(knob,))
            if filled is not None:
                yield moves.give_back(filled, target, frozen=(knob,))

    def _commit(self, stage: Stage, counted: Sequence[Point], free_only: bool) -> Point:
        """Return the proposal with the least loss per violation removed, or the base if all proposals failed."""
        base_utility = self._base_utility(stage.base, counted)
        violation = self._lattice.violation(stage.base)
        best, best_price = stage.base, np.inf
        for point in counted:
            utility, gain = self._utility(point), violation - self._lattice.violation(point)
            if utility is None or gain <= 0.0:
                continue
            loss = base_utility - utility
            if free_only and loss > self._settings.free_loss * self._losses.unit:
                continue
            # If the loss is below zero, a larger gain is better, not worse.
            price = loss / gain if loss > 0.0 else loss * gain
            if price < best_price:
                best, best_price = point, price
        return best

    def _base_utility(self, base: Point, counted: Sequence[Point]) -> float:
        found = self._utility(base)
        if found is not None:
            return found
        if self._problem.objective.metric in self._problem.original:
            return self._problem.objective.utility(self._problem.original)
        return max((u for p in counted if (u := self._utility(p)) is not None), default=0.0)

    # Improvement: spend the rest of the budget on swaps around the best point.

    def _improve(self, count: int) -> list[Candidate]:
        points = self._points()
        losses = self._fitted(points)
        moves = Moves(self._lattice, losses.loss, self._banned(points))
        best = self._incumbent(points)
        base = self._lattice.top if best is None else best
        pool = distinct(list(self._neighbours(best, moves)))
        fresh = [point for point in pool if self._known.fresh(self._lattice.values(point))]
        if not fresh:
            return []
        predicted = losses.predict(np.stack(fresh))
        order = np.argsort(predicted.loss - self._settings.curiosity * predicted.sigma, kind="stable")
        return [self._candidate(fresh[i], base) for i in order[:count]]

    def _neighbours(self, best: Point | None, moves: Moves) -> Iterator[Point]:
        """Yield points just within the limits: first the point predicted to be best, then swaps around the best known
        point.
        """
        target = self._reach(moves)
        if self._lattice.violation(target) == 0.0:
            yield target
        if best is None:
            return
        yield moves.give_back(best)
        for i in range(len(best)):
            for swapped in moves.sweep(best, i, range(self._lattice.counts[i])):
                if not moves.allows(swapped):
                    continue
                filled = moves.fill(swapped, 0.0, frozen=(i,))
                if filled is not None:
                    yield moves.give_back(moves.give_back(filled, frozen=(i,)))

    def _incumbent(self, points: Sequence[Point]) -> Point | None:
        """Return the feasible point with the best known objective."""
        best: tuple[float, Point] | None = None
        for point in points:
            utility = self._utility(point)
            if utility is None or self._lattice.violation(point) > 0.0:
                continue
            if best is None or utility > best[0]:
                best = utility, point
        return None if best is None else best[1]

    def _points(self) -> list[Point]:
        """Return all completed points that lie on the lattice, including those of other strategies."""
        found = (self._lattice.point(values) for values, _ in self._known.completed())
        return [point for point in found if point is not None]

    def _fitted(self, points: Sequence[Point]) -> Losses:
        known = [(p, u) for p in points if (u := self._utility(p)) is not None]
        return self._losses.fit([p for p, _ in known], [u for _, u in known])

    def _banned(self, points: Sequence[Point]) -> set[tuple[int, int]]:
        """Return the options that failed when tried alone and have not worked at any other point."""
        alone = [p for i in self._lattice.unordered for p in self._alone(i)]
        failed = [p for p in alone if self._resolved(p) and self._utility(p) is None]
        worked = [p for p in points if self._utility(p) is not None]
        return {
            (i, int(p[i]))
            for p in failed
            for i in self._lattice.unordered
            if p[i] and not any(w[i] == p[i] for w in worked)
        }

    def _alone(self, knob: int) -> Iterator[Point]:
        for option in range(1, self._lattice.counts[knob]):
            point = self._lattice.top.copy()
            point[knob] = option
            yield point


STRATEGY = StrategyFamily(
    name="greedy",
    summary="Cuts the knob that costs the least score per latency, round by round, then swaps widths.",
    source="Yang et al. 2018, NetAdapt (arXiv 1804.03230)",
    settings=Settings,
    make=Greedy,
)

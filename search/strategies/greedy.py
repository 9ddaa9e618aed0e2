"""Greedy descent to the limit, one knob's step after another (NetAdapt, Yang et al. 2018), then local swaps.

As in the paper, a round asks for one proposal per knob, each cut until the round's latency step is reached by
table, evaluates them and commits the best accuracy per latency. Departures, each for a budget of tens of
evaluations instead of thousands:
- a round asks only for the most promising knobs, by F1 statistics scaled by the evaluations so far;
- rounds are few, so steps are large: a knob leads with a part of its width at most, and the rest of the step is
  filled from all knobs at the least predicted loss. With many rounds nothing is left to fill: plain NetAdapt;
- other options of unordered knobs (int8) come first, and are taken at once when they cost next to nothing;
- the first round also asks for the limit in one leap, so that a short budget ends under it;
- several limits at once: "latency" is the summed relative violation of all constraints;
- after the limit is met, what is left of the budget gives back width and swaps it between knobs.
Every ask is worked out from the evaluations known, not from the course of the run: restart is free.
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
    """How the budget is spent."""

    descent: Annotated[float, Doc("share of the evaluations for the way down to the limit"), Bounds(0.1, 1.0)] = 0.5
    lead: Annotated[
        float, Doc("the most of its width that a knob loses as the lead of one round"), Bounds(0.05, 1.0)
    ] = 0.35
    free_loss: Annotated[
        float, Doc("an option (int8) that loses at most this share of the objective is taken"), Bounds(0.0, 0.2)
    ] = 0.01
    curiosity: Annotated[
        float, Doc("standard deviations added to what a swap is predicted to reach"), Bounds(0.0, 5.0)
    ] = 0.5


@dataclass(frozen=True, eq=False)
class Stage:
    """Proposals in the order of their promise; the first `width` that did not fail are evaluated."""

    base: Point
    proposals: tuple[Point, ...]
    width: int


class Greedy:
    """Stages are a function of the results of the stages before, so a fresh one finds its place by being told.

    The seed plays no role. Raises: InvalidInput for a Subset knob.
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
        # Failures, and a new latency table that moves every step, must not make the way down endless.
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

    # The way down: stages until the limit is met.

    def _descend(self) -> Stage | None:
        """The first stage with results missing; None once the way down is done."""
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
        """Raises: Infeasible, before anything is spent, where the estimate leads to no point under the limits."""
        reached = self._reach(Moves(self._lattice, self._losses.loss))
        if self._lattice.violation(reached) > 0.0:
            raise self._lattice.infeasible(reached)

    def _reach(self, moves: Moves) -> Point:
        """From the uncut network down to the limits at the least predicted loss; where that walk ends above
        them, the nearest of its end and the smallest networks of each option."""
        reached, violation = moves.walk(self._lattice.top, 0.0)
        if violation > 0.0:
            options = range(max([1, *(self._lattice.counts[i] for i in self._lattice.unordered)]))
            corners = [corner for option in options if moves.allows(corner := self._corner(option))]
            reached = min((reached, *corners), key=self._lattice.violation)
        return moves.give_back(reached)

    def _corner(self, option: int) -> Point:
        """Every width at its smallest, every unordered knob at its option of that number."""
        corner = np.zeros_like(self._lattice.top)
        for i in self._lattice.unordered:
            corner[i] = min(option, self._lattice.counts[i] - 1)
        return corner

    def _counted(self, stage: Stage) -> list[Point]:
        """The proposals that the stage waits for: a failed one is replaced by the next in line."""
        counted: list[Point] = []
        useful = 0
        for point in stage.proposals:
            if useful == stage.width:
                break
            counted.append(point)
            useful += not (self._resolved(point) and self._utility(point) is None)
        return counted

    def _options(self, base: Point) -> Stage:
        """Every other option of the unordered knobs that brings the limit nearer, and the uncut network to
        compare with where the budget allows it or nothing else is known of it."""
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
        """One proposal per knob, each down to the round's target, by predicted loss per violation gained."""
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
        # All the way at once, by prediction alone: something under the limits is known from the first round on.
        return Stage(base, tuple(distinct([self._reach(moves), *ranked])), self._width + 1)

    def _lead(self, base: Point, knob: int, target: float, moves: Moves) -> Iterator[Point]:
        """Knob `knob` cut towards the target, the rest filled from the others."""
        if knob in self._lattice.unordered:
            return  # the stage of options has had them; fills take them at the price that was seen
        shares = self._lattice.rungs[knob].shares
        floor = int(np.searchsorted(shares, shares[base[knob]] * (1.0 - self._settings.lead)))
        led = moves.lower(base, knob, target, floor=min(floor, int(base[knob])))
        if self._lattice.violation(led) < self._lattice.violation(base):
            filled = moves.fill(led, target, frozen=(knob,))
            if filled is not None:
                yield moves.give_back(filled, target, frozen=(knob,))

    def _commit(self, stage: Stage, counted: Sequence[Point], free_only: bool) -> Point:
        """The proposal with the least loss per violation gained; the base where none came through."""
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
            # A loss below zero is a better network still: more gain is better then, not worse.
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

    # What is left of the budget: swaps around the best.

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
        """Points under the limits with no slack: the predicted best of all, and swaps around the best known."""
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
        """The feasible point with the best objective known."""
        best: tuple[float, Point] | None = None
        for point in points:
            utility = self._utility(point)
            if utility is None or self._lattice.violation(point) > 0.0:
                continue
            if best is None or utility > best[0]:
                best = utility, point
        return None if best is None else best[1]

    def _points(self) -> list[Point]:
        """Everything completed that lies on the lattice, foreign evaluations too."""
        found = (self._lattice.point(values) for values, _ in self._known.completed())
        return [point for point in found if point is not None]

    def _fitted(self, points: Sequence[Point]) -> Losses:
        known = [(p, u) for p in points if (u := self._utility(p)) is not None]
        return self._losses.fit([p for p, _ in known], [u for _, u in known])

    def _banned(self, points: Sequence[Point]) -> set[tuple[int, int]]:
        """Options that were tried alone and failed, and of which nothing else has come through."""
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
    summary="Cuts the knob that costs the least accuracy per latency, round by round, then swaps widths.",
    source="Yang et al. 2018, NetAdapt (arXiv 1804.03230)",
    settings=Settings,
    make=Greedy,
)

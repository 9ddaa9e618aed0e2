"""Environment: what an action leads to. An episode sets one knob after another, within the action bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from search.actor_critic.action_bound import ActionBound
from search.actor_critic.states import States
from search.actor_critic.steps import steps_of
from search.problem import Problem
from search.space import Values
from search.stepping.lattice import Lattice, Point
from search.stepping.losses import Losses
from search.stepping.moves import Moves

_RATIOS = 101
_NOTE = (
    "The action bound is a lower bound, because {}. A candidate that ends above a limit is moved below it, at the "
    "least predicted loss, before it is evaluated."
)

Vector = NDArray[np.float64]


class Environment:
    """The episodes of one problem.

    `fills` is True if an episode that ends below the limits goes on with larger widths until they are reached.
    `repairs` counts the episodes that ended above a limit and went on with less, down to the limits; if the action
    bound is exact, there are none. Both follow the losses that F1 predicts. `notes` has a sentence if it is not exact.
    Raises: InvalidInput for a Subset knob.
    """

    def __init__(self, problem: Problem, fills: bool) -> None:
        self._problem = problem
        self._fills = fills and bool(problem.constraints)
        self._lattice = Lattice(problem)
        self._moves = Moves(self._lattice, Losses(problem, self._lattice).loss)
        self._bound = ActionBound(problem)
        self.steps = steps_of(problem.space, self._lattice.rungs)
        self._states = States(problem, self.steps)
        self.repairs = 0
        self.notes = (_NOTE.format(self._bound.why),) if self._bound.why else ()
        self._columns = {knob.name: column for column, knob in enumerate(problem.space.levelled)}

    def walk(self, act: Callable[[Vector], float]) -> Values | None:
        """Return the values at the end of an episode of actions `act(state)`; None if they cannot meet the limits."""
        point = self._lattice.top.copy()
        levels = self._problem.space.levels(self._problem.space.whole)
        actions = np.ones(len(self.steps))
        fixed: dict[str, int] = {}
        for t, step in enumerate(self.steps):
            (state,) = self._states.before(np.array([t]), levels, actions)
            point[step.place] = rung = step.rung(act(state), self._bound.admissible(fixed, step))
            actions[t] = step.actions[rung]
            if step.levels is not None:
                fixed[step.knob.name] = levels[self._columns[step.knob.name]] = int(step.levels[rung])
        return self._within_limits(point)

    def episode(self, values: Values) -> tuple[NDArray[np.float64], Vector]:
        """Return the states (steps, features) and the actions (steps,) of the episode that ends at these values,
        whichever strategy chose them.
        """
        actions = np.array([step.action(values[step.knob.name]) for step in self.steps])
        return self._states.before(np.arange(len(actions)), self._problem.space.levels(values), actions), actions

    @property
    def uniform_action(self) -> float:
        """The largest action that, taken at every step but those of options, meets the limits with some option; 0 if
        there is none.
        """
        ratios = np.linspace(1.0, 0.0, _RATIOS)
        points = [self._at(float(ratio), option) for option in self._option_numbers() for ratio in ratios]
        feasible = self._lattice.violations(np.stack(points)) == 0.0
        return float(np.tile(ratios, len(feasible) // _RATIOS)[feasible].max(initial=0.0))

    def _option_numbers(self) -> Iterator[int]:
        yield from range(max([1, *(self._lattice.counts[i] for i in self._lattice.unordered)]))

    def _at(self, action: float, option: int) -> Point:
        point = self._lattice.top.copy()
        for step in self.steps:
            last = len(step.rungs) - 1
            point[step.place] = step.rung(action) if step.knob.ordered else min(option, last)
        return point

    def _within_limits(self, point: Point) -> Values | None:
        """Return the values at the point, moved to the limits; None if no way down to the limits is found."""
        if not self._meets(point):
            self.repairs += 1
            point, _ = self._moves.walk(point, 0.0)
            if not self._meets(point):
                return None
        filled = self._moves.give_back(point) if self._fills else point
        return self._lattice.values(filled if self._meets(filled) else point)

    def _meets(self, point: Point) -> bool:
        return float(self._problem.violations([self._lattice.values(point)])[0]) == 0.0

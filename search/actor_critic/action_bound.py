"""Action bound: the rungs from which every limit on a sum of tables can still be met, whatever is decided later.

The released code of AMC (He et al., arXiv 1802.03494) computes the largest keep ratio in closed form, for a cost that
is linear in it. Here, variable elimination gives the least cost of all completions for each level, so nothing is
assumed about the tables.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from search.actor_critic.steps import Step
from search.elimination.least import Least
from search.problem import Problem


class ActionBound:
    """The upper limits on sums of tables, and the least that each sum can still become.

    `exact` is True if admissible rungs alone lead to a network within all limits of the problem: there is at most one
    limit, it is on a sum of tables, and its least sums are exact. Otherwise `why` says why, and the end of an episode
    may need a repair.
    """

    def __init__(self, problem: Problem) -> None:
        counts = problem.space.level_counts
        self._limits = [
            (constraint, Least(problem.terms[constraint.metric], counts))
            for constraint in problem.constraints
            if constraint.sense == "max" and constraint.metric in problem.terms
        ]
        self.why = self._why(len(problem.constraints))
        self.exact = not self.why

    def _why(self, limits: int) -> str:
        if not all(least.exact for _, least in self._limits):
            return "the tables of a limit are too wide to be joined"
        if len(self._limits) < limits:
            return "a limit is not a sum of tables"
        return "several limits are only bounded one by one" if limits > 1 else ""

    def admissible(self, fixed: Mapping[str, int], step: Step) -> NDArray[np.bool_]:
        """Return which rungs (rungs,) of the step are admissible, given the levels decided before it.

        If every rung breaks a limit, those that break the limits the least are admissible.
        """
        violations = np.zeros(len(step.rungs))
        if step.levels is not None:
            for constraint, least in self._limits:
                violations += constraint.violations(least.by_level(fixed, step.knob.name))[step.levels]
        return np.asarray(violations == violations.min())

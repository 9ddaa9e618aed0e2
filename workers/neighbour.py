"""A slightly smaller neighbour of a finalist that was predicted fast enough and measured a little too slow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from search.metrics import latency_metric
from search.problem import Problem
from search.space import Choice, Values
from workers.verdict import Timed

SLACK = 0.995


def smaller_neighbour(problem: Problem, values: Values, timed: Sequence[Timed]) -> Values | None:
    """The values with as much latency taken off, by table, as was measured too much; None where none is left.

    Each step lowers the one knob that loses least by the sensitivities for what it saves.
    """
    levels = problem.space.levels(values)
    start_ms = _latency_ms(problem, levels[None])
    wanted_ms = {
        key: float(start_ms[key][0]) / (1.0 + excess) * SLACK
        for each in timed
        if (excess := each.excess) and (key := latency_metric(each.device_id)) in start_ms
    }
    ordered = [i for i, knob in enumerate(problem.space.knobs) if isinstance(knob, Choice) and knob.ordered]
    while _excess(_latency_ms(problem, levels[None]), wanted_ms)[0] > 0:
        steps = [i for i in ordered if levels[i] > 0]
        if not steps:
            return None
        trials = np.repeat(levels[None], len(steps), axis=0)
        trials[np.arange(len(steps)), steps] -= 1
        saved = _excess(_latency_ms(problem, levels[None]), wanted_ms)[0] - _excess(
            _latency_ms(problem, trials), wanted_ms
        )
        lost = np.array([_lost(problem, i, int(levels[i])) for i in steps])
        if not (saved > 0).any():
            return None
        score = np.where(saved > 0, lost / np.maximum(saved, 1e-12), np.inf)
        levels = trials[int(np.argmin(score))]
    return problem.space.values_of(levels)


def _latency_ms(problem: Problem, levels: np.ndarray) -> Mapping[str, np.ndarray]:
    return {key: terms.latency_ms(levels) for key, terms in problem.terms.items()}


def _excess(latency_ms: Mapping[str, np.ndarray], wanted_ms: Mapping[str, float]) -> np.ndarray:
    """(n,) summed relative excess over what is wanted."""
    parts = [np.maximum(latency_ms[key] / wanted - 1.0, 0.0) for key, wanted in wanted_ms.items()]
    return np.sum(parts, axis=0) if parts else np.zeros(1)


def _lost(problem: Problem, knob: int, level: int) -> float:
    """Accuracy lost by one level less, at least a little: among free steps the one that saves most is taken."""
    curve = problem.statistics.get("sensitivity", {}).get(problem.space.names[knob])
    if curve is None:
        return 1.0
    return max(float(curve[level] - curve[level - 1]), 1e-4)

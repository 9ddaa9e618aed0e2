"""Finds a slightly smaller neighbour of a finalist that was predicted fast enough but measured a little too slow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from search.metrics import latency_metric
from search.problem import Problem
from search.space import Values
from workers.judging.timed import Timed

SLACK = 0.995


def smaller_neighbour(problem: Problem, values: Values, timed: Sequence[Timed]) -> Values | None:
    """Return values whose predicted latency is lower by the measured excess; None if no knob can be lowered further.

    Each step lowers one knob, by as many levels as are needed to save anything, because the cost of widths rises in
    steps. It lowers the knob that, according to the sensitivities, loses the least accuracy for the latency that it
    saves.
    """
    if not problem.terms:  # no table can predict how much a step saves
        return None
    levels = problem.space.levels(values)
    start_ms = _latency_ms(problem, levels[None])
    wanted_ms = {
        key: float(start_ms[key][0]) / (1.0 + each.excess) * SLACK
        for each in timed
        if each.excess and (key := latency_metric(each.device_id)) in start_ms
    }
    while (excess := float(_excess(problem, levels[None], wanted_ms)[0])) > 0:
        moves = [(i, level) for i in _structural(problem) for level in range(int(levels[i]))]
        trials = np.repeat(levels[None], len(moves), axis=0)
        for row, (i, level) in enumerate(moves):
            trials[row, i] = level
        saved = excess - _excess(problem, trials, wanted_ms)
        if not (saved > 0).any():
            return None
        lost = np.array([_lost(problem, i, int(levels[i]), level) for i, level in moves])
        levels = trials[int(np.argmin(np.where(saved > 0, lost / np.maximum(saved, 1e-12), np.inf)))]
    found = problem.space.values_of(levels)
    return {**values, **{knob.name: found[knob.name] for knob in problem.space.levelled}}


def _structural(problem: Problem) -> list[int]:
    """Return the columns of those knobs that remove parts of the network's structure in small steps."""
    return [i for i, knob in enumerate(problem.space.levelled) if knob.role in ("width", "rank")]


def _latency_ms(problem: Problem, levels: np.ndarray) -> Mapping[str, np.ndarray]:
    return {key: terms.latency_ms(levels) for key, terms in problem.terms.items()}


def _excess(problem: Problem, levels: np.ndarray, wanted_ms: Mapping[str, float]) -> np.ndarray:
    """Return the (n,) sums of the relative excesses over the wanted latencies, for levels of shape (n, d)."""
    latency_ms = _latency_ms(problem, levels)
    total = np.zeros(len(levels))
    for key, wanted in wanted_ms.items():
        total += np.maximum(latency_ms[key] / wanted - 1.0, 0.0)
    return total


def _lost(problem: Problem, knob: int, level: int, lower: int) -> float:
    """Return the accuracy lost between two levels. The result is always above zero, so that among steps that lose
    nothing, the step that saves the most is taken.
    """
    curve = problem.statistics.get("sensitivity", {}).get(problem.space.levelled[knob].name)
    if curve is None:
        return float(level - lower)
    return max(float(curve[level] - curve[lower]), 1e-4)

"""Saliencies: estimates, from statistics alone, of what each knob loses at each of its rungs.

    fisher        the summed Fisher scores of the removed units (Theis et al., arXiv 1801.05787), as in the paper
    fisher_share  the share of its own units' Fisher scores that each knob loses
    sensitivity   the score lost if only this knob is turned
    ls_error      the error after a least-squares refit

All are scaled to losses of the objective, so that knobs of every role can be added up: the deepest cuts lose, on
average, as much as the sensitivities say, or a tenth of the objective if these are not known. A knob that lacks the
statistic falls back to its refit error or its importance, normalised, and at last to the shape that cuts usually have.
An option (int8) loses what its sensitivity says, or about as much as the noise of an evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

import numpy as np

from search.problem import Problem
from search.stepping.curves import NOISE, Curve, curve_by, smoothed, usual_shape
from search.stepping.lattice import Lattice, Rungs

Kind: TypeAlias = Literal["fisher", "fisher_share", "sensitivity", "ls_error"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_FALLBACKS = ("ls_error", "importance")


def saliencies(problem: Problem, lattice: Lattice) -> dict[Kind | Literal["shape"], list[Curve]]:
    """Return the losses of all knobs by each saliency that some knob has, or by the usual shape if there is none."""
    maker = _Saliency(problem, lattice)
    found: dict[Kind | Literal["shape"], list[Curve]] = {}
    for kind in KINDS:
        own = maker.own(kind)
        if own:
            found[kind] = maker.completed(own)
    return found or {"shape": maker.completed({})}


class _Saliency:
    def __init__(self, problem: Problem, lattice: Lattice) -> None:
        self._problem = problem
        self._lattice = lattice
        known = problem.original.get(problem.objective.metric)
        self._uncut = None if known is None else problem.objective.utility(problem.original)
        self._unit = abs(self._uncut or 1.0)
        bottoms = [curve[0] for curve in self.own("sensitivity").values()]
        self._bottom = float(np.mean(bottoms or [0.0])) or 0.1 * self._unit

    def own(self, kind: Kind) -> dict[int, Curve]:
        """Return the curves of the ordered knobs that have the statistic, in its own units."""
        rungs = self._lattice.rungs
        found = {i: curve for i in self._lattice.ordered if (curve := self._curve(kind, rungs[i])) is not None}
        return found if any(curve[0] > 0.0 for curve in found.values()) else {}

    def completed(self, own: Mapping[int, Curve]) -> list[Curve]:
        """Return the curves of all knobs as losses of the objective."""
        scale = self._bottom / (float(np.mean([curve[0] for curve in own.values()] or [0.0])) or 1.0)
        found = {i: curve * scale for i, curve in own.items()}
        for i in self._lattice.ordered:
            if i not in found:
                found[i] = self._fallback(self._lattice.rungs[i])
        found |= {i: self._option(self._lattice.rungs[i]) for i in self._lattice.unordered}
        return [found[i] for i in range(len(self._lattice.rungs))]

    def _curve(self, kind: Kind, rungs: Rungs) -> Curve | None:
        name = "fisher" if kind == "fisher_share" else kind
        curve = curve_by(name, rungs, self._problem, self._uncut)
        if curve is None or name == "fisher":
            return curve if curve is None or kind == "fisher_share" else curve * self._fisher(rungs)
        return smoothed(curve, usual_shape(rungs, self._unit))  # these statistics are measured, and noisy

    def _fisher(self, rungs: Rungs) -> float:
        return float(np.abs(self._problem.statistics["fisher"][rungs.name]).sum())

    def _fallback(self, rungs: Rungs) -> Curve:
        """Return the first usable statistic of a knob, scaled so that its deepest cut is an average one."""
        shape = usual_shape(rungs, self._unit)
        curves = (curve_by(kind, rungs, self._problem, self._uncut) for kind in _FALLBACKS)
        curve = next((c for c in curves if c is not None and c[0] > 0.0), shape)
        return np.asarray(curve * self._bottom / max(float(curve[0]), np.finfo(float).tiny))

    def _option(self, rungs: Rungs) -> Curve:
        scores = self._problem.statistics.get("sensitivity", {}).get(rungs.name)
        if scores is None or len(scores) != len(rungs.values) or not np.isfinite(scores).all():
            return np.append(0.0, np.full(len(rungs.values) - 1, NOISE * self._unit))
        signed = scores if self._problem.objective.goal == "max" else -scores
        return np.asarray(np.maximum(signed[0] - signed, 0.0))

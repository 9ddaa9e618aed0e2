"""Steps: the knobs in the order in which an episode sets them, and the rung that an action means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.space import Knob, Levelled, Space, Value
from search.stepping.lattice import Rungs

_DECIDED_FIRST = ("option", "bits")


@dataclass(frozen=True, eq=False)
class Step:
    """One step of an episode: it sets the knob at `place` in the space to one of `rungs`.

    `actions` (rungs,) holds the action in [0, 1] that means each rung: 1 leaves the network whole. `levels` (rungs,)
    holds the level of each rung; None for a density, which has no levels.
    """

    knob: Knob
    place: int
    rungs: tuple[Value, ...]
    actions: NDArray[np.float64]
    levels: NDArray[np.int64] | None

    def action(self, value: Value) -> float:
        """Return the action that means this value, which may lie between two rungs."""
        if self.knob.ordered:
            return float(self.knob.encode(value)[0])
        return float(self.actions[self.rungs.index(value)])

    def rung(self, action: float, admissible: NDArray[np.bool_] | None = None) -> int:
        """Return the admissible rung whose action is nearest; of two equally near ones, the first."""
        open_rungs = np.arange(len(self.rungs)) if admissible is None else np.flatnonzero(admissible)
        return int(open_rungs[np.argmin(np.abs(self.actions[open_rungs] - action))])


def steps_of(space: Space, ladders: Sequence[Rungs]) -> tuple[Step, ...]:
    """Return one step for each knob, given its rungs: first the options and bits, which change what everything else
    costs, then the other knobs in the order of the network's layers.
    """
    numbered = enumerate(zip(space.knobs, ladders, strict=True))
    return tuple(sorted((_step(knob, place, rungs) for place, (knob, rungs) in numbered), key=_order))


def _step(knob: Knob, place: int, rungs: Rungs) -> Step:
    count = len(rungs.values)
    falling = 1.0 - np.arange(count) / max(count - 1, 1)  # of options, the first leaves the network whole
    actions = np.array([knob.encode(value)[0] for value in rungs.values]) if knob.ordered else falling
    levels = np.array([knob.level(value) for value in rungs.values]) if isinstance(knob, Levelled) else None
    return Step(knob, place, rungs.values, actions, levels)


def _order(step: Step) -> tuple[bool, float, int]:
    """Return the sorting key; a knob without a layer's index comes where the space has it."""
    return step.knob.role not in _DECIDED_FIRST, step.knob.features.get("index", float(step.place)), step.place

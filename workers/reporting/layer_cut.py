"""LayerCut: the knobs that act on one layer, or on the whole network, and the values chosen for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.graph.groups import Block, Group
from search.space import Choice, Int, Knob, Value, Values

Curves = Mapping[str, NDArray[np.float64]]
"""Knob -> (levels,) scores: the score at each level if only this knob is turned."""


@dataclass(frozen=True)
class LayerCut:
    """What the chosen values do to one layer. All `knobs` have one role; `group` is the group of the channels that the
    layer makes, or None if it makes none.
    """

    layer: str
    knobs: tuple[Knob, ...]
    values: Values
    group: Group | None

    @classmethod
    def of(cls, layer: str, acting: Sequence[Knob], values: Values, group: Group | None) -> LayerCut:
        """Choose the role to show among the knobs that act on the layer: the first one that was turned."""
        first = next((knob for knob in acting if values[knob.name] != knob.whole), acting[0] if acting else None)
        return cls(layer, tuple(knob for knob in acting if first and knob.role == first.role), values, group)

    @property
    def name(self) -> str | None:
        """The channels that are cut together or, for other roles, the knob."""
        if not self.knobs:
            return None
        return self.group.name if self.group and self.role == "width" else self.knobs[0].name

    @property
    def role(self) -> str | None:
        """The quantity that the knobs set."""
        return self.knobs[0].role if self.knobs else None

    @property
    def turned(self) -> bool:
        """True if any of the knobs is not at its whole value."""
        return any(self.values[knob.name] != knob.whole for knob in self.knobs)

    @property
    def before(self) -> Value | None:
        """The width, bits, rank or option of the uncut network."""
        return self._value(knob.whole for knob in self.knobs)

    @property
    def after(self) -> Value | None:
        """The width, bits, rank or option of the cut network."""
        return self._value(self.values[knob.name] for knob in self.knobs)

    @property
    def least(self) -> Value | None:
        """The smallest width, bits or rank, or the last option."""
        return self._value(knob.least for knob in self.knobs)

    @property
    def further(self) -> Values:
        """The values with these knobs at their least."""
        return {**self.values, **{knob.name: knob.least for knob in self.knobs}}

    def cost(self, values: Values, curves: Curves) -> float | None:
        """Return the score lost, by the statistics, if only these knobs are turned to these values, one at a time.

        It is None if a knob has no curve.
        """
        lost = [_lost(knob, values[knob.name], curves) for knob in self.knobs]
        return None if not lost or None in lost else float(sum(each for each in lost if each is not None))

    @property
    def frozen(self) -> str:
        """The reason why none of the layer's channels can be cut; "" if some can, or the layer makes none."""
        if self.group is None or any(block.prunable for block in self._blocks):
            return ""
        told = "; ".join(dict.fromkeys(block.reason for block in self._blocks if block.reason))
        return told or self.group.reason

    @property
    def _blocks(self) -> tuple[Block, ...]:
        return () if self.group is None else tuple(b for b in self.group.blocks if self.layer in b.layers)

    def _value(self, values: Iterable[Value]) -> Value | None:
        """Return the layer's width, with the channels that no knob can cut, or the value of the first knob."""
        if self.role not in (None, "width"):
            return next(iter(values))
        if not self.knobs and not self._blocks:
            return None
        fixed = sum(block.width for block in self._blocks if not (self.knobs and block.prunable))
        return fixed + sum(value for value in values if isinstance(value, int))


def _lost(knob: Knob, value: Value, curves: Curves) -> float | None:
    if not isinstance(knob, Int | Choice) or knob.name not in curves:
        return None
    curve = curves[knob.name]
    return float(curve[knob.level(knob.whole)] - curve[knob.level(value)])

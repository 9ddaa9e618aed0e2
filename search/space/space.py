"""Space: all knobs of a problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from search.errors import InvalidInput, did_you_mean
from search.space.knob import Choice, Int, Knob, Levelled, Value

Values: TypeAlias = Mapping[str, Value]
"""One value for each knob of a space, by name."""


@dataclass(frozen=True)
class Space:
    """The knobs of a problem, in a fixed order. In shapes, d is the number of knobs and D the number of encoded
    dimensions.
    """

    knobs: tuple[Knob, ...]

    def __post_init__(self) -> None:
        if not self.knobs:
            raise InvalidInput("knobs", self.knobs, "a space needs at least one knob")
        names = [knob.name for knob in self.knobs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidInput("knobs", twice, "two knobs have the same name")

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(knob.name for knob in self.knobs)

    @cached_property
    def dimensions(self) -> int:
        """Length D of an encoded point."""
        return sum(knob.dimensions for knob in self.knobs)

    def __getitem__(self, name: str) -> Knob:
        """Return the knob with this name. Raises: InvalidInput for an unknown name."""
        for knob in self.knobs:
            if knob.name == name:
                return knob
        raise InvalidInput("knob", name, f"no such knob; {did_you_mean(name, self.names)}")

    @property
    def whole(self) -> dict[str, Value]:
        """Values that leave the network as it is."""
        return {knob.name: knob.whole for knob in self.knobs}

    def sample(self, rng: np.random.Generator) -> dict[str, Value]:
        """Draw a point: every knob is drawn independently and uniformly."""
        return {knob.name: knob.sample(rng) for knob in self.knobs}

    def check(self, values: Values) -> None:
        """Check values. Raises: InvalidInput if a knob is unknown or missing, or a value is not allowed."""
        for name in values:
            if name not in self.names:
                raise InvalidInput(name, values[name], f"no such knob; {did_you_mean(name, self.names)}")
        for knob in self.knobs:
            if knob.name not in values:
                raise InvalidInput(knob.name, None, "this knob has no value")
            knob.check(values[knob.name])

    def encode(self, values: Values) -> NDArray[np.float64]:
        """Encode values as (D,) numbers in [0, 1], for learners. Raises: InvalidInput like `check`."""
        self.check(values)
        return np.concatenate([knob.encode(values[knob.name]) for knob in self.knobs])

    def decode(self, code: NDArray[np.float64]) -> dict[str, Value]:
        """Return the values nearest to a code (D,); `decode(encode(values)) == values` for finite knobs."""
        if code.shape != (self.dimensions,):
            raise InvalidInput("code", code.shape, f"must have shape ({self.dimensions},)")
        values: dict[str, Value] = {}
        start = 0
        for knob in self.knobs:
            values[knob.name] = knob.decode(code[start : start + knob.dimensions])
            start += knob.dimensions
        return values

    @cached_property
    def levelled(self) -> tuple[Levelled, ...]:
        """Knobs with finitely many values, in order: the columns of level arrays and of terms."""
        return tuple(knob for knob in self.knobs if isinstance(knob, Int | Choice))

    @property
    def level_counts(self) -> tuple[int, ...]:
        """Number of levels of each levelled knob."""
        return tuple(knob.level_count for knob in self.levelled)

    def levels(self, values: Values) -> NDArray[np.int64]:
        """Return the level (levelled,) of each levelled knob at these values. Raises: InvalidInput like `check`."""
        levels: NDArray[np.int64] = self.levels_of([values])[0]
        return levels

    def levels_of(self, batch: Sequence[Values]) -> NDArray[np.int64]:
        """Return the levels (n, levelled) of n values, as needed by Terms. Raises: InvalidInput like `check`."""
        rows = []
        for values in batch:
            if len(values) != len(self.knobs) or any(name not in values for name in self.names):
                self.check(values)
            rows.append([knob.level(values[knob.name]) for knob in self.levelled])
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self.levelled))

    def values_of(self, levels: Sequence[int] | NDArray[np.int64]) -> dict[str, Value]:
        """Return the values at (levelled,) levels; other knobs are whole. Raises: InvalidInput for an invalid level."""
        if len(levels) != len(self.levelled):
            raise InvalidInput("levels", len(levels), f"must be {len(self.levelled)} levels, one per levelled knob")
        values = self.whole
        for knob, level in zip(self.levelled, levels, strict=True):
            if not 0 <= level < knob.level_count:
                raise InvalidInput(knob.name, int(level), f"level must be in [0, {knob.level_count - 1}]")
            values[knob.name] = knob.value(int(level))
        return values

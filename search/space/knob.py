"""The four kinds of searchable settings.

Every knob states what it sets (`role`) and on which layers it acts (`layers`; empty: the whole network), so that
strategies and the problem builder need not look at the kind of knob. A knob's value `whole` leaves the network as it
is: it is the largest value of an ordered knob, or the first option of an unordered knob.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from search.errors import InvalidInput

Value: TypeAlias = "float | int | str | tuple[int, ...]"
"""The value of a knob; a tuple holds the kept indices of a Subset, ascending."""

Role: TypeAlias = Literal["width", "rank", "density", "bits", "option"]
"""The quantity that a knob sets: channels kept, factors kept, share of weights kept, bits of a number, or an option."""

Features: TypeAlias = Mapping[str, float]
"""Facts about a knob that a learner may use, e.g. channels, kernel size and share of the MACs."""


@dataclass(frozen=True)
class Float:
    """A real number in [low, high], encoded linearly as one number."""

    name: str
    low: float
    high: float
    features: Features = field(default_factory=dict)
    role: Role = "density"
    layers: tuple[str, ...] = ()
    ordered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InvalidInput(self.name, (self.low, self.high), "low must be below high, and both must be finite")

    @property
    def whole(self) -> float:
        return self.high

    @property
    def least(self) -> float:
        return self.low

    @property
    def dimensions(self) -> int:
        return 1

    def sample(self, rng: np.random.Generator) -> float:
        return float(rng.uniform(self.low, self.high))

    def check(self, value: Value) -> None:
        if type(value) not in (int, float) or not self.low <= value <= self.high:  # type: ignore[operator]  # it is a number, checked above
            raise InvalidInput(self.name, value, f"must be a number in [{self.low:g}, {self.high:g}]")

    def encode(self, value: Value) -> NDArray[np.float64]:
        self.check(value)
        return np.array([(float(value) - self.low) / (self.high - self.low)])  # type: ignore[arg-type]  # checked

    def decode(self, code: NDArray[np.float64]) -> float:
        share = min(max(float(code[0]), 0.0), 1.0)
        return min(max(self.low + share * (self.high - self.low), self.low), self.high)


@dataclass(frozen=True)
class Int:
    """A whole number in [low, high]; level i is low + i."""

    name: str
    low: int
    high: int
    features: Features = field(default_factory=dict)
    role: Role = "width"
    layers: tuple[str, ...] = ()
    ordered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise InvalidInput(self.name, (self.low, self.high), "low must not be above high")

    @property
    def whole(self) -> int:
        return self.high

    @property
    def least(self) -> int:
        return self.low

    @property
    def dimensions(self) -> int:
        return 1

    @property
    def level_count(self) -> int:
        return self.high - self.low + 1

    def level(self, value: Value) -> int:
        self.check(value)
        return int(value) - self.low  # type: ignore[arg-type]  # checked

    def value(self, level: int) -> int:
        return self.low + level

    def sample(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.low, self.high + 1))

    def check(self, value: Value) -> None:
        if type(value) is not int or not self.low <= value <= self.high:
            raise InvalidInput(self.name, value, f"must be a whole number in [{self.low}, {self.high}]")

    def encode(self, value: Value) -> NDArray[np.float64]:
        return np.array([self.level(value) / max(self.level_count - 1, 1)])

    def decode(self, code: NDArray[np.float64]) -> int:
        share = min(max(float(code[0]), 0.0), 1.0)
        return self.low + round(share * (self.level_count - 1))


@dataclass(frozen=True)
class Choice:
    """One of `options`; level i is options[i].

    Ordered options are strictly ascending numbers. They are encoded as one number in proportion to their values, so
    that widths keep their distances. Two unordered options are encoded as one number, 0 or 1; more options are encoded
    as one number each (one-hot). By default, an ordered choice has the role of a width, and an unordered choice the
    role of an option.
    """

    name: str
    options: tuple[int | float | str, ...]
    ordered: bool
    features: Features = field(default_factory=dict)
    role: Role | None = None
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.role is None:
            object.__setattr__(self, "role", "width" if self.ordered else "option")
        if not self.options or len({(type(o), o) for o in self.options}) < len(self.options):
            raise InvalidInput(self.name, self.options, "there must be at least one option, and all must be distinct")
        if any(type(o) not in (int, float, str) for o in self.options):
            raise InvalidInput(self.name, self.options, "options must be numbers or text")
        if self.ordered:
            self._check_ascending()

    def _check_ascending(self) -> None:
        if any(isinstance(o, str) or not math.isfinite(o) for o in self.options):
            raise InvalidInput(self.name, self.options, "ordered options must be finite numbers")
        if list(self.options) != sorted(self.options):
            raise InvalidInput(self.name, self.options, "ordered options must be ascending")

    @cached_property
    def _levels(self) -> dict[tuple[type, object], int]:
        return {(type(option), option): i for i, option in enumerate(self.options)}

    @cached_property
    def _positions(self) -> NDArray[np.float64]:
        """Position in [0, 1] of each ordered option."""
        numbers = np.array(self.options, dtype=float)
        return np.asarray((numbers - numbers[0]) / max(numbers[-1] - numbers[0], np.finfo(float).tiny))

    @property
    def whole(self) -> int | float | str:
        return self.options[-1 if self.ordered else 0]

    @property
    def least(self) -> int | float | str:
        return self.options[0 if self.ordered else -1]

    @property
    def dimensions(self) -> int:
        return 1 if self.ordered or len(self.options) <= 2 else len(self.options)

    @property
    def level_count(self) -> int:
        return len(self.options)

    def level(self, value: Value) -> int:
        level = self._levels.get((type(value), value))
        if level is None:
            raise InvalidInput(self.name, value, f"must be one of {', '.join(map(repr, self.options))}")
        return level

    def value(self, level: int) -> int | float | str:
        return self.options[level]

    def sample(self, rng: np.random.Generator) -> int | float | str:
        return self.options[int(rng.integers(len(self.options)))]

    def check(self, value: Value) -> None:
        self.level(value)

    def encode(self, value: Value) -> NDArray[np.float64]:
        level = self.level(value)
        if self.ordered:
            return self._positions[[level]]
        return np.array([float(level)]) if self.dimensions == 1 else np.eye(len(self.options))[level]

    def decode(self, code: NDArray[np.float64]) -> int | float | str:
        if self.ordered:
            return self.options[int(np.argmin(np.abs(self._positions - code[0])))]
        if self.dimensions == 1:
            return self.options[min(int(code[0] > 0.5), len(self.options) - 1)]
        return self.options[int(np.argmax(code))]


@dataclass(frozen=True)
class Subset:
    """A non-empty set of the units 0..width-1 as an ascending tuple, encoded as `width` numbers."""

    name: str
    width: int
    features: Features = field(default_factory=dict)
    role: Role = "width"
    layers: tuple[str, ...] = ()
    ordered: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InvalidInput(self.name, self.width, "width must be at least 1")

    @property
    def whole(self) -> tuple[int, ...]:
        return tuple(range(self.width))

    @property
    def least(self) -> tuple[int, ...]:
        return (0,)

    @property
    def dimensions(self) -> int:
        return self.width

    def sample(self, rng: np.random.Generator) -> tuple[int, ...]:
        size = int(rng.integers(1, self.width + 1))
        return tuple(sorted(int(i) for i in rng.choice(self.width, size=size, replace=False)))

    def check(self, value: Value) -> None:
        if not isinstance(value, tuple) or not value or any(type(i) is not int for i in value):
            raise InvalidInput(self.name, value, "must be a non-empty tuple of unit indices")
        if list(value) != sorted(set(value)) or value[0] < 0 or value[-1] >= self.width:
            raise InvalidInput(self.name, value, f"must be ascending, distinct, in [0, {self.width - 1}]")

    def encode(self, value: Value) -> NDArray[np.float64]:
        self.check(value)
        code = np.zeros(self.width)
        code[np.array(value)] = 1.0
        return code

    def decode(self, code: NDArray[np.float64]) -> tuple[int, ...]:
        kept = np.flatnonzero(np.asarray(code) > 0.5)
        return tuple(int(i) for i in kept) if len(kept) else (int(np.argmax(code)),)


Knob: TypeAlias = Float | Int | Choice | Subset
Levelled: TypeAlias = Int | Choice
"""The knobs with finitely many values, numbered by level from 0."""

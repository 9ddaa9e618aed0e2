"""Which kernels a network is made of at any values of its knobs, found out from the outside.

Latency is a sum over kernels, and each depends on few knobs: the widths of what it reads and makes. Which
those are is not asked of the methods but observed: values are changed one at a time, the network is rewritten
for real, and its ops are compared. So any method, int8 and those of third parties included, is tabulated the
same way, and what is timed is what a finished file will consist of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from hw_profiles.ops import Op
from search.space import Choice, Value
from workers.errors import InvalidInput

MakeOps = Callable[[Mapping[str, Value]], Sequence[Op]]
"""Values of the knobs -> the ops of the network so rewritten, the same kernels in the same order each time."""

MAX_POINTS = 250_000
"""Points of one kernel's table; beyond, the knobs need fewer levels."""
_SWAP_TRIES = 2


@dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel and the op it is at each of its points.

    `knobs`: those it depends on. `sums`: the same, grouped: inside a group only the sum of the widths counts
    (the three parts of a residual stream that are one tensor here). `ops`: sums -> op.
    """

    knobs: tuple[Choice, ...]
    sums: tuple[tuple[str, ...], ...]
    ops: dict[tuple[int, ...], Op] = field(default_factory=dict)

    @cached_property
    def points(self) -> int:
        """Entries of its table: the product of its knobs' levels."""
        return prod(knob.level_count for knob in self.knobs)

    @cached_property
    def coordinates(self) -> NDArray[np.int64]:
        """(groups, *levels of each knob): the sums at each point. Only where it depends on a knob."""
        axes = np.meshgrid(*(np.array(knob.options, dtype=np.int64) for knob in self.knobs), indexing="ij")
        by_name = {knob.name: axis for knob, axis in zip(self.knobs, axes, strict=True)}
        total = [np.sum([by_name[name] for name in group], axis=0) for group in self.sums]
        return np.stack(total).astype(np.int64)

    @cached_property
    def _distinct(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if not self.sums:
            return np.zeros((1, 0), dtype=np.int64), np.zeros((), dtype=np.int64)
        flat = self.coordinates.reshape(len(self.sums), -1)
        rows, where = np.unique(flat, axis=1, return_inverse=True)
        return rows.T, where.reshape(self.coordinates.shape[1:]).astype(np.int64)

    @property
    def ids(self) -> NDArray[np.int64]:
        """(*levels of each knob): number of the distinct op at each point."""
        return self._distinct[1]

    @cached_property
    def distinct_ops(self) -> tuple[Op, ...]:
        """The op of each id."""
        return tuple(self.ops[tuple(int(size) for size in row)] for row in self._distinct[0])

    def at(self, values: Mapping[str, Value]) -> tuple[int, ...]:
        """The sums at these values."""
        return tuple(sum(_width(values[name]) for name in group) for group in self.sums)

    def table(self, per_op: Mapping[str, float]) -> NDArray[np.float64]:
        """(*levels of each knob) from op key -> a number: milliseconds, bytes, ..."""
        by_id = np.array([per_op[op.key] for op in self.distinct_ops])
        return np.asarray(by_id[self.ids])


def kernels(make_ops: MakeOps, knobs: Sequence[Choice]) -> tuple[Kernel, ...]:
    """Every kernel of a network whose widths are set by `knobs`, with all ops it can be.

    Args:
        make_ops: rewrites and takes apart; called once for each network that is looked at.
        knobs: ordered choices of widths.

    Raises:
        InvalidInput: a kernel would have more than MAX_POINTS points, or rewriting changes how many
            kernels there are.
    """
    survey = _Survey(make_ops, knobs)
    found = survey.structure()
    for kernel in found:
        if kernel.points > MAX_POINTS:
            names = [knob.name for knob in kernel.knobs]
            raise InvalidInput("knobs", names, f"one kernel has {kernel.points} points; use fewer levels")
    survey.fill(found)
    return found


class _Survey:
    def __init__(self, make_ops: MakeOps, knobs: Sequence[Choice]) -> None:
        self._make_ops = make_ops
        self._knobs = tuple(knobs)
        self._full: dict[str, Value] = {knob.name: knob.options[-1] for knob in knobs}
        self._base = self._ops(self._full)

    def structure(self) -> tuple[Kernel, ...]:
        """Which kernel depends on which knobs, and which of them count only by their sum."""
        touched: list[list[Choice]] = [[] for _ in self._base]
        for knob in self._knobs:
            changed = self._ops({**self._full, knob.name: knob.options[0]})
            for kernel, (before, after) in enumerate(zip(self._base, changed, strict=True)):
                if before.key != after.key:
                    touched[kernel].append(knob)
        apart = self._apart(touched)
        return tuple(Kernel(tuple(on), _groups(on, apart[i])) for i, on in enumerate(touched))

    def _apart(self, touched: Sequence[Sequence[Choice]]) -> list[set[tuple[str, str]]]:
        """Per kernel, the pairs of its knobs that cannot be traded against each other."""
        apart: list[set[tuple[str, str]]] = [set() for _ in touched]
        pairs = {(a.name, b.name): (a, b) for on in touched for i, a in enumerate(on) for b in on[i + 1 :]}
        for _, (a, b) in sorted(pairs.items()):
            trades = _trades(a, b)
            same = [True] * len(touched)
            for one, other in trades:
                left = self._ops({**self._full, a.name: one[0], b.name: one[1]})
                right = self._ops({**self._full, a.name: other[0], b.name: other[1]})
                same = [s and x.key == y.key for s, x, y in zip(same, left, right, strict=True)]
            for kernel, on in enumerate(touched):
                if any(k is a for k in on) and any(k is b for k in on) and not (trades and same[kernel]):
                    apart[kernel].add((a.name, b.name))
        return apart

    def fill(self, found: Sequence[Kernel]) -> None:
        """Look at as few networks as show every kernel at each of its distinct points."""
        for kernel in found:
            if not kernel.knobs:
                kernel.ops[()] = self._base[found.index(kernel)]
        open_ids = {i: np.ones(int(k.ids.max()) + 1, dtype=bool) for i, k in enumerate(found) if k.knobs}
        while open_ids:
            values = self._packed(found, open_ids)
            for i, op in enumerate(self._ops(values)):
                kernel = found[i]
                kernel.ops.setdefault(kernel.at(values), op)
                if i in open_ids:
                    at = tuple(knob.level(values[knob.name]) for knob in kernel.knobs)
                    open_ids[i][kernel.ids[at]] = False
            open_ids = {i: still for i, still in open_ids.items() if still.any()}

    def _packed(self, found: Sequence[Kernel], open_ids: Mapping[int, NDArray[np.bool_]]) -> dict[str, Value]:
        """Values at which many kernels are at a point not seen yet: each settles its own knobs in turn."""
        levels: dict[str, int] = {}
        for i in sorted(open_ids, key=lambda i: -int(open_ids[i].sum())):
            kernel = found[i]
            settled = tuple(levels.get(knob.name, slice(None)) for knob in kernel.knobs)
            wanted = open_ids[i][kernel.ids[settled]]
            if not wanted.any():
                continue
            first = iter(np.unravel_index(int(np.argmax(wanted)), wanted.shape))
            for knob in kernel.knobs:
                if knob.name not in levels:
                    levels[knob.name] = int(next(first))
        return {**self._full, **{k.name: k.options[levels[k.name]] for k in self._knobs if k.name in levels}}

    def _ops(self, values: Mapping[str, Value]) -> tuple[Op, ...]:
        made = tuple(self._make_ops(values))
        base = getattr(self, "_base", made)
        if len(made) != len(base):
            raise InvalidInput("values", dict(values), f"{len(made)} kernels where the whole has {len(base)}")
        return made


def _groups(on: Sequence[Choice], apart: set[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    """Knobs in order, each joined to the first group with whose every member it can be traded."""
    groups: list[list[str]] = []
    for knob in on:
        fits = (g for g in groups if not any({(n, knob.name), (knob.name, n)} & apart for n in g))
        group = next(fits, None)
        if group is None:
            groups.append([knob.name])
        else:
            group.append(knob.name)
    return tuple(tuple(group) for group in groups)


def _width(value: Value) -> int:
    if not isinstance(value, int):
        raise InvalidInput("knobs", value, "a width is a whole number")
    return value


def _trades(a: Choice, b: Choice) -> list[tuple[tuple[Value, Value], tuple[Value, Value]]]:
    """Pairs of widths of `a` and `b` with equal sums and different parts."""
    by_sum: dict[int, list[tuple[Value, Value]]] = {}
    for one in a.options:
        for other in b.options:
            by_sum.setdefault(_width(one) + _width(other), []).append((one, other))
    found = [(parts[0], parts[-1]) for parts in by_sum.values() if len(parts) > 1]
    step = max(1, len(found) // _SWAP_TRIES)
    return found[::step][:_SWAP_TRIES]

"""The survey: finds out, by rewriting networks, which kernels each node becomes at any values of its knobs.

Latency and counts are sums over the nodes of the whole network, and each node depends on few knobs. The methods are not
asked which knobs these are; they are found by observation: values are changed one at a time, the network is rewritten,
and the resulting kernels of each node are compared. So every method, including methods of third parties, is tabulated
in the same way, and the kernels that are timed are those that a finished file will contain. A node may become no kernel
(it is folded away), one kernel, or several kernels (a rewrite splits it). The number of rewritten networks grows with
the sum of the knobs' options, never with the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from search.space import Levelled, Values
from workers.errors import InvalidInput
from workers.problem.kernel_table import NOTHING, NodeTable, Part, coordinates

MAX_POINTS = 250_000
"""Maximum number of points of one node's table; a node with more points needs knobs with fewer levels."""
BATCH = 16
"""Number of networks rewritten at a time: few enough to hold in memory, but enough to fill one request to a device."""


Look: TypeAlias = "Callable[[Sequence[Values]], Iterable[Mapping[str, Part]]]"
"""Function that rewrites the network at each of n values of all knobs, and returns a map node -> part for each
rewritten network.
"""


def node_tables(look: Look, knobs: Sequence[Levelled]) -> tuple[NodeTable, ...]:
    """Return one table for each node of a network that `knobs` can change, with every part that the node can become.

    Raises:
        InvalidInput: a node would have more than MAX_POINTS points.
    """
    survey = _Survey(look, knobs)
    return survey.tables()


class _Survey:
    """Rewrites networks until every point of every node has been seen."""

    def __init__(self, look: Look, knobs: Sequence[Levelled]) -> None:
        self._look = look
        self._knobs = tuple(knobs)
        self._whole: Values = {knob.name: knob.whole for knob in knobs}
        self._seen: dict[tuple[int, ...], tuple[Values, Mapping[str, Part]]] = {}

    def tables(self) -> tuple[NodeTable, ...]:
        found = self._structure()
        while True:
            for each in found:
                _check_size(each)
            plan = self._plan(found)
            if not plan:
                return tuple(found)
            self._at(plan)
            found = [self._settled(each) for each in self._with_new_nodes(found)]

    def _structure(self) -> list[NodeTable]:
        """Find out which knobs each node depends on, and which of its widths matter only through their sum."""
        singles = {
            (knob.name, level): {**self._whole, knob.name: knob.value(level)}
            for knob in self._knobs
            for level in _probed(knob)
        }
        base, *changed = self._at([self._whole, *singles.values()])
        touched: dict[str, dict[str, Levelled]] = {node: {} for parts in (base, *changed) for node in parts}
        by_name = {knob.name: knob for knob in self._knobs}
        for (name, _), parts in zip(singles, changed, strict=True):
            for node, on in touched.items():
                if parts.get(node, NOTHING).mark != base.get(node, NOTHING).mark:
                    on[name] = by_name[name]
        apart = self._apart(touched)
        made = [NodeTable(node, tuple(on.values()), _groups(on.values(), apart[node])) for node, on in touched.items()]
        return [self._settled(each) for each in made]

    def _apart(self, touched: Mapping[str, Mapping[str, Levelled]]) -> dict[str, set[frozenset[str]]]:
        """Return, for each node, the pairs of its widths that cannot be traded against each other."""
        pairs: dict[tuple[str, str], tuple[Levelled, Levelled]] = {}
        for on in touched.values():
            widths = [knob for knob in on.values() if knob.role == "width"]
            pairs |= {(a.name, b.name): (a, b) for i, a in enumerate(widths) for b in widths[i + 1 :]}
        trades = {pair: self._trade(*pairs[pair]) for pair in sorted(pairs)}
        self._at([values for sides in trades.values() if sides for values in sides])
        apart: dict[str, set[frozenset[str]]] = {node: set() for node in touched}
        for pair, sides in trades.items():
            left, right = self._at(sides) if sides else ({}, {})
            for node in (node for node, on in touched.items() if on.keys() >= set(pair)):
                if not sides or left.get(node, NOTHING).mark != right.get(node, NOTHING).mark:
                    apart[node].add(frozenset(pair))
        return apart

    def _trade(self, a: Levelled, b: Levelled) -> tuple[Values, Values] | None:
        """Return two networks in which the sum of these two widths is the same but the widths are not; None if no
        levels allow this.
        """
        by_sum: dict[int, list[tuple[int, int]]] = {}
        for one, size in enumerate(coordinates(a).tolist()):
            for other, more in enumerate(coordinates(b).tolist()):
                by_sum.setdefault(size + more, []).append((one, other))
        found = [(parts[0], parts[-1]) for parts in by_sum.values() if len(parts) > 1]
        if not found:
            return None
        left, right = (
            {**self._whole, a.name: a.value(levels[0]), b.name: b.value(levels[1])} for levels in found[len(found) // 2]
        )
        return left, right

    def _plan(self, found: Sequence[NodeTable]) -> list[Values]:
        """Choose as few networks as possible that together show every node at each distinct point not yet seen."""
        unseen = {id(each): _unseen(each) for each in found}
        planned: list[Values] = []
        while any(still.any() for still in unseen.values()):
            values = self._packed(found, unseen)
            for each in found:
                unseen[id(each)][each.ids[each.levels(values)]] = False
            planned.append(values)
        return planned

    def _packed(self, found: Sequence[NodeTable], unseen: Mapping[int, NDArray[np.bool_]]) -> Values:
        """Choose values at which many nodes are at an unseen point. One node after another fixes its own knobs."""
        levels: dict[str, int] = {}
        for each in sorted(found, key=lambda table: -int(unseen[id(table)].sum())):
            settled = tuple(levels.get(knob.name, slice(None)) for knob in each.knobs)
            wanted = unseen[id(each)][each.ids[settled]]
            if not wanted.any():
                continue
            first = iter(np.unravel_index(int(np.argmax(wanted)), wanted.shape))
            for knob in each.knobs:
                if knob.name not in levels:
                    levels[knob.name] = int(next(first))
        chosen = {knob.name: knob.value(levels[knob.name]) for knob in self._knobs if knob.name in levels}
        return {**self._whole, **chosen}

    def _with_new_nodes(self, found: list[NodeTable]) -> list[NodeTable]:
        known = {each.node for each in found}
        new = dict.fromkeys(node for _, parts in self._seen.values() for node in parts if node not in known)
        return [*found, *(NodeTable(node, (), ()) for node in new)]

    def _settled(self, table: NodeTable) -> NodeTable:
        """Return the table filled from all networks seen.

        If two networks disagree on a point, the node depends on something else: the knob that causes the difference is
        found and becomes a knob of the node (or leaves the sum that it was part of).
        """
        while True:
            clash = self._clash(table)
            if clash is None:
                return table
            table = _split(table, self._culprit(table.node, *clash))

    def _clash(self, table: NodeTable) -> tuple[Values, Values] | None:
        first: dict[tuple[int, ...], Values] = {}
        table.parts.clear()
        for values, parts in self._seen.values():
            at, part = table.at(values), parts.get(table.node, NOTHING)
            if table.parts.setdefault(at, part).mark != part.mark:
                return first[at], values
            first.setdefault(at, values)
        return None

    def _culprit(self, node: str, one: Values, other: Values) -> Levelled:
        """Find a knob that changes the node between the first network and the second, by bisection."""
        differ = [knob for knob in self._knobs if one[knob.name] != other[knob.name]]

        def mark(count: int) -> tuple[Any, ...]:
            values = {**one, **{knob.name: other[knob.name] for knob in differ[:count]}}
            return self._at([values])[0].get(node, NOTHING).mark

        low, high, start = 0, len(differ), mark(0)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if mark(middle) == start else (low, middle)
        return differ[low]

    def _at(self, batch: Iterable[Values]) -> list[Mapping[str, Part]]:
        """Return the parts of these networks; each network is looked at only once."""
        wanted = {self._levels(values): values for values in batch}
        new = [values for levels, values in wanted.items() if levels not in self._seen]
        for start in range(0, len(new), BATCH):
            some = new[start : start + BATCH]
            for values, parts in zip(some, self._look(some), strict=True):
                self._seen[self._levels(values)] = values, parts
        return [self._seen[levels][1] for levels in wanted]

    def _levels(self, values: Values) -> tuple[int, ...]:
        return tuple(knob.level(values[knob.name]) for knob in self._knobs)


def _check_size(table: NodeTable) -> None:
    if table.points > MAX_POINTS:
        names = [knob.name for knob in table.knobs]
        raise InvalidInput("knobs", names, f"node {table.node} has {table.points} points; use fewer levels")


def _probed(knob: Levelled) -> list[int]:
    """Return the levels to probe alone: the lowest level of an ordered knob, every option of an unordered knob except
    the original's.
    """
    whole = knob.level(knob.whole)
    levels = [0] if knob.ordered else range(knob.level_count)
    return [level for level in levels if level != whole]


def _unseen(table: NodeTable) -> NDArray[np.bool_]:
    """Return (distinct points,) booleans that are True for points at which no network has been looked at yet."""
    rows, _ = table.distinct
    return np.array([tuple(int(size) for size in row) not in table.parts for row in rows])


def _split(table: NodeTable, knob: Levelled) -> NodeTable:
    """Return the table with this knob as a separate axis."""
    groups = [tuple(name for name in group if name != knob.name) for group in table.sums]
    knobs = {each.name: each for each in (*table.knobs, knob)}
    return NodeTable(table.node, tuple(knobs.values()), (*(group for group in groups if group), (knob.name,)))


def _groups(on: Iterable[Levelled], apart: set[frozenset[str]]) -> tuple[tuple[str, ...], ...]:
    """Group the knobs in order; each width joins the first group whose every member it can be traded with."""
    groups: list[list[str]] = []
    widths: set[str] = set()
    for knob in on:
        fits = (g for g in groups if set(g) <= widths and not any(frozenset((n, knob.name)) in apart for n in g))
        group = next(fits, None) if knob.role == "width" else None
        widths |= {knob.name} if knob.role == "width" else set()
        if group is None:
            groups.append([knob.name])
        else:
            group.append(knob.name)
    return tuple(tuple(group) for group in groups)

"""ProblemBuilder: builds the search's problem from a network's node tables and the devices' latency tables.

Every F0 metric is a sum over the nodes of the network, so each metric becomes search.Terms: arrays indexed by the
levels of the few knobs that a node depends on. Estimating a thousand candidates then takes only a few look-ups in
arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compress.counting.count import Form
from hw_profiles.ops import Op
from hw_profiles.tables.calibration import Calibration
from hw_profiles.tables.table import LatencyTable
from search.metrics import latency_metric
from search.problem import ACCURACY, Constraint, Objective, Problem, Statistics, Term, Terms
from search.space import Levelled, Space, Value, Values
from workers.problem.counted import COUNTS, WHOLES, counted
from workers.problem.kernel_space import KernelSpace
from workers.problem.kernel_table import NodeTable, Part


@dataclass(frozen=True)
class Device:
    """A device as a problem sees it: the device's table, and one calibration line, a + b * sum, per setting, in the
    order of the settings.
    """

    id: str
    table: LatencyTable
    calibrations: tuple[Calibration, ...]


@dataclass(frozen=True)
class Wanted:
    """The request that a problem is built for. `original` has the metrics of the untouched network by key; the other
    fields are the same as in Problem.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    original: Mapping[str, float]
    network: str
    evaluations: int
    statistics: Statistics
    level: float | None = None
    images: int | None = None
    chance: float = 0.0
    deciding: str = ACCURACY


class ProblemBuilder:
    """Builds the problem again whenever a table has grown; the network is taken apart only once."""

    def __init__(self, kernels: KernelSpace) -> None:
        self.kernels = kernels
        self.tables = kernels.tables
        self._counts = self._exact()

    @property
    def space(self) -> Space:
        """The knobs of the job's methods."""
        return self.kernels.space

    @property
    def settings(self) -> tuple[Mapping[str, Value], ...]:
        """Every combination of the whole-network options (see `KernelSpace.settings`)."""
        return self.kernels.settings

    def ops(self, runtime: str) -> tuple[Op, ...]:
        """Return every op that any candidate can contain on this runtime, without duplicates."""
        parts = (part for table in self.tables for part in table.distinct_parts)
        return tuple({op.key: op for part in parts for op in part.ops.get(runtime, ())}.values())

    @property
    def ends(self) -> tuple[Values, ...]:
        """The whole network and the smallest network in every setting; latency floors are computed from these
        networks.
        """
        return tuple({**end, **setting} for setting in self.settings for end in (self.space.whole, self._least))

    @property
    def _least(self) -> Values:
        knobs = self.space.knobs
        return {knob.name: knob.least if knob.ordered or knob.layers else knob.whole for knob in knobs}

    @property
    def whole(self) -> Values:
        """The values that leave the network as it is."""
        return self.space.whole

    def parts_at(self, values: Values) -> Mapping[str, Part]:
        """Map each node of the uncut network to its part of the candidate with these values."""
        return {table.node: table.parts[table.at(values)] for table in self.tables}

    def ops_at(self, values: Values, runtime: str) -> tuple[Op, ...]:
        """Return the kernels of the candidate with these values, without building its network."""
        return tuple(op for part in self.parts_at(values).values() for op in part.ops.get(runtime, ()))

    def frequencies(self, runtime: str) -> Mapping[str, float]:
        """Map each op key to the expected number of times that the op occurs in a network drawn at random."""
        found: dict[str, float] = {}
        for table in self.tables:
            shares = np.bincount(table.ids.reshape(-1)) / table.points
            for part, share in zip(table.distinct_parts, shares.tolist(), strict=True):
                for op in part.ops.get(runtime, ()):
                    found[op.key] = found.get(op.key, 0.0) + share
        return found

    def problem(self, devices: Sequence[Device], wanted: Wanted) -> Problem:
        """Build the problem with these devices' tables."""
        latency = {latency_metric(device.id): self.latency(device) for device in devices}
        summed = {**self._counts, **latency}

        def estimate(batch: Sequence[Values]) -> dict[str, NDArray[np.float64]]:
            levels = self._levels(batch)
            found = {metric: terms.latency_ms(levels) for metric, terms in summed.items()}
            return {**found, **self._thinned(batch, levels, found)}

        return Problem(
            space=self.space,
            objectives=wanted.objectives,
            constraints=wanted.constraints,
            estimate=estimate,
            terms=latency,
            statistics=wanted.statistics,
            original=wanted.original,
            network=wanted.network,
            evaluations=wanted.evaluations,
            level=wanted.level,
            images=wanted.images,
            chance=wanted.chance,
            deciding=wanted.deciding,
        )

    def counts(self, values: Values) -> dict[str, float]:
        """Return every count at these values."""
        levels = self._levels([values])
        found = {metric: terms.latency_ms(levels) for metric, terms in self._counts.items()}
        found |= self._thinned([values], levels, found)
        return {metric: float(column[0]) for metric, column in found.items()}

    def _thinned(
        self, batch: Sequence[Values], levels: NDArray[np.int64], counts: Mapping[str, NDArray[np.float64]]
    ) -> dict[str, NDArray[np.float64]]:
        """Return those counts that are parts of other counts and shrink with the densities; each has shape (n,)."""
        found = {name: counts[whole] for name, whole in WHOLES.items()}
        for knob in self.kernels.densities:
            density = np.array([float(values[knob.name]) for values in batch])  # type: ignore[arg-type]  # a Float's
            held = (density, *(terms.latency_ms(levels) for terms in self._weights))
            for name in found:
                thinned = COUNTS[name].thinned
                assert thinned is not None, "a count that is a part of another count must define `thinned`"
                found[name] = found[name] + thinned(*held)
        return found

    def _levels(self, batch: Sequence[Values]) -> NDArray[np.int64]:
        """Return the levels, of shape (n, levelled). Raises search.errors.InvalidInput as `Space.check` does."""
        for values in batch if self.kernels.densities else ():
            self.space.check(values)
        return self.space.levels_of(batch)

    def latency(self, device: Device) -> Terms:
        """Latency in milliseconds on this device.

        Raises:
            search.errors.InvalidInput: the table is empty, so nothing can be predicted.
        """
        runtime = device.table.device.runtime
        ops = self.ops(runtime)
        known_ms = {op.key: entry.latency_us / 1e3 for op, entry in zip(ops, device.table.entries(ops), strict=True)}
        offset_ms = np.array([line.a_us / 1e3 for line in device.calibrations])
        scale = np.array([line.b for line in device.calibrations])
        return self._terms(lambda part: sum(known_ms[op.key] for op in part.ops.get(runtime, ())), offset_ms, scale)

    def floor_ms(self, device: Device) -> float:
        """Lower bound on any candidate's predicted latency: the minimum, over settings, of the sum of every node's
        fastest part.
        """
        terms = self.latency(device)
        axes = len(self._options)
        total_ms = np.full(tuple(knob.level_count for knob in self._options), terms.offset_ms + terms.fixed_ms)
        for term in terms.terms:
            total_ms += term.table_ms.min(axis=tuple(range(axes, term.table_ms.ndim)))
        return float(total_ms.min())

    def _exact(self) -> dict[str, Terms]:
        """Return each count as a sum over nodes. The offset is the part that does not belong to nodes and does not
        depend on the values.
        """
        at_whole = counted(Form.of(self.kernels.network))
        found = {}
        for metric in (name for name in COUNTS if name not in WHOLES):

            def number(part: Part, metric: str = metric) -> float:
                return part.counts.get(metric, 0.0)

            of_nodes = sum(number(table.parts[table.at(self.whole)]) for table in self.tables)
            found[metric] = self._terms(number, at_whole[metric] - of_nodes)
        return found

    @cached_property
    def _weights(self) -> tuple[Terms, Terms]:
        """The number of weights in the layers, and their bytes, as terms."""
        return self._terms(lambda part: float(part.cost.weights)), self._terms(
            lambda part: float(part.cost.weight_bytes)
        )

    @cached_property
    def _options(self) -> tuple[Levelled, ...]:
        """The knobs that `settings` combines."""
        return tuple(knob for knob in self.kernels.levelled if knob.name in self.settings[0])

    def _terms(
        self,
        number: Callable[[Part], float],
        offset: ArrayLike = 0.0,
        scale: ArrayLike = 1.0,
    ) -> Terms:
        """Return offset + scale * sum over nodes, as terms; offset and scale are numbers, or (settings,) arrays.

        If they differ by setting, the settings' options are the first axes of each term.
        """
        shape = tuple(knob.level_count for knob in self._options)
        names = tuple(knob.name for knob in self._options)
        added, factor = _by_setting(offset, shape), _by_setting(scale, shape)
        tables: dict[tuple[str, ...], NDArray[np.float64]] = {names: added}
        for each in self.tables:
            rest = tuple(knob.name for knob in each.knobs if knob.name not in names)
            scaled = _with_axes(each, number, names) * factor.reshape(shape + (1,) * len(rest))
            tables[names + rest] = tables.get(names + rest, 0.0) + scaled
        fixed = float(tables.pop(())) if not names else 0.0
        levelled = tuple(knob.name for knob in self.space.levelled)
        return Terms(levelled, 0.0, 1.0, tuple(Term(on, table) for on, table in tables.items()), fixed)


def _by_setting(numbers: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return one number, or one number per setting, as an array with the options' axes."""
    given = np.asarray(numbers, dtype=float)
    return np.full(shape, given) if given.size == 1 else given.reshape(shape)


def _with_axes(table: NodeTable, number: Callable[[Part], float], first: Sequence[str]) -> NDArray[np.float64]:
    """Return a node's numbers with the axes named `first` in front; axes of knobs that the node does not depend on have
    size 1.
    """
    own = [knob.name for knob in table.knobs]
    shared = [name for name in first if name in own]
    rest = [name for name in own if name not in first]
    numbers = table.table(number).transpose([own.index(name) for name in (*shared, *rest)])
    missing = tuple(i for i, name in enumerate(first) if name not in own)
    return np.expand_dims(numbers, missing)

"""ProblemBuilder: from a network taken apart and latency tables to what a search works on.

Every metric of F0 is a sum over kernels, so each becomes search.Terms: arrays indexed by the levels of the few
knobs a kernel depends on. Estimating a thousand candidates is then a few gathers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.cost import sparse_share
from compress.network import Node
from compress.ops import find_row
from hw_profiles.calibration import Calibration
from hw_profiles.ops import Op, TensorSpec
from hw_profiles.table import LatencyTable
from search.metrics import latency_metric
from search.problem import Constraint, Objective, Problem, Statistics, Term, Terms
from search.space import Choice, Space, Values
from workers.kernels import Kernel
from workers.variants import Anatomy, Variant

OpCost = Callable[[Op], float]


@dataclass(frozen=True)
class Device:
    """A device as a problem sees it: its table, and the line a + b * sum by variant (in their order)."""

    id: str
    table: LatencyTable
    calibrations: tuple[Calibration, ...]


@dataclass(frozen=True)
class Wanted:
    """What is asked of the search. `original`: metrics of the untouched network, by key; the rest as in Problem."""

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    original: Mapping[str, float]
    network: str
    evaluations: int
    statistics: Statistics
    level: float | None = None
    images: int | None = None
    chance: float = 0.0


class ProblemBuilder:
    """Builds the same problem again whenever a table grew; the taking apart is done once."""

    def __init__(self, anatomy: Anatomy, variants: Sequence[Variant]) -> None:
        self.anatomy = anatomy
        self.variants = tuple(variants)
        self._counts = self._exact()
        self._weights = self._held()

    @property
    def space(self) -> Space:
        """The knobs of the job's methods."""
        return self.anatomy.space

    def ops(self, runtime: str) -> tuple[Op, ...]:
        """Every op that any candidate can contain on this runtime, each once."""
        found = {
            op.key: op for variant in self.variants for kernel in variant.kernels[runtime] for op in kernel.distinct_ops
        }
        return tuple(found.values())

    @property
    def ends(self) -> tuple[Values, ...]:
        """All widths at their largest, and at their smallest, in every setting: what floors are told by."""
        widths = self.anatomy.widths
        return tuple(
            {**variant.setting, **{knob.name: knob.options[level] for knob in widths}}
            for variant in self.variants
            for level in (-1, 0)
        )

    @property
    def whole(self) -> Values:
        """The network as it is."""
        return {**self.ends[0], **{knob.name: knob.high for knob in self.anatomy.densities}}

    def ops_at(self, values: Values, runtime: str) -> tuple[Op, ...]:
        """The kernels of the candidate with these values, without making it."""
        variant = next(v for v in self.variants if v.setting.items() <= values.items())
        return tuple(kernel.ops[kernel.at(values)] for kernel in variant.kernels[runtime])

    def frequencies(self, runtime: str) -> Mapping[str, float]:
        """Op key -> how many times it occurs in a network drawn at random: the sum of its shares of points."""
        found: dict[str, float] = {}
        for kernel in (k for variant in self.variants for k in variant.kernels[runtime]):
            counts = np.bincount(kernel.ids.reshape(-1)) / kernel.points
            for op, share in zip(kernel.distinct_ops, counts.tolist(), strict=True):
                found[op.key] = found.get(op.key, 0.0) + share / len(self.variants)
        return found

    def problem(self, devices: Sequence[Device], wanted: Wanted) -> Problem:
        """The problem as these tables see it."""
        latency = {latency_metric(device.id): self.latency(device) for device in devices}
        summed = {**self._counts, **latency}

        def estimate(batch: Sequence[Values]) -> dict[str, NDArray[np.float64]]:
            levels = self._levels(batch)
            found = {metric: terms.latency_ms(levels) for metric, terms in summed.items()}
            return {**found, **self._stored(batch, levels, found)}

        return Problem(
            space=self.space,
            objectives=wanted.objectives,
            constraints=wanted.constraints,
            estimate=estimate,
            terms={} if self.anatomy.densities else latency,
            statistics=wanted.statistics,
            original=wanted.original,
            network=wanted.network,
            evaluations=wanted.evaluations,
            level=wanted.level,
            images=wanted.images,
            chance=wanted.chance,
        )

    def counts(self, values: Values) -> dict[str, float]:
        """macs, parameters, size_bytes, nonzeros and stored_bytes at these values."""
        levels = self._levels([values])
        found = {metric: terms.latency_ms(levels) for metric, terms in self._counts.items()}
        return {
            metric: float(column[0]) for metric, column in {**found, **self._stored([values], levels, found)}.items()
        }

    def _stored(
        self, batch: Sequence[Values], levels: NDArray[np.int64], counts: Mapping[str, NDArray[np.float64]]
    ) -> dict[str, NDArray[np.float64]]:
        """nonzeros and stored_bytes, (n,) each: as if zeros lay at random in the layers' weights.

        A threshold over the whole network leaves more in some layers than in others, and what lies unevenly takes
        fewer bytes: the count is exact, the bytes are an upper estimate.
        """
        nonzeros, stored_bytes = counts["parameters"], counts["size_bytes"]
        for knob in self.anatomy.densities:
            density = np.array([float(values[knob.name]) for values in batch])  # type: ignore[arg-type]  # a Float's
            weights, held_bytes = (terms.latency_ms(levels) for terms in self._weights)
            itemsize = held_bytes / np.maximum(weights, 1.0)
            nonzeros = nonzeros - (1.0 - density) * weights
            stored_bytes = stored_bytes - weights * (itemsize - sparse_share(density, itemsize))
        return {"nonzeros": nonzeros, "stored_bytes": stored_bytes}

    def _levels(self, batch: Sequence[Values]) -> NDArray[np.int64]:
        """(n, knobs of tables) levels of the knobs that are no densities.

        Raises:
            search.errors.InvalidInput: an unknown or missing knob, or a value that its knob does not have.
        """
        if not self.anatomy.densities:
            return self.space.levels_of(batch)
        for values in batch:
            self.space.check(values)
        knobs = [knob for knob in self.space.knobs if isinstance(knob, Choice)]
        levels = [[knob.level(values[knob.name]) for knob in knobs] for values in batch]
        return np.array(levels, dtype=np.int64).reshape(len(batch), len(knobs))

    def latency(self, device: Device) -> Terms:
        """Milliseconds on this device.

        Raises:
            search.errors.InvalidInput: the table is empty, so that nothing can be predicted.
        """
        runtime = device.table.device.runtime
        ops = self.ops(runtime)
        known_ms = {op.key: entry.latency_us / 1e3 for op, entry in zip(ops, device.table.entries(ops), strict=True)}
        lines = [(line.a_us / 1e3, line.b) for line in device.calibrations]
        return self._terms([v.kernels[runtime] for v in self.variants], known_ms, lines)

    def floor_ms(self, device: Device) -> float:
        """A bound that no candidate's predicted latency is under: each kernel at its own fastest."""
        terms = self.latency(device)
        settings = {knob.name for knob in self.anatomy.settings}
        shape = tuple(knob.level_count for knob in self.anatomy.settings)

        def total_ms(at: tuple[int, ...]) -> float:
            parts = (term.table_ms[at] if settings & set(term.knobs) else term.table_ms for term in terms.terms)
            return terms.offset_ms + terms.scale * (terms.fixed_ms + sum(float(part.min()) for part in parts))

        return min(total_ms(at) for at in np.ndindex(*shape))

    def _exact(self) -> dict[str, Terms]:
        """Counts as sums over kernels; what no kernel shows (the graph's own bytes) is the same at any width."""
        runtime = next(iter(self.variants[0].kernels))
        of_op: dict[str, OpCost] = {
            "macs": lambda op: float(op.features["macs"]),
            "parameters": trained_elements,
            "size_bytes": lambda op: float(op.features["weight_bytes"]),
        }
        found = {}
        for metric, count in of_op.items():
            # A setting may change the bytes. Work and weights are those of the network it was made from.
            sources = [v if metric == "size_bytes" else self.variants[0] for v in self.variants]
            per_op = {op.key: count(op) for op in self.ops(runtime)}
            kernels = [source.kernels[runtime] for source in sources]
            rest = [
                getattr(source.whole, metric) - sum(per_op[k.distinct_ops[-1].key] for k in of)
                for source, of in zip(sources, kernels, strict=True)
            ]
            found[metric] = self._terms(kernels, per_op, [(offset, 1.0) for offset in rest])
        return found

    def _held(self) -> tuple[Terms, Terms]:
        """The numbers that layers' weights hold, and their bytes."""
        runtime = next(iter(self.variants[0].kernels))
        ops = self.ops(runtime)
        nothing = [(0.0, 1.0) for _ in self.variants]
        plain = [self.variants[0].kernels[runtime] for _ in self.variants]
        own = [variant.kernels[runtime] for variant in self.variants]
        numbers = {op.key: float(sum(spec.elements for spec in _layer_specs(op))) for op in ops}
        held_bytes = {
            op.key: float(sum(spec.elements * np.dtype(spec.dtype).itemsize for spec in _layer_specs(op))) for op in ops
        }
        return self._terms(plain, numbers, nothing), self._terms(own, held_bytes, nothing)

    def _terms(
        self,
        kernels: Sequence[Sequence[Kernel]],
        per_op: Mapping[str, float],
        lines: Sequence[tuple[float, float]],
    ) -> Terms:
        """Kernels by variant, a number per op and a line (a, b) per variant -> a + b * sum."""
        names = tuple(knob.name for knob in self.space.knobs if isinstance(knob, Choice))
        settings = self.anatomy.settings
        if not settings:
            (offset, scale), (own,) = lines[0], kernels
            fixed, terms = _split(own, per_op)
            return Terms(names, offset, scale, terms, fixed)
        shape = tuple(knob.level_count for knob in settings)
        whole = np.zeros(shape)
        terms = ()
        for at, own, (offset, scale) in zip(np.ndindex(*shape), kernels, lines, strict=True):
            fixed, parts = _split(own, per_op)
            whole[at] = offset + scale * fixed
            terms += tuple(_under(settings, shape, at, part, scale) for part in parts)
        return Terms(names, 0.0, 1.0, (Term(tuple(knob.name for knob in settings), whole), *terms))


def trained_elements(op: Op) -> float:
    """How many trained numbers an op holds."""
    names = {
        node.inputs[position]
        for node in op.nodes
        if (row := find_row(Node(node.op_type, "", node.inputs, node.outputs, domain=node.domain)))
        for position in row.trained
        if position < len(node.inputs) and node.inputs[position].startswith("w")
    }
    specs = [op.constants[int(name[1:])].spec for name in names]
    return float(sum(spec.elements for spec in specs if spec.shape))


def _layer_specs(op: Op) -> list[TensorSpec]:
    """The weights of layers: what has more than one axis; biases, norms and scales have one."""
    return [each.spec for each in op.constants if len(each.spec.shape) > 1 and each.value is None]


def _split(kernels: Sequence[Kernel], per_op: Mapping[str, float]) -> tuple[float, tuple[Term, ...]]:
    """What no knob changes as one number, and a term for each other kernel; those on equal knobs as one."""
    fixed = 0.0
    tables: dict[tuple[str, ...], NDArray[np.float64]] = {}
    for kernel in kernels:
        names = tuple(knob.name for knob in kernel.knobs)
        if not names:
            fixed += per_op[kernel.ops[()].key]
        else:
            table = kernel.table(per_op)
            tables[names] = tables[names] + table if names in tables else table
    return fixed, tuple(Term(names, table) for names, table in tables.items())


def _under(settings: Sequence[Choice], shape: tuple[int, ...], at: tuple[int, ...], term: Term, scale: float) -> Term:
    """The term where the settings are `at`, nothing elsewhere."""
    table = np.zeros((*shape, *term.table_ms.shape))
    table[at] = scale * term.table_ms
    return Term((*(knob.name for knob in settings), *term.knobs), table)

"""KernelSpace: every network that a scheme can make from one network, split into the kernels of its nodes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import TypeAlias

from compress.counting.node_cost import NodeCost, node_costs
from compress.counting.op_templates import op_templates, ops
from compress.evidence import Evidence
from compress.method import Widths
from compress.network import Network, Node
from compress.scheme import Scheme
from hw_profiles.ops import Layout, Op
from hw_profiles.runtimes import layout_of
from hw_profiles.runtimes import load as load_runtime
from search.space import Choice, Float, Int, Knob, Levelled, Space, Value, Values
from workers.errors import InvalidInput, NetworkRefused
from workers.ports import FusedSets
from workers.problem.counted import counted_of_node
from workers.problem.kernel_survey import node_tables
from workers.problem.kernel_table import NodeTable, Part

Fuse: TypeAlias = "Callable[[str, Sequence[Network]], Sequence[FusedSets]]"
"""Function of a runtime and networks that returns, for each network, the sets of node names that run as one kernel."""


def fused_here(runtime: str, networks: Sequence[Network]) -> Sequence[FusedSets]:
    """Return the fused sets reported by a runtime that is installed on this machine."""
    return [load_runtime(runtime).fused(network.save()) for network in networks]


class KernelSpace:
    """Rewrites a network at any values of a scheme's knobs, and splits the result into kernels.

    Args:
        network: the uncut network.
        scheme: the job's methods.
        widths: block -> widths worth trying, ascending.
        evidence: enough evidence for the methods to run; here, it does not matter which channels are kept.
        runtimes: names of the runtimes whose kernels are wanted; if there are none, each node counts as one kernel.
        fuse: returns which nodes run as one kernel.
        left_out: knob -> options that are left out, because a device refuses them.

    Raises:
        InvalidInput: the methods offer no knob, or they offer a knob that has no levels and is not a density.
    """

    def __init__(
        self,
        network: Network,
        scheme: Scheme,
        widths: Widths,
        evidence: Evidence,
        runtimes: Sequence[str] = (),
        fuse: Fuse = fused_here,
        left_out: Mapping[str, Collection[Value]] | None = None,
    ) -> None:
        self.network = network
        self.scheme = scheme
        self.runtimes = tuple(dict.fromkeys(runtimes)) or ("",)
        self._evidence = evidence
        self._fuse = fuse
        self._fused: dict[tuple[str, int], FusedSets] = {}
        gone = left_out or {}
        found = [_without(knob, gone.get(knob.name, ())) for knob in scheme.knobs(network, widths)]
        if not found:
            raise InvalidInput("methods", [], "no method can change anything in this network")
        self.space = Space(tuple(found))
        self.densities = tuple(knob for knob in found if isinstance(knob, Float) and knob.role == "density")
        self.levelled: tuple[Levelled, ...] = tuple(knob for knob in found if isinstance(knob, Int | Choice))
        if len(self.levelled) + len(self.densities) < len(found):
            raise InvalidInput("methods", self.space.names, "a knob has no levels and is not a density")

    @property
    def ordered(self) -> tuple[Levelled, ...]:
        """The knobs with levels from less to more: widths, ranks, bits."""
        return tuple(knob for knob in self.levelled if knob.ordered)

    @cached_property
    def settings(self) -> tuple[Mapping[str, Value], ...]:
        """All combinations of the options that apply to the whole network (such as fp32 or int8); the original's
        combination comes first.

        A device's speed depends on the setting, so predictions are calibrated for each setting.
        """
        options = [knob for knob in self.levelled if not knob.ordered and not knob.layers]
        levels = product(*(range(knob.level_count) for knob in options))
        return tuple({k.name: k.value(level) for k, level in zip(options, chosen, strict=True)} for chosen in levels)

    def setting(self, values: Values) -> int:
        """Return the index of the setting that these values have."""
        return next(i for i, setting in enumerate(self.settings) if setting.items() <= values.items())

    @cached_property
    def tables(self) -> tuple[NodeTable, ...]:
        """The kernel table of every node; takes about a minute for large networks.

        Raises:
            InvalidInput: see `node_tables`.
            NetworkRefused: a device cannot load one of the networks; the error has the network's values.
        """
        return node_tables(self._taken_apart, self.levelled)

    def rewritten(self, values: Values) -> Network:
        """Return the network at these values. Its shapes and speed are final, but its weights are not refitted."""
        return self.scheme.bind(values).rewrite(self.network, self._evidence)

    def ops(self, network: Network, runtime: str) -> tuple[Op, ...]:
        """Return the kernels of a network made by `rewritten`, or by training after it."""
        return ops(network, self._fused_sets(runtime, [network])[0], layout_of(runtime))

    def refuses(self, values: Values) -> bool:
        """Return True if a device cannot load the network at these values of the levelled knobs."""
        try:
            self._fused_of([values], self._networks([values]))
        except NetworkRefused:
            return True
        return False

    def _networks(self, batch: Sequence[Values]) -> list[Network]:
        whole = {knob.name: knob.whole for knob in self.densities}
        return [self.rewritten({**whole, **values}) for values in batch]

    def _fused_of(self, batch: Sequence[Values], networks: Sequence[Network]) -> dict[str, list[FusedSets]]:
        """Map each runtime to the fused sets of the networks at these values."""
        try:
            return {runtime: self._fused_sets(runtime, networks) for runtime in self.runtimes}
        except NetworkRefused as error:
            values = next(own for own, each in zip(batch, networks, strict=True) if each is error.network)
            raise NetworkRefused(error.device_id, error.reason, error.network, values) from error

    def _taken_apart(self, batch: Sequence[Values]) -> Iterator[Mapping[str, Part]]:
        networks = self._networks(batch)
        fused = self._fused_of(batch, networks)
        layouts = {runtime: layout_of(runtime) for runtime in self.runtimes}
        for i, network in enumerate(networks):
            yield parts(self.network, network, {runtime: sets[i] for runtime, sets in fused.items()}, layouts)

    def _fused_sets(self, runtime: str, networks: Sequence[Network]) -> list[FusedSets]:
        """Return each network's fused sets; the runtime is asked only once per wiring, because sizes do not affect
        which nodes are fused.
        """
        if not runtime:
            return [() for _ in networks]
        wirings = [_wiring(network) for network in networks]
        new = {w: n for w, n in zip(wirings, networks, strict=True) if (runtime, w) not in self._fused}
        for wiring, sets in zip(new, self._fuse(runtime, list(new.values())) if new else (), strict=True):
            self._fused[runtime, wiring] = sets
        return [self._fused[runtime, wiring] for wiring in wirings]


def parts(
    whole: Network, network: Network, fused: Mapping[str, FusedSets], layouts: Mapping[str, Layout]
) -> dict[str, Part]:
    """Map each node of the whole network to its part in a network made from it.

    Args:
        fused: runtime -> the sets of node names that run as one kernel.
        layouts: runtime -> its layouts.
    """
    owner = owners(whole, network)
    order = {node.name: i for i, node in enumerate(whole.nodes)}
    costs: dict[str, NodeCost] = {}
    counts: dict[str, dict[str, float]] = {}
    by_name = {node.name: node for node in network.nodes}
    for name, cost in node_costs(network).items():
        costs[owner[name]] = costs.get(owner[name], NodeCost()) + cost
        own = counts.setdefault(owner[name], {})
        for metric, number in counted_of_node(by_name[name], network, cost).items():
            own[metric] = own.get(metric, 0.0) + number
    kernels: dict[str, dict[str, list[Op]]] = {node: {runtime: [] for runtime in fused} for node in costs}
    for runtime, sets in fused.items():
        for template in op_templates(network, sets, layouts[runtime]):
            first = min((owner[node.name] for node in template.nodes), key=order.__getitem__)
            kernels[first][runtime].append(template.at())
    return {
        node: Part({runtime: tuple(found) for runtime, found in kernels[node].items()}, cost, counts[node])
        for node, cost in costs.items()
    }


def owners(whole: Network, network: Network) -> dict[str, str]:
    """Map each node of a rewritten network to the node of the whole network whose work it does.

    A node is matched by its name, else by a tensor that it produces. A node with a new name and new tensors (a
    conversion, the first half of a split layer) belongs to the node that reads it; if no node reads it, it belongs to
    the node that it reads.
    """
    names = {node.name for node in whole.nodes}
    makers = {tensor: node.name for node in whole.nodes for tensor in node.outputs if tensor}
    found: dict[str, str] = {}
    for node in reversed(network.nodes):
        known = [node.name] if node.name in names else [makers[t] for t in node.outputs if t in makers]
        readers = (found.get(reader.name) for tensor in node.outputs for reader in network.consumers(tensor))
        owner = next((name for name in (*known, *readers) if name), None)
        if owner:
            found[node.name] = owner
    for node in network.nodes:
        if node.name not in found:
            before = (found.get(p.name) for t in node.inputs if (p := network.producer(t)) is not None)
            found[node.name] = next((name for name in before if name), whole.nodes[0].name)
    return found


def _without(knob: Knob, options: Collection[Value]) -> Knob:
    """Return the knob without these options."""
    if not isinstance(knob, Choice) or not options:
        return knob
    return replace(knob, options=tuple(option for option in knob.options if option not in options))


def _wiring(network: Network) -> int:
    def row(node: Node) -> tuple[object, ...]:
        return (node.name, node.op_type, node.domain, node.inputs, node.outputs)

    return hash((*map(row, network.nodes), *network.outputs))

"""LayerRow: what a job did to one layer of a network, the time that this saves, the score that it costs, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compress.graph.groups import groups, layer_name
from compress.network import Network
from search.metric import Metric
from search.space import Value, Values
from workers.problem.builder import ProblemBuilder
from workers.reporting.layer_cut import Curves, LayerCut
from workers.reporting.layer_reasons import reason
from workers.reporting.node_times import NodeTimes

WHOLE_NETWORK = "whole network"
"""Name of the last rows: the time that belongs to no node, and the knobs that act on every layer."""


@dataclass(frozen=True)
class LayerRow:
    """One layer, or the whole network, before and after the cut.

    Attributes:
        group: the channels that are cut together or, for other roles, the knob; None if no knob acts on the layer.
        role: the quantity that the knob sets.
        before: the width, bits, rank or option of the uncut network; `after` is that of the cut network.
        latency_ms: device id -> predicted milliseconds before and after; a network's rows add up to its prediction.
        share: share of the uncut network's predicted time on the first device.
        sensitivity: the score lost, by the statistics, if only the layer's knobs are turned, summed over these knobs.
        reason: the reason for the width, in plain words.
    """

    layer: str
    group: str | None
    role: str | None
    before: Value | None
    after: Value | None
    latency_ms: Mapping[str, tuple[float, float]]
    share: float | None
    sensitivity: float | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the row in the contract's form."""
        return asdict(self)


@dataclass(frozen=True)
class LayerTable:
    """Makes the rows of one cut network. `times` has the network's times on each device."""

    builder: ProblemBuilder
    times: Sequence[NodeTimes]
    curves: Curves
    values: Values
    metric: Metric

    def rows(self) -> tuple[LayerRow, ...]:
        """Return a row for each node that takes time or makes channels, then the rows of the whole network."""
        return (*self._of_nodes(), *self._of_network())

    def _of_nodes(self) -> Iterator[LayerRow]:
        network, knobs = self.builder.kernels.network, self.builder.space.knobs
        made = {layer: group for group in groups(network) for layer in group.layers}
        for node, layer in layers_of(network).items():
            acting = [knob for knob in knobs if {layer, node}.intersection(knob.layers)]
            latency_ms = {each.device_id: each.of(node) for each in self.times}
            if acting or layer in made or any(any(pair) for pair in latency_ms.values()):
                yield self._row(LayerCut.of(layer, acting, self.values, made.get(layer)), node, latency_ms)

    def _of_network(self) -> Iterator[LayerRow]:
        """Yield a row for each knob that acts on every layer, or one row; the first has the time of no node."""
        acting = [[knob] for knob in self.builder.space.knobs if not knob.layers]
        rest_ms = {each.device_id: each.rest_ms for each in self.times}
        for knobs in acting or [[]]:
            yield self._row(LayerCut.of(WHOLE_NETWORK, knobs, self.values, None), None, rest_ms)
            rest_ms = {}

    def _row(self, cut: LayerCut, node: str | None, latency_ms: Mapping[str, tuple[float, float]]) -> LayerRow:
        first = self.times[0] if self.times else None
        return LayerRow(
            layer=cut.layer,
            group=cut.name,
            role=cut.role,
            before=cut.before,
            after=cut.after,
            latency_ms=latency_ms,
            share=latency_ms[first.device_id][0] / first.before_ms if first and latency_ms else None,
            sensitivity=cut.cost(self.values, self.curves),
            reason=reason(cut, node, self.times, self.curves, self.metric),
        )


def layers_of(network: Network) -> dict[str, str]:
    """Map each node to its layer's name: that of the weight that makes its channels, else the node's own name."""
    filters = {tensor for group in groups(network) for block in group.blocks for tensor, _ in block.filters}
    weights = {node.name: next((name for name in node.inputs if name in filters), None) for node in network.nodes}
    return {node: node if weight is None else layer_name(weight) for node, weight in weights.items()}

"""NodeTimes: a network's predicted latency on one device, divided among the nodes of the uncut network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from search.space import Values
from workers.problem.builder import ProblemBuilder
from workers.profiling.timed_device import TimedDevice


class NodeTimes:
    """Predicted milliseconds of each node before and after a cut, in the target's statistic for a machine at rest.

    Args:
        values: the values of the cut network.
        predicted_ms: the prediction that was reported for the cut network. The nodes' times and the rest are scaled to
            add up to it: it was made from the same table, but its line was fitted without the network's own timing.
    """

    def __init__(self, builder: ProblemBuilder, timed: TimedDevice, values: Values, predicted_ms: float) -> None:
        self.device_id = timed.target.device_id
        self.device_name = timed.target.device_name
        self._builder = builder
        self._timed = timed
        self._values = values
        self.after_ms = predicted_ms

    def of(self, node: str) -> tuple[float, float]:
        """Return the time of a node of the uncut network, before and after; 0 if it takes none."""
        return self._before.get(node, 0.0), self._scale * self._after.get(node, 0.0)

    @cached_property
    def before_ms(self) -> float:
        """The predicted latency of the uncut network."""
        return self._whole_ms(self._builder.whole)

    @property
    def rest_ms(self) -> tuple[float, float]:
        """The part of the latency that belongs to no node, before and after."""
        after_ms = self.after_ms - self._scale * sum(self._after.values())
        return self.before_ms - sum(self._before.values()), after_ms

    def saved_ms(self, further: Values) -> float:
        """Return the milliseconds that the cut network would save at these values."""
        return self._scale * (self._whole_ms(self._values) - self._whole_ms(further))

    @cached_property
    def _before(self) -> Mapping[str, float]:
        return self._ms(self._builder.whole)

    @cached_property
    def _after(self) -> Mapping[str, float]:
        return self._ms(self._values)

    @cached_property
    def _scale(self) -> float:
        return self.after_ms / self._whole_ms(self._values)

    def _whole_ms(self, values: Values) -> float:
        return self._line(values)[0] + sum(self._ms(values).values())

    def _ms(self, values: Values) -> dict[str, float]:
        table, (_, scale) = self._timed.table, self._line(values)
        runtime = table.device.runtime
        found = {node: part.ops.get(runtime, ()) for node, part in self._builder.parts_at(values).items()}
        table.entries([op for ops in found.values() for op in ops])  # one lookup for all: it fills the table's cache
        return {node: scale * sum(table.latency_us(op) for op in ops) / 1e3 for node, ops in found.items()}

    def _line(self, values: Values) -> tuple[float, float]:
        """Return the milliseconds of a call, and the factor of the nodes' times."""
        line = self._timed.lines[self._builder.kernels.setting(values)]
        return line.a_us / 1e3, line.b

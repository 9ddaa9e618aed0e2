"""Fills a device's table, and finds the smallest network with the help of the tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.tables.table import LatencyTable
from search.space import Value, Values
from workers.errors import JobFailed
from workers.plan import Target
from workers.problem.builder import ProblemBuilder
from workers.running.context import Context
from workers.running.device_requests import fill_most_uncertain


def filled_table(context: Context, builder: ProblemBuilder, target: Target, classes: KernelClasses) -> LatencyTable:
    runtime = context.ports.table(target.device_id).device.runtime
    ops, frequencies = builder.ops(runtime), builder.frequencies(runtime)
    ends = {op.key for values in builder.ends for op in builder.ops_at(values, runtime)}
    table = fill_most_uncertain(context, target.device_id, ops, frequencies, context.plan.effort.rows, ends)
    if not table.rows:
        raise JobFailed("no_timings", "profile", f"{target.device_name} returned no timings", "targets")
    return table.updated(classes=classes)


def smallest_network(builder: ProblemBuilder, tables: Sequence[LatencyTable]) -> Values:
    """Return the values with every ordered knob at its lowest level, in the setting that is then fastest. For the
    tiniest networks, int8 is slower.
    """
    least: dict[str, Value] = {knob.name: knob.least if knob.ordered else knob.whole for knob in builder.space.knobs}
    corners: list[Values] = [{**least, **setting} for setting in builder.settings]
    return corners[int(np.argmin(relative_costs(builder, tables, corners)))] if tables else corners[-1]


def relative_costs(
    builder: ProblemBuilder, tables: Sequence[LatencyTable], points: Sequence[Values]
) -> NDArray[np.float64]:
    """Return the (n,) summed kernel times of n networks, as shares of the longest on each device, summed over the
    devices.
    """
    costs = np.zeros(len(points))
    for table in tables:
        sums_us, _ = table.sums_us([builder.ops_at(values, table.device.runtime) for values in points])
        costs += sums_us / sums_us.max()
    return costs

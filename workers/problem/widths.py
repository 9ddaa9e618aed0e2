"""Chooses which widths of a block are worth trying on the job's devices."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.graph.groups import Block, prunable_blocks
from compress.network import Network
from compress.scheme import Scheme
from hw_profiles.tables.kernel_classes import KernelClasses
from search.space import Choice
from workers.errors import InvalidInput

MOST_LEVELS = 10
"""Maximum number of levels of one knob; with more levels, tables and searches grow but results do not improve."""
SAVING = 0.05
"""Smallest useful saving, as a share of a block's channel cost. A width that saves less than this, compared with the
next larger width, is not worth its table rows.
"""


def searched_widths(
    network: Network, scheme: Scheme, classes: Sequence[KernelClasses], most: int = MOST_LEVELS
) -> Mapping[str, tuple[int, ...]]:
    """Map each block's name to the widths that a job with these methods tries on these devices, ascending."""
    knobs = (knob for knob in scheme.knobs(network, {}) if isinstance(knob, Choice) and knob.role == "width")
    return block_widths(prunable_blocks(network), classes, most, {knob.name: knob.options for knob in knobs})


def block_widths(
    blocks: Sequence[Block],
    classes: Sequence[KernelClasses],
    most: int = MOST_LEVELS,
    taken: Mapping[str, Collection[int | float | str]] | None = None,
) -> Mapping[str, tuple[int, ...]]:
    """Map each block's name to at most `most` widths, ascending from at least one channel up to the whole block.

    A width stays only if it costs less than every larger width, on average over the devices whose kernel classes are
    given, and if the methods accept it: `taken` lists the accepted widths of each block (None means all widths). If
    more than `most` widths stay, the kept widths are spread evenly over their costs.
    """
    found = {}
    for block in blocks:
        counts = np.arange(max(1, block.minimum), block.width + 1)
        if taken is not None:
            own = {*taken.get(block.name, ()), block.width}
            counts = counts[[int(count) in own for count in counts]]
        costs = np.mean([_costs(counts.tolist(), rules) for rules in classes or [KernelClasses()]], axis=0)
        kept = allowed_widths(costs, SAVING)
        found[block.name] = _thinned(counts[kept], costs[kept], most)
    return found


def allowed_widths(costs_us: NDArray[np.floating[Any]], tolerance: float = 0.0) -> NDArray[np.bool_]:
    """Return which widths are allowed. A width is allowed if no larger width of the group costs less.

    `costs_us`, shape (..., widths), is a group's cost at each width, ascending, with the other groups held fixed. With
    a `tolerance`, a width is allowed only if it saves more than that share compared with every larger allowed width.
    This keeps the largest width of each step; where costs fall steadily, it keeps only widths whose costs differ by
    that share. The largest width is always allowed. Returns booleans of shape (..., widths). Raises InvalidInput on
    NaN.
    """
    costs = np.asarray(costs_us, dtype=np.float64)
    if np.isnan(costs).any():
        raise InvalidInput("costs_us", costs.tolist(), "every width needs a cost")
    allowed = np.ones(costs.shape, dtype=np.bool_)
    cheapest = costs[..., -1].copy()
    for width in range(costs.shape[-1] - 2, -1, -1):
        allowed[..., width] = costs[..., width] <= (1.0 - tolerance) * cheapest
        cheapest = np.where(allowed[..., width], costs[..., width], cheapest)
    return allowed


def _costs(counts: Sequence[int], rules: KernelClasses) -> NDArray[np.float64]:
    """Return each channel count's cost in the layers that write and read the channels, as a share of the largest
    count's cost.
    """
    paid = np.array([rules.effective_out(count) + _paid_in(count, rules) for count in counts])
    return np.asarray(paid / paid[-1])


def _paid_in(count: int, rules: KernelClasses) -> float:
    """Return the number of channels that the reading layer pays for; the price of a slow count is interpolated between
    its fast neighbours.
    """
    if not rules.is_slow(count):
        return rules.effective_in(count)
    below = count // rules.in_modulus * rules.in_modulus
    ends = (below, below + rules.in_modulus)
    return rules.slow_path * float(np.interp(count, ends, [rules.effective_in(end) for end in ends]))


def _thinned(counts: NDArray[np.int64], costs: NDArray[np.float64], most: int) -> tuple[int, ...]:
    """Keep both ends, then repeatedly add the width whose cost is farthest from the costs of the chosen widths. Both
    arrays have shape (n,).
    """
    chosen = list(dict.fromkeys([len(counts) - 1, 0]))
    while len(chosen) < min(most, len(counts)):
        distance = np.abs(costs[:, None] - costs[chosen]).min(axis=1)
        distance[chosen] = -1.0
        chosen.append(int(np.argmax(distance)))
    return tuple(int(count) for count in counts[sorted(chosen)])

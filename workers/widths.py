"""Which widths of a block are worth trying on the devices at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compress.groups import Block
from hw_profiles.grid import allowed_widths
from hw_profiles.kernel_classes import KernelClasses

MOST_LEVELS = 12
"""Levels of one knob: beyond about a dozen, tables and searches grow and results do not."""
_EQUAL = 1e-6
"""Costs this close are the same step: only the widest of a step is kept."""


def block_widths(
    blocks: Sequence[Block], classes: Sequence[KernelClasses], most: int = MOST_LEVELS
) -> Mapping[str, tuple[int, ...]]:
    """Block name -> widths, ascending, the largest being the whole block; at most `most`, never below one.

    A width stays only if no larger one is as cheap on any of the devices, whose kernel classes these are.
    """
    return {block.name: _thinned(_worthwhile(block, classes), most) for block in blocks}


def _worthwhile(block: Block, classes: Sequence[KernelClasses]) -> tuple[int, ...]:
    counts = np.arange(max(1, block.minimum), block.width + 1)
    kept = np.ones(len(counts), dtype=bool)
    for rules in classes:
        kept &= allowed_widths(_costs(counts.tolist(), rules), _EQUAL)
    return tuple(int(count) for count in counts[kept])


def _costs(counts: Sequence[int], rules: KernelClasses) -> np.ndarray:
    """What so many channels cost, made by one layer and read by another, in channels paid for."""
    slow = [rules.slow_path if rules.is_slow(count) else 1.0 for count in counts]
    return np.array([rules.effective_out(c) + s * rules.effective_in(c) for c, s in zip(counts, slow, strict=True)])


def _thinned(widths: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Evenly spread over what there is, both ends kept."""
    if len(widths) <= most:
        return widths
    at = np.linspace(0, len(widths) - 1, most).round().astype(int)
    return tuple(widths[i] for i in dict.fromkeys(at.tolist()))

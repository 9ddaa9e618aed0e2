"""Culprit: finds the knob that makes a device refuse a network."""

from __future__ import annotations

from search.space import Levelled, Values
from workers.problem.kernel_space import KernelSpace


def culprit(kernels: KernelSpace, values: Values) -> Levelled | None:
    """Return a knob without whose change the device would load the network at these values, perhaps with fewer changes
    of other knobs; None if the device refuses the uncut network, too.

    The knobs are turned one after another, and the first one at which the device refuses is found by bisection. Options
    are turned before widths, so that a refusal of both together costs a width and not the option.
    """
    whole = kernels.space.whole
    changed = [knob for knob in kernels.levelled if values[knob.name] != whole[knob.name]]
    changed.sort(key=lambda knob: knob.ordered)

    def refused(count: int) -> bool:
        return kernels.refuses({**whole, **{knob.name: values[knob.name] for knob in changed[:count]}})

    if not changed or refused(0):
        return None
    low, high = 0, len(changed)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if refused(middle) else (middle, high)
    return changed[high - 1]

"""Which widths are worth searching on a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hw_profiles.errors import InvalidInput


def allowed_widths(costs_us: npt.NDArray[np.floating[Any]], tolerance: float = 0.0) -> npt.NDArray[np.bool_]:
    """Whether each width is allowed: no larger width of its group costs less.

    `costs_us` has shape (..., widths), the widths ascending: a group's cost at each width, the others being
    held. With a `tolerance` a width is allowed only if it saves more than that share over every larger allowed one,
    which keeps the largest width of each step, and of a slope as many as differ. The largest width is always
    allowed. Shape (..., widths), boolean. Raises InvalidInput on NaN.
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

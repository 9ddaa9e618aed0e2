"""Which widths are worth searching on a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hw_profiles.errors import InvalidInput


def allowed_widths(costs_us: npt.NDArray[np.floating[Any]], tolerance: float = 0.0) -> npt.NDArray[np.bool_]:
    """Whether each width is allowed: no larger width of its group costs less.

    `costs_us` has shape (..., widths), the widths ascending: a group's cost at each width, the others being
    held. `tolerance` is a share of the cost below which two costs count as equal: a width is then allowed only
    if it saves more than that over every larger one, which keeps one width of each step. The largest width is
    always allowed. Shape (..., widths), boolean. Raises InvalidInput on NaN.
    """
    costs = np.asarray(costs_us, dtype=np.float64)
    if np.isnan(costs).any():
        raise InvalidInput("costs_us", costs.tolist(), "every width needs a cost")
    allowed = np.ones(costs.shape, dtype=np.bool_)
    cheapest_from_here = np.minimum.accumulate(costs[..., ::-1], axis=-1)[..., ::-1]
    allowed[..., :-1] = costs[..., :-1] <= (1.0 - tolerance) * cheapest_from_here[..., 1:]
    return allowed

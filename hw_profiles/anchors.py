"""Anchors: models timed first and last in every session, which tell how fast the machine was in it.

Between processes of one machine all latencies moved by a common 2.5 % with 0.6 % of scatter (measured): drift is
a scale, and anchors take it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hw_profiles.errors import InvalidInput

# Beyond these the batch is measured again rather than scaled.
MAX_SCALE = 0.10
MAX_DRIFT = 0.03


@dataclass(frozen=True)
class Session:
    """`scale` multiplies what was measured; `drift` is the relative change from the first anchors to the last."""

    scale: float
    drift: float

    @property
    def accepted(self) -> bool:
        """Whether the session is close enough to the reference to be scaled."""
        return abs(self.scale - 1.0) <= MAX_SCALE and abs(self.drift) <= MAX_DRIFT


def session(references_us: Mapping[str, float], first_us: Mapping[str, float], last_us: Mapping[str, float]) -> Session:
    """The session of anchors measured at its beginning and end against their references, by key.

    Raises InvalidInput where no anchor was measured at both ends, or a latency is not above 0.
    """
    shared = sorted(references_us.keys() & first_us.keys() & last_us.keys())
    if not shared:
        raise InvalidInput("anchors", sorted(references_us), "none of these was measured first and last")
    reference, first, last = (
        np.array([values[key] for key in shared], dtype=np.float64) for values in (references_us, first_us, last_us)
    )
    if min(reference.min(), first.min(), last.min()) <= 0:
        raise InvalidInput("anchors", float(min(reference.min(), first.min(), last.min())), "above 0")
    scale = float(np.median(reference / np.sqrt(first * last)))
    return Session(scale, float(np.median(last / first) - 1.0))

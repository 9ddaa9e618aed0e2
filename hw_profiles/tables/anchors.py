"""Anchors: models timed in every session, which tell how fast the machine was in it.

Between sessions of one machine all latencies move by a common factor: `session_scale` in the rows of
benchmarks/predictor_accuracy.py, whose figures with and without anchors are in docs/benchmarks.md. On a shared machine
it was up to 13 % within ten minutes, and six whole networks kept within 1 % of it (looked at once, no rows were kept).
So drift is a scale, anchors take it out, and a large scale alone is no fault; anchors that disagree with each other, or
change while they are timed, are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hw_profiles.errors import InvalidInput

# Beyond these the batch is measured again rather than scaled. A machine at another speed than this is another one.
MAX_SCALE = 1.5
MAX_DRIFT = 0.03
MAX_SPREAD = 0.06
# Of a normal law, from a median absolute deviation.
_SIGMA_PER_MAD = 1.4826


@dataclass(frozen=True)
class Session:
    """`scale` multiplies what was measured; `drift` is the relative change from the first anchors to the last;
    `spread` is how far single anchors are from the scale: a robust relative standard deviation.
    """

    scale: float
    drift: float
    spread: float = 0.0

    @property
    def accepted(self) -> bool:
        """Whether one factor brings the session to the reference."""
        steady = abs(self.drift) <= MAX_DRIFT and self.spread <= MAX_SPREAD
        return steady and 1.0 / MAX_SCALE <= self.scale <= MAX_SCALE


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
    scales = reference / np.sqrt(first * last)
    scale = float(np.median(scales))
    spread = _SIGMA_PER_MAD * float(np.median(np.abs(scales / scale - 1.0)))
    return Session(scale, float(np.median(last / first) - 1.0), spread)

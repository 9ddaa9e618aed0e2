"""Anchors: models that are timed in every session to show how fast the machine was in that session.

Between sessions of one machine all latencies change by a common factor: `session_scale` in the rows of
benchmarks/predictor_accuracy.py; docs/benchmarks.md has its figures with and without anchors. On a shared machine the
factor once changed by 13 % within ten minutes, while six whole networks stayed within 1 % of it (no rows were kept). So
drift is a scale that anchors remove; a large scale is not a fault in itself. Anchors that disagree with each other, or
that change while they are timed, are a fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hw_profiles.errors import InvalidInput

# If one of these bounds is exceeded, the batch is measured again instead of being scaled. A scale above MAX_SCALE means
# that this is a different machine.
MAX_SCALE = 1.5
MAX_DRIFT = 0.03
MAX_SPREAD = 0.06
# Ratio of the standard deviation of a normal distribution to its median absolute deviation.
_SIGMA_PER_MAD = 1.4826


@dataclass(frozen=True)
class Session:
    """The result of a session's anchors. `scale` is the factor to apply to what was measured; `drift` is the relative
    change from the first anchors to the last; `spread` is a robust relative standard deviation of single anchors from
    the scale.
    """

    scale: float
    drift: float
    spread: float = 0.0

    @property
    def accepted(self) -> bool:
        """True if a single factor converts the session's latencies to the reference's latencies."""
        steady = abs(self.drift) <= MAX_DRIFT and self.spread <= MAX_SPREAD
        return steady and 1.0 / MAX_SCALE <= self.scale <= MAX_SCALE


def session(references_us: Mapping[str, float], first_us: Mapping[str, float], last_us: Mapping[str, float]) -> Session:
    """Return the session, given the anchors' latencies at its beginning, at its end, and in the reference, by key.

    Raises InvalidInput if no anchor was measured at both ends, or a latency is not above 0.
    """
    shared = sorted(references_us.keys() & first_us.keys() & last_us.keys())
    if not shared:
        raise InvalidInput("anchors", sorted(references_us), "none of these was measured at both ends of the session")
    reference, first, last = (
        np.array([values[key] for key in shared], dtype=np.float64) for values in (references_us, first_us, last_us)
    )
    if min(reference.min(), first.min(), last.min()) <= 0:
        raise InvalidInput("anchors", float(min(reference.min(), first.min(), last.min())), "must be above 0")
    scales = reference / np.sqrt(first * last)
    scale = float(np.median(scales))
    spread = _SIGMA_PER_MAD * float(np.median(np.abs(scales / scale - 1.0)))
    return Session(scale, float(np.median(last / first) - 1.0), spread)

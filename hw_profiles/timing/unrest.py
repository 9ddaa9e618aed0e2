"""Unrest: the ratio of a statistic to the quiet latency, on a machine that is doing nothing else.

Tables hold quiet latencies, but a limit refers to `quiet`, `p50` or `p95`. The factor between the limit's statistic and
the quiet latency is a property of the device only while the machine is quiet. Over a whole timing session, the factor
may be inflated by other work; dividing a limit by such a factor would refuse networks that meet the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hw_profiles.errors import InvalidInput
from hw_profiles.timing.protocol import QUIET_PERCENTILE, Sample, Statistic, statistic_us, statistic_values

NARROW = 0.05
"""Relative width up to which an interval counts as narrow, so that its value is used. It is the same as a search's own
margin below a limit.
"""


@dataclass(frozen=True)
class Unrest:
    """The ratio of a statistic to the quiet latency: `value` on a machine at rest, between `low` and `high`.

    `low` comes from bursts as undisturbed as the quiet latency itself, `high` from the whole session with its
    disturbances.
    """

    low: float = 1.0
    value: float = 1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.value <= self.high:
            raise InvalidInput(
                "unrest", (self.low, self.value, self.high), "low, value and high must rise in this order"
            )

    @property
    def leniency(self) -> float:
        """Factor applied to a limit before it is compared with predictions at `value`.

        It is 1 if the interval is narrow. Otherwise it is large enough that no network is refused if it would meet the
        limit on a machine at rest.
        """
        return 1.0 if self.high <= (1.0 + NARROW) * self.low else self.value / self.low


def unrest(samples: Sequence[Sample], statistic: Statistic) -> Unrest:
    """Return the factor for this statistic: the median over networks timed in one session.

    Raises:
        InvalidInput: there is no sample, or the statistic is unknown.
    """
    if not samples:
        raise InvalidInput("samples", 0, "must be at least one")
    if statistic == "quiet":
        return Unrest()
    seen = np.median([_factors(sample, statistic) for sample in samples], axis=0)
    low, value, high = np.maximum.accumulate(seen).tolist()
    return Unrest(low, value, high)


def _factors(sample: Sample, statistic: Statistic) -> tuple[float, float, float]:
    """Return three factors, computed from the medians at the quiet percentile, from the quieter half of the bursts, and
    from all bursts.
    """
    quiet_us = statistic_us(sample, "quiet")
    medians_us, percentile = statistic_values(sample, statistic)
    calm = np.argsort(sample.minima_us, kind="stable")[: -(-sample.bursts // 2)]
    least, rest, whole = (
        float(np.percentile(values, level))
        for values, level in ((medians_us, QUIET_PERCENTILE), (medians_us[calm], percentile), (medians_us, percentile))
    )
    return least / quiet_us, rest / quiet_us, whole / quiet_us

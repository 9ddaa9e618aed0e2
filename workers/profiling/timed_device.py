"""TimedDevice and Profile: the findings of the profile phase about each target and about the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from compress.network import Network
from hw_profiles.ops import Op
from hw_profiles.tables.calibration import Calibration, calibrate
from hw_profiles.tables.table import LatencyTable
from hw_profiles.timing.protocol import Sample, statistic_us
from hw_profiles.timing.unrest import Unrest
from search.space import Values
from workers.plan import Target
from workers.problem.builder import Device, ProblemBuilder

_MARGIN = (0.01, 0.05)


@dataclass(frozen=True)
class Whole:
    """A network that was timed as a whole: its kernels and its quiet latency."""

    ops: tuple[Op, ...]
    quiet_us: float


@dataclass(frozen=True)
class TimedDevice:
    """A target with the findings about its device. All milliseconds (the limit, predictions, floors and bounds) are in
    the target's own statistic, for a machine at rest.

    `wholes` has, for each setting, the networks that the device's line is fitted on; `unrest` is the ratio of the
    statistic to the quiet latency.
    """

    target: Target
    table: LatencyTable
    wholes: tuple[tuple[Whole, ...], ...]
    original: Sample
    smallest: Sample
    unrest: Unrest

    @cached_property
    def calibrations(self) -> tuple[Calibration, ...]:
        """For each setting, the line a + b * sum that gives the quiet latency, fitted on the networks of that
        setting.
        """
        return tuple(_line(self.table, wholes) for wholes in self.wholes)

    @property
    def lines(self) -> tuple[Calibration, ...]:
        """The calibrations in the target's statistic."""
        return tuple(line.scaled(self.unrest.value) for line in self.calibrations)

    def line_without(self, setting: int, ops: tuple[Op, ...]) -> Calibration:
        """Return the line of a setting, in the target's statistic, fitted without networks made of exactly these
        kernels: a network's own timing must not be part of its prediction.
        """
        others = [whole for whole in self.wholes[setting] if whole.ops != ops]
        return _line(self.table, others).scaled(self.unrest.value)

    @property
    def device(self) -> Device:
        """The device in the problem builder's form."""
        return Device(self.target.device_id, self.table, self.lines)

    def with_table(self, table: LatencyTable) -> TimedDevice:
        """Return the device with another snapshot; the alignment rules stay, so that the search's grid does not
        change.
        """
        return replace(self, table=table.updated(classes=self.table.classes))

    def resting_ms(self, sample: Sample) -> float:
        """Return the latency, on a machine at rest, of a network that was timed in any session."""
        return self.unrest.value * statistic_us(sample, "quiet") / 1e3

    @property
    def limit_ms(self) -> float:
        """The limit in milliseconds; a ratio refers to the original in the session in which predictions are
        calibrated.
        """
        if self.target.max_latency_ms is not None:
            return self.target.max_latency_ms
        assert self.target.max_latency_ratio is not None
        return self.target.max_latency_ratio * self.resting_ms(self.original)

    @property
    def allowed_ms(self) -> float:
        """The value that predictions must not exceed.

        This value is above a limit in milliseconds if other work on the machine hid how far the statistic is from the
        quiet latency. A ratio needs no such allowance, because both sides are equally far from the quiet latency.
        """
        return self.limit_ms * (self.unrest.leniency if self.target.max_latency_ms is not None else 1.0)

    @property
    def bound_ms(self) -> float:
        """`allowed_ms` less a margin for prediction errors."""
        worst = max(line.residual for line in self.calibrations)
        return self.allowed_ms * (1.0 - min(max(worst, _MARGIN[0]), _MARGIN[1]))


@dataclass(frozen=True)
class Profile:
    """The findings of the profile phase. `network` is the form, with batch norms folded, from which everything is
    cut.
    """

    network: Network
    builder: ProblemBuilder
    devices: tuple[TimedDevice, ...]
    original: Mapping[str, float]
    smallest: Values

    def floor_ms(self, timed: TimedDevice) -> float:
        """Return the lower bound on any candidate's predicted latency on the device."""
        return self.builder.floor_ms(timed.device)

    def under_the_floor(self, timed: TimedDevice) -> bool:
        """Return True if the device's limit is below both the predicted floor and the smallest network's latency."""
        return timed.resting_ms(timed.smallest) > timed.allowed_ms < self.floor_ms(timed)

    @property
    def in_reach(self) -> tuple[TimedDevice, ...]:
        """The devices whose limits some network may meet."""
        return tuple(timed for timed in self.devices if not self.under_the_floor(timed))


def _line(table: LatencyTable, wholes: Sequence[Whole]) -> Calibration:
    sums_us, sigmas_us = table.sums_us([whole.ops for whole in wholes])
    return calibrate(sums_us.tolist(), sigmas_us.tolist(), [whole.quiet_us for whole in wholes])

"""Refusals: tells the networks that a device timed from those that it could not convert, load or run."""

from __future__ import annotations

from collections.abc import Mapping

from hw_profiles.timing.protocol import Failure, Sample
from workers.errors import MeasurementFailed


def ran(answers: Mapping[str, Sample | Failure]) -> dict[str, Sample]:
    """Return the samples of the networks that the device timed."""
    return {name: each for name, each in answers.items() if isinstance(each, Sample)}


def refused(answers: Mapping[str, object]) -> dict[str, Failure]:
    """Return the failures of the networks that the device refused."""
    return {name: each for name, each in answers.items() if isinstance(each, Failure)}


def demand(device_id: str, answers: Mapping[str, object], name: str) -> None:
    """Raise MeasurementFailed with the device's reason if it refused the network `name`, without which a job cannot
    go on.
    """
    failure = refused(answers).get(name)
    if failure is not None:
        raise MeasurementFailed(device_id, f"it refuses the {name} network: {failure.reason}")

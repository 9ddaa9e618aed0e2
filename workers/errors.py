"""Errors of the workers.

WorkerError ├── InvalidInput (also ValueError) a plan or an argument that can never work: `field`, `value` ├── JobFailed
the job cannot go on: `code`, `step`, `field`, `detail` ├── LeaseLost another conductor holds this job now: stop at
once, write nothing ├── DeviceOffline no agent serves this device: `device_id` ├── MeasurementFailed the device tried
and failed: `device_id` │ └── NetworkRefused its runtime cannot load one network: `network`, `values`, `reason` ├──
PoolClosed work was submitted to a closed pool ├── PoolBroken no worker of a pool can be started │ ├── ClusterDown
Ray, which would start the workers, is not up │ └── NoRoom other jobs use all CPUs: wait └── Diverged a network's loss
or outputs are not finite: only this network fails, reason "nan"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class WorkerError(Exception):
    """Base of all errors of this folder."""


class InvalidInput(WorkerError, ValueError):
    """A value that can never work, however often the request is repeated."""

    def __init__(self, field: str, value: object, message: str) -> None:
        super().__init__(f"{field}: {message} (got {value!r})")
        self.field = field
        self.value = value
        self.message = message


class JobFailed(WorkerError):
    """The job ends as `failed`; the four parts are the contract's `failure`."""

    def __init__(self, code: str, step: str, detail: str, field: str | None = None) -> None:
        super().__init__(f"{code} in {step}: {detail}")
        self.code = code
        self.step = step
        self.detail = detail
        self.field = field


class LeaseLost(WorkerError):
    """This run lost its lease: another conductor owns the job's rows."""


class DeviceOffline(WorkerError):
    """No agent has served this device for longer than a job waits."""

    def __init__(self, device_id: str, detail: str) -> None:
        super().__init__(f"device {device_id} is offline: {detail}")
        self.device_id = device_id


class MeasurementFailed(WorkerError):
    """The device answered, but without a timing."""

    def __init__(self, device_id: str, detail: str) -> None:
        super().__init__(f"device {device_id} could not measure: {detail}")
        self.device_id = device_id


class NetworkRefused(MeasurementFailed):
    """The device's runtime cannot load one network. `values` are the network's values, once they are known."""

    def __init__(self, device_id: str, reason: str, network: object, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(device_id, f"its runtime cannot load a network: {reason}")
        self.reason = reason
        self.network = network
        self.values = values


class PoolClosed(WorkerError):
    """`submit` was called after `close`."""


class PoolBroken(WorkerError):
    """No worker can be started. This is not the fault of any candidate, so no candidate fails."""


class Diverged(WorkerError):
    """A network's numbers are no longer finite."""


class ClusterDown(PoolBroken):
    """Ray is not up, perhaps only for a while. The cause is the machine, not the job."""


class NoRoom(PoolBroken):
    """All CPUs are in use by other jobs; nothing has failed."""

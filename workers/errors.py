"""Errors of the workers.

WorkerError
├── InvalidInput (also ValueError)   a plan or an argument that can never work: `field`, `value`
├── JobFailed                        the job cannot go on: `code`, `step`, `field`, `detail`
├── LeaseLost                        another conductor holds this job now: stop at once, write nothing
├── DeviceOffline                    nobody times on this device: `device_id`
├── MeasurementFailed                the device tried and could not: `device_id`
├── PoolClosed                       work was offered to a pool that is closed
├── PoolBroken                       no worker of a pool can be started
│   ├── ClusterDown                  there is no Ray to start them on
│   └── NoRoom                       others have all that there is to compute on: wait
└── Diverged                         a network's loss or outputs are not finite: its own failure, reason "nan"
"""

from __future__ import annotations


class WorkerError(Exception):
    """Base of every error of this folder."""


class InvalidInput(WorkerError, ValueError):
    """A value that can never work, whoever sends it again."""

    def __init__(self, field: str, value: object, message: str) -> None:
        super().__init__(f"{field}: {message} (got {value!r})")
        self.field = field
        self.value = value
        self.message = message


class JobFailed(WorkerError):
    """A job that ends as `failed`; its four parts are the contract's `failure`."""

    def __init__(self, code: str, step: str, detail: str, field: str | None = None) -> None:
        super().__init__(f"{code} in {step}: {detail}")
        self.code = code
        self.step = step
        self.detail = detail
        self.field = field


class LeaseLost(WorkerError):
    """This run was fenced off: another conductor owns the job's rows."""


class DeviceOffline(WorkerError):
    """No agent has served this device for longer than a job waits."""

    def __init__(self, device_id: str, detail: str) -> None:
        super().__init__(f"device {device_id} is offline: {detail}")
        self.device_id = device_id


class MeasurementFailed(WorkerError):
    """The device answered, but not with a timing."""

    def __init__(self, device_id: str, detail: str) -> None:
        super().__init__(f"device {device_id} could not measure: {detail}")
        self.device_id = device_id


class PoolClosed(WorkerError):
    """`submit` after `close`."""


class PoolBroken(WorkerError):
    """The workers do not come up: not one candidate's fault, so no candidate fails for it."""


class Diverged(WorkerError):
    """Numbers of one network are not finite any more."""


class ClusterDown(PoolBroken):
    """Ray is not there: not lost for good, and nobody's fault but the machine's."""


class NoRoom(PoolBroken):
    """No CPU is free: nothing failed, somebody else's job is there."""

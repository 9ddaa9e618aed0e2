"""DeviceWatch: marks a job as waiting while its device is offline, and fails the job if the wait is too long."""

from __future__ import annotations

from datetime import datetime

from service.store.devices import devices
from service.store.engine import Store
from service.store.jobs import job_leases, jobs
from service.store.jobs.job_leases import Held
from workers.errors import DeviceOffline

AWAY = ("offline", "quarantined")


class DeviceWatch:
    """Watches one device for one job. `offline_s` is the longest time that a job waits for an offline device."""

    def __init__(self, store: Store, held: Held, device_id: str, offline_s: float) -> None:
        self._store = store
        self._held = held
        self._device_id = device_id
        self._offline_s = offline_s

    def look(self) -> None:
        """Check the device, and note in the job whether the job is waiting for the device.

        Raises:
            DeviceOffline: the job has waited for `offline_s`, or the device was deleted.
        """
        with self._store.read() as tx:
            device = devices.find(tx, self._device_id)
            job = jobs.get(tx, self._held.job_id)
            if device is None:
                raise DeviceOffline(self._device_id, "it was deleted")
            state = devices.state(tx, device)
            waiting = job.waiting_for
            now = tx.now
        if state not in AWAY:
            if waiting is not None:
                self._note(None)
            return
        if waiting is None or waiting["device"] != self._device_id:
            self._note(self._device_id)
        elif (now - datetime.fromisoformat(waiting["since"])).total_seconds() >= self._offline_s:
            raise DeviceOffline(self._device_id, f"{device.name} has been {state} for {self._offline_s:.0f} s")

    def _note(self, device_id: str | None) -> None:
        with self._store.begin() as tx:
            job_leases.fence(tx, self._held)
            jobs.wait_for(tx, self._held.job_id, device_id)

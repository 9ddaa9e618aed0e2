"""Offered: the devices that an agent works for. Users may delete a device on the server while the agent works."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hw_profiles.device import DeviceConfig

log = logging.getLogger(__name__)


@dataclass
class Offered:
    """An agent's offers, by the ids that the server gave them. Safe to use from two threads.

    If `again` is True, a deleted device is offered again; else the agent continues with its other devices. The event
    `missing` is set while a deleted device still has to be offered again.
    """

    configs: Sequence[DeviceConfig] = ()
    again: bool = False
    missing: threading.Event = field(default_factory=threading.Event)
    _by_id: dict[str, DeviceConfig] = field(default_factory=dict)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the devices that the server has not reported as deleted."""
        return tuple(self._by_id)

    def config(self, device_id: str) -> DeviceConfig:
        """Return the device with this id."""
        return self._by_id[device_id]

    def accepted(self, ids: Iterable[str]) -> None:
        """Record that the server has accepted every offer; the ids are in the order of the offers."""
        self._by_id = dict(zip(ids, self.configs, strict=True))
        self.missing.clear()

    def removed(self, ids: Iterable[str]) -> Sequence[str]:
        """Note and log that these devices were deleted; return the names of those that were not yet known to be
        deleted.
        """
        gone = {device_id for device_id in ids if device_id in self._by_id}
        names = [self._by_id[device_id].name for device_id in gone]
        self._by_id = {device_id: config for device_id, config in self._by_id.items() if device_id not in gone}
        if gone:
            what = "offering it again" if self.again else f"continuing with {len(self._by_id)} other devices"
            log.warning("deleted on the server: %s; %s", ", ".join(sorted(names)), what)
        if gone and self.again:
            self.missing.set()
        return names

"""Offered: the devices that an agent works for. A user may delete one on the server while the agent works."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hw_profiles.device import DeviceConfig

log = logging.getLogger(__name__)


@dataclass
class Offered:
    """What an agent offers, under the ids that the server gave. Safe to use from two threads.

    `again`: offer a deleted device again; else the agent goes on with the others. `missing` is set while there is one
    to offer again.
    """

    configs: Sequence[DeviceConfig] = ()
    again: bool = False
    missing: threading.Event = field(default_factory=threading.Event)
    _by_id: dict[str, DeviceConfig] = field(default_factory=dict)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids that the server knows, as far as it has told."""
        return tuple(self._by_id)

    def config(self, device_id: str) -> DeviceConfig:
        """The device with this id."""
        return self._by_id[device_id]

    def accepted(self, ids: Iterable[str]) -> None:
        """The server knows every offer, under these ids in their order."""
        self._by_id = dict(zip(ids, self.configs, strict=True))
        self.missing.clear()

    def removed(self, ids: Iterable[str]) -> Sequence[str]:
        """Note that these devices were deleted, and say so; the names of those that are news."""
        gone = {device_id for device_id in ids if device_id in self._by_id}
        names = [self._by_id[device_id].name for device_id in gone]
        self._by_id = {device_id: config for device_id, config in self._by_id.items() if device_id not in gone}
        if gone:
            what = "offering it again" if self.again else f"going on with {len(self._by_id)} others"
            log.warning("deleted on the server: %s; %s", ", ".join(sorted(names)), what)
        if gone and self.again:
            self.missing.set()
        return names

"""Devices page: all devices with their state, and the coverage and accuracy of their tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request

from service.depends import State
from service.pages.page import Page
from service.routes.devices.devices import device_public
from service.store import events
from service.store.devices import devices
from service.store.devices.device_figures import figures


def _fill(request: Request, state: State) -> Mapping[str, Any]:
    with state.store.read() as tx:
        since = events.newest(tx)
        known = figures(tx)
        rows = tx.session.execute(devices.rows().order_by(devices.Device.name)).scalars()
        shown = [device_public(tx, device, known) for device in rows]
    return {"devices": shown, "since": since, "url": str(request.base_url).rstrip("/")}


PAGE = Page("devices", "/devices", _fill, label="Devices", order=2)

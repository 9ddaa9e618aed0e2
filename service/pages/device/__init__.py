"""Device page: the state of a device, and curves of latency against channels from the device's table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import Request

from hw_profiles.tables.table import Row
from service.depends import State
from service.pages.page import Page
from service.routes.devices.devices import device_public
from service.store import events
from service.store.devices import devices, latency
from service.store.devices.device_figures import figures

AXES = {"out_channels": "in_channels", "in_channels": "out_channels"}
MIN_POINTS = 3


def curves(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return curves of latency against one channel count, with all other features fixed and the longest curve first.

    Each curve is {name, axis, points: [{channels, latency_us, sigma_us}]} with at least three channel counts.
    """
    found: dict[tuple[str, str], dict[int, Row]] = defaultdict(dict)
    for row in rows:
        f = row.features
        for axis, other in AXES.items():
            channels = int(row.features[axis])  # type: ignore[literal-required]  # both are columns
            if channels:
                fixed = int(row.features[other])  # type: ignore[literal-required]  # both are columns
                name = (
                    f"{f['kind']} {f['kernel']}x{f['kernel']}, stride {f['stride']}, "
                    f"{f['height']}x{f['width']}, {fixed} {other.split('_')[0]}, {f['dtype']}"
                )
                found[(axis, name)].setdefault(channels, row)
    shown = [
        {
            "name": name,
            "axis": axis,
            "points": [
                {"channels": channels, "latency_us": row.latency_us, "sigma_us": row.sigma_us}
                for channels, row in sorted(points.items())
            ],
        }
        for (axis, name), points in found.items()
        if len(points) >= MIN_POINTS
    ]
    return sorted(shown, key=lambda curve: (-len(curve["points"]), curve["name"]))


def _fill(request: Request, state: State) -> Mapping[str, Any]:
    with state.store.read() as tx:
        since = events.newest(tx)
        row = devices.get(tx, request.path_params["ref"])
        device = device_public(tx, row, figures(tx, row.id))
        table = latency.table(tx, row.id)
    found = curves(table.rows.values())
    wanted = request.query_params.get("curve", "0")
    chosen = min(int(wanted), len(found) - 1) if wanted.isdecimal() and found else 0
    return {
        "device": device,
        "table": table,
        "curves": found,
        "chosen": chosen,
        "curve": found[chosen] if found else None,
        "since": since,
    }


PAGE = Page("device", "/devices/{ref}", _fill)

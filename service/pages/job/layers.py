"""Layers section of the job page: a row for each layer of every finalist, with bars of its time before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.jobs.layers import LayerPublic, LayersPublic


def layer_tables(found: Sequence[LayersPublic], device: str | None) -> Sequence[Mapping[str, Any]]:
    """Return the networks with their rows; the bars are shares of the longest time on the device."""
    return [{"strategy": each.strategy, "rows": _rows(each.items, device)} for each in found]


def _rows(items: Sequence[LayerPublic], device: str | None) -> Sequence[Mapping[str, Any]]:
    times_ms = [each.latency_ms.get(device or "", ()) for each in items]
    longest_ms = max((time_ms for pair in times_ms for time_ms in pair), default=0.0)
    bars = [[max(time_ms / longest_ms, 0.0) if longest_ms > 0 else 0.0 for time_ms in pair] for pair in times_ms]
    return [{"layer": each, "bars": own} for each, own in zip(items, bars, strict=True)]

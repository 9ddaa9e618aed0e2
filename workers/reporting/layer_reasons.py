"""Reasons: why a layer has its width, in plain words with its times and its cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.metric import Metric
from search.space import Value
from workers.reporting.layer_cut import Curves, LayerCut
from workers.reporting.node_times import NodeTimes

REST = "the cost of a call, and what the layers' times do not explain"
ALIKE = 1e-3
"""Share of a time below which a difference is not worth a word; timings are much coarser."""
_CHANGES = {"width": "{} -> {}", "bits": "{} -> {} bits", "rank": "rank {} -> {}", "density": "density {} -> {}"}


def reason(cut: LayerCut, node: str | None, times: Sequence[NodeTimes], curves: Curves, metric: Metric) -> str:
    """Return the reason for a layer's width: the time that it saves and the score that it costs alone, or why it was
    kept whole.

    Args:
        node: the layer's node, or None for the whole network.
    """
    if cut.turned:
        return _turned(cut, node, times, curves, metric)
    if cut.knobs:
        return _kept(cut, times, curves, metric)
    if cut.frozen:
        return f"kept whole: {cut.frozen}"
    return REST if node is None else "no setting of its own"


def _turned(cut: LayerCut, node: str | None, times: Sequence[NodeTimes], curves: Curves, metric: Metric) -> str:
    pairs = [] if node is None else [(each, each.of(node)) for each in times]
    told = [_saving(*pair) + _on(each, times) for each, pair in pairs if any(pair)]
    cost = cut.cost(cut.values, curves)
    told += [] if cost is None else [f"alone it {_costs(cost, metric)}"]
    change = _CHANGES.get(cut.role or "", "{} -> {}").format(_short(cut.before), _short(cut.after))
    change += " in every layer" if node is None else ""
    return ": ".join([change, "; ".join(told)] if told else [change])


def _kept(cut: LayerCut, times: Sequence[NodeTimes], curves: Curves, metric: Metric) -> str:
    least, further = _short(cut.least), cut.further
    said = f"kept {'at ' + _short(cut.before) if isinstance(cut.before, str) else 'whole'}"
    turned = least if isinstance(cut.before, str) else f"cutting it to {least}"
    saved = [f"{_amount(each.saved_ms(further), each.after_ms)}{_on(each, times)}" for each in times]
    cost = cut.cost(further, curves)
    told = [f"{turned} saves {' and '.join(saved)}"] if saved else []
    told += (
        [] if cost is None else [f"alone it {_costs(cost, metric)}" if saved else f"{turned} {_costs(cost, metric)}"]
    )
    return ": ".join([said, "; ".join(told)] if told else [said])


def _saving(before_ms: float, after_ms: float) -> str:
    saved_ms = before_ms - after_ms
    if abs(saved_ms) < ALIKE * before_ms:
        return f"takes {_ms(after_ms)} as before"
    if saved_ms < 0:
        return f"takes {_ms(after_ms)} instead of {_ms(before_ms)}"
    return f"saves {_ms(saved_ms)} of {_ms(before_ms)}"


def _amount(saved_ms: float, of_ms: float) -> str:
    return _ms(saved_ms) if saved_ms > ALIKE * of_ms else "no time"


def _ms(time_ms: float) -> str:
    """Format milliseconds with three decimals, or with as many as two significant digits need."""
    digits = 3 if time_ms >= 0.01 or time_ms <= 0 else 1 - math.floor(math.log10(time_ms))
    return f"{time_ms:.{digits}f} ms"


def _on(each: NodeTimes, times: Sequence[NodeTimes]) -> str:
    return f" on {each.device_name}" if len(times) > 1 else ""


def _costs(cost: float, metric: Metric) -> str:
    points = f"{abs(100 * cost):.1f} points" if metric.unit == "%" else metric.told(abs(cost))
    return f"{'gains' if cost < 0 else 'costs'} {points}"


def _short(value: Value | None) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)

"""Plots the score against latency as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from search.metric import Metric

WIDTH, HEIGHT, MARGIN = 720, 360, 56
_COLOURS = {
    "candidate": "#8a94a6",
    "original": "#1d4ed8",
    "control": "#7c3aed",
    "best": "#16803c",
    "nearest": "#b45309",
}


@dataclass(frozen=True)
class Dot:
    """One network in the plot: its milliseconds, its score from 0 to 1, its kind, and its title."""

    latency_ms: float
    score: float
    kind: str
    title: str


def plot(dots: Sequence[Dot], limit_ms: float | None, metric: Metric) -> str:
    """Return an SVG element, or an empty string if there is nothing to show."""
    if not dots:
        return ""
    across = _Axis([dot.latency_ms for dot in dots] + ([limit_ms] if limit_ms else []), MARGIN, WIDTH - 16)
    up = _Axis([dot.score for dot in dots], HEIGHT - MARGIN, 16)
    parts = [_grid(across, up, metric.heading)]
    if limit_ms is not None:
        x = across.at(limit_ms)
        parts.append(
            f"<line x1='{x:.1f}' x2='{x:.1f}' y1='16' y2='{HEIGHT - MARGIN}' stroke='#b42318' stroke-dasharray='5 4'/>"
        )
        parts.append(f"<text x='{x + 4:.1f}' y='28' fill='#b42318'>limit {limit_ms:.3f} ms</text>")
    parts += [_dot(dot, across, up, metric) for dot in dots]
    legend = [kind for kind in _COLOURS if any(dot.kind == kind for dot in dots)]
    for i, kind in enumerate(legend):
        x = MARGIN + 110 * i
        parts.append(f"<circle cx='{x}' cy='{HEIGHT - 10}' r='4' fill='{_COLOURS[kind]}'/>")
        parts.append(f"<text x='{x + 9}' y='{HEIGHT - 6}' fill='currentColor'>{kind}</text>")
    style = "font:12px system-ui,sans-serif"
    label = escape(f"{metric.heading.capitalize()} against latency")
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{label}' style='{style}'>{''.join(parts)}</svg>"


class _Axis:
    """Maps numbers to pixels, with a little room at both ends."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        self.low, self.high = low - room, high + room
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        return self._start + (value - self.low) / (self.high - self.low) * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Return four to nine round numbers."""
        span = self.high - self.low
        step = 10.0 ** np.floor(np.log10(span / 4))
        step *= next(factor for factor in (1, 2, 2.5, 5, 10) if span / (step * factor) <= 9)
        return [float(t) for t in np.arange(np.ceil(self.low / step) * step, self.high, step)]


def _grid(across: _Axis, up: _Axis, heading: str) -> str:
    lines = []
    for tick in across.ticks():
        x = across.at(tick)
        lines.append(
            f"<text x='{x:.1f}' y='{HEIGHT - MARGIN + 16}' text-anchor='middle' fill='currentColor'>{tick:g}</text>"
        )
    for tick in up.ticks():
        y = up.at(tick)
        lines.append(f"<line x1='{MARGIN}' x2='{WIDTH - 16}' y1='{y:.1f}' y2='{y:.1f}' stroke='#8884'/>")
        lines.append(f"<text x='{MARGIN - 6}' y='{y + 4:.1f}' text-anchor='end' fill='currentColor'>{tick:.4g}</text>")
    lines.append(
        f"<text x='{WIDTH - 16}' y='{HEIGHT - MARGIN + 30}' text-anchor='end' fill='currentColor'>latency, ms</text>"
    )
    lines.append(f"<text x='4' y='12' fill='currentColor'>{escape(heading)}</text>")
    return "".join(lines)


def _dot(dot: Dot, across: _Axis, up: _Axis, metric: Metric) -> str:
    colour = _COLOURS[dot.kind]
    radius = 3 if dot.kind == "candidate" else 6
    title = escape(f"{dot.title}: {dot.latency_ms:.3f} ms, {metric.told(dot.score)}")
    x, y = across.at(dot.latency_ms), up.at(dot.score)
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius}' fill='{colour}'><title>{title}</title></circle>"

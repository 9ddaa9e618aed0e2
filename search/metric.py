"""Metric: a named number, with everything that limits, forms, fronts, reports and tables need to know about it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Goal: TypeAlias = Literal["min", "max"]


@dataclass(frozen=True)
class Metric:
    """A row of the table of metrics.

    Attributes:
        name: the metric's key everywhere; it ends in the unit if that is bytes or ms.
        unit: the unit of `value * factor` when shown; `format` is the format spec.
        goal: the direction that is better.
        label: the metric's display name.
        per_device: True if each target has its own value, with the device in the key; limits on the metric then belong
            to the target.
        highest: the highest possible value.
        decides: True if the metric may be an objective and have limits; False if it is only read once, at the end.
        order: position in tables.
        counter: "module:constant" of the `compress.counting.count.Count` that counts the metric on a network, or "".
        part_of: the counted metric of which this metric is a part; tables show the part only if it is clearly less than
            the whole.
        axis_for: the methods whose jobs without a target show this metric instead of latency on the front; () means any
            job, None means no job. If several rows qualify, the last one in the table counts.
        lowered_by: methods that can lower the metric, in addition to methods that declare it themselves (`lowers`).
        scored: True if the metric is a task's mean score over samples. It is judged after training, and a second row
            holds the score of the test part.
        breaks_ties: True if, of networks with equal objective, score and latency, the one with the lower value wins.
    """

    name: str
    unit: str
    goal: Goal
    label: str
    format: str
    factor: float = 1.0
    per_device: bool = False
    highest: float = math.inf
    decides: bool = True
    order: int = 100
    counter: str = ""
    part_of: str = ""
    axis_for: tuple[str, ...] | None = None
    lowered_by: tuple[str, ...] = ()
    breaks_ties: bool = False
    scored: bool = False

    @property
    def on_test(self) -> Metric:
        """The metric for the test part, which is read once, at the end."""
        label = f"{self.label.removesuffix(' (validation)')} (test)"
        return replace(self, name=f"test_{self.name}", label=label, decides=False, order=self.order + 10)

    @property
    def stem(self) -> str:
        """The name without its unit, because limits on ratios have no unit (`max_latency_ratio`)."""
        return re.sub(r"_(ms|bytes)$", "", self.name)

    @property
    def heading(self) -> str:
        """The name in the form of a heading for a narrow column."""
        return self.name.replace("_", " ")

    def show(self, value: float) -> str:
        """Format `value` for display, with its unit."""
        return f"{value * self.factor:z{self.format}} {self.unit}".rstrip()

    def told(self, value: float) -> str:
        """Format `value` as `show` does, but without the space before a per cent sign, for use in a sentence."""
        return self.show(value).replace(" %", "%")

    def lost(self, value: float) -> str:
        """Format a difference with its sign, for use in a sentence; a positive number is a loss."""
        return f"{value * self.factor:+z{self.format}} {self.unit}".replace(" %", "%").rstrip()

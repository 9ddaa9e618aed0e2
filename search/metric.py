"""Metric: a named number, and everything that a form, a front, a report or a table has to know of it."""

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
        name: its key everywhere; it ends in its unit if it has one of bytes or ms.
        unit: what `value * factor` is shown in; `format` is the format spec.
        goal: which direction is better.
        label: its name for people.
        per_device: there is one for each target, with the device in the key; its limits belong to the target.
        highest: no value can be above it.
        decides: it may be an objective and a limit; False for what is read once, at the end.
        order: place in tables.
        counter: "module:constant" of the `compress.counting.count.Count` that counts it on a network, "" for none.
        part_of: the counted metric that it is a part of: tables show it only if it is clearly less than that.
        axis_for: it takes the place of latency on a job's front if there is no target: () for any job, else only for
            those with one of these methods; None: never. The last such row in the table counts.
        lowered_by: methods that can make it less, besides those that say so themselves (`lowers`).
        scored: it says how good a network is at what it is for, a mean over samples; it is judged after training, and
            there is a row beside it for the test part.
        breaks_ties: of two networks that are equal in the objective, accuracy and latency, less of this is better.
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
        """A scored metric read once, at the end, on the test part."""
        label = f"{self.label.removesuffix(' (validation)')} (test)"
        return replace(self, name=f"test_{self.name}", label=label, decides=False, order=self.order + 10)

    @property
    def stem(self) -> str:
        """The name without its unit: limits on ratios have no unit (`max_latency_ratio`)."""
        return re.sub(r"_(ms|bytes)$", "", self.name)

    @property
    def heading(self) -> str:
        """The name as the heading of a narrow column."""
        return self.name.replace("_", " ")

    def show(self, value: float) -> str:
        """`value` for people, with its unit."""
        return f"{value * self.factor:z{self.format}} {self.unit}".rstrip()

    def told(self, value: float) -> str:
        """As `show`, within a sentence: a per cent sign stands at its number."""
        return self.show(value).replace(" %", "%")

    def lost(self, value: float) -> str:
        """A difference within a sentence, with its sign: positive is lost."""
        return f"{value * self.factor:+z{self.format}} {self.unit}".replace(" %", "%").rstrip()

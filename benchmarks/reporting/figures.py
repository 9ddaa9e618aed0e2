"""Published figures with one value per run and a goal, and tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Row = Mapping[str, Any]
Rows = Sequence[Row]
Shown = Callable[[float], str]
NONE = "No rows yet."


@dataclass(frozen=True)
class Figure:
    """A published figure. `values` has one value per run. A goal bounds every value or, if `of_median`, the median."""

    name: str
    values: Sequence[float]
    shown: Shown
    most: float | None = None
    least: float | None = None
    of_median: bool = False

    @property
    def goal(self) -> str:
        """The goal in words; a dash if there is none."""
        bounds = [(word, bound) for word, bound in (("at most", self.most), ("at least", self.least))]
        found = [f"{word} {self.shown(bound)}" for word, bound in bounds if bound is not None]
        return "".join(found) + (", median" if found and self.of_median and len(self.values) > 1 else "") or "-"

    @property
    def outcome(self) -> str:
        """The outcome in words: the goal is met, missed, or met in some of the runs."""
        if self.most is None and self.least is None:
            return "-"
        judged = [median(self.values)] if self.of_median else list(self.values)
        missed = sum(not self._reaches(value) for value in judged)
        if len(judged) == 1 or not missed:
            return "**missed**" if missed else "met"
        return f"met in {len(judged) - missed} of {len(judged)}, **missed in {missed}**"

    def _reaches(self, value: float) -> bool:
        return (self.most is None or value <= self.most) and (self.least is None or value >= self.least)

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of the figure's table row."""
        low, high = self.shown(min(self.values)), self.shown(max(self.values))
        spread = "-" if len(self.values) == 1 else low if low == high else f"{low} to {high}"
        return self.name, str(len(self.values)), self.shown(median(self.values)), spread, self.goal, self.outcome


def figures(found: Iterable[Figure], of: str = "runs") -> str:
    """Return a table of figures."""
    head = ("figure", of, "median", "lowest to highest", "goal", "outcome")
    return table(head, [each.cells for each in found])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def taken(rows: Rows) -> str:
    """Return a sentence that says when the rows were made and how busy the machine was."""
    days = sorted({str(row["at"])[:10] for row in rows if "at" in row})
    undated = sum("at" not in row for row in rows)
    loads = [float(each) for row in rows if "load" in row for each in _several(row["load"])]
    when = f"Rows of {_span(days)}" if days else "The rows have no date"
    when += f", {undated} have no date" if days and undated else ""
    busy = f"load of the machine {_span(sorted(loads))}" if loads else "the load of the machine is not in the rows"
    return f"{when}; {busy}."


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _span(ordered: Sequence[object]) -> str:
    return str(ordered[0]) if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def percent(value: float) -> str:
    """Format a share."""
    return f"{100 * value:.2f} %"


def points(value: float) -> str:
    """Format a difference of two shares."""
    return f"{100 * value:+.2f} points"


def unit(name: str, digits: int) -> Shown:
    """Return a format with this unit and number of decimals."""
    return lambda value: f"{value:,.{digits}f} {name}".rstrip()


def times(value: float) -> str:
    """Format a factor."""
    return f"{value:.1f}x"

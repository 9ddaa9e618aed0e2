"""Figures on the race against its baselines, and on how well cheap scores rank candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean

import proxy
import resnet20
import search_race
from racing.compared import Gap, gap
from racing.entrants import FIXED, RACE, UNIFORM, Table, absent, tables
from racing.final_training import unpacked
from racing.torch_pruning import ENTRANT as PEER

from reporting.figures import NONE, Figure, Row, Rows, figures, percent, points, table, taken, unit

UNSEEN = resnet20.SPLITS["validation"].stop
HEAD = ("entrant", "seeds", "test", "unseen test", "validation", "latency", "predicted off by", "search", "evaluations")


@dataclass(frozen=True)
class Results:
    """The newest rows of a table: kind -> entrant -> seed -> row."""

    table: Table
    rows: Rows

    @cached_property
    def by(self) -> Mapping[str, Mapping[str, Mapping[int, Row]]]:
        """The rows by kind, entrant and seed."""
        found: dict[str, dict[str, dict[int, Row]]] = {}
        for row in self.rows:
            if row["table"] == self.table.contest.table:
                found.setdefault(row["kind"], {}).setdefault(row["entrant"], {})[row["seed"]] = row
        return found

    def of(self, kind: str, entrant: str) -> Mapping[int, Row]:
        """Return the rows of an entrant by seed."""
        return self.by.get(kind, {}).get(entrant, {})

    @property
    def tested(self) -> list[str]:
        """The entrants with a test row, best first."""
        return sorted(self.by.get("test", {}), key=lambda name: -mean(self.accuracies(name)))

    def accuracies(self, entrant: str) -> list[float]:
        """Return an entrant's test accuracies, by seed."""
        return [row["accuracy"] for _, row in sorted(self.of("test", entrant).items())]

    def shares(self, entrant: str) -> list[float]:
        """Return an entrant's measured shares of the original's latency, by seed."""
        return [row["share"] for _, row in sorted(self.of("timed", entrant).items())]

    def gap(self, other: str) -> Gap | None:
        """Return how far the race is ahead of another entrant."""
        return gap(self.of("test", RACE), self.of("test", other))


def race(rows: Rows) -> Iterator[str]:
    """Report each table: its entrants, the paired differences, and the goals."""
    yield taken(rows) if rows else NONE
    for each in tables().values():
        results = Results(each, rows)
        if results.tested:
            yield from _table(results)


def _table(results: Results) -> Iterator[str]:
    contest = results.table.contest
    yield f"**Table {contest.table}: {results.table.title}.** {_left_out(results)}"
    yield table(HEAD, [_entrant(results, name) for name in results.tested])
    if not_within := [name for name in results.tested if name not in FIXED and _over(results, name)]:
        yield f"**Over the limit as measured in the last session: {', '.join(not_within)}.**"
    rivals = [name for name in results.tested if name != RACE and results.gap(name)]
    if rivals:
        head = ("the race against", "seeds", "ahead by", "over seeds", "over images", "outcome")
        yield table(head, [_rival(results, name) for name in rivals])
    if goals := list(_goals(results)):
        yield figures(goals, "seeds")


def _left_out(results: Results) -> str:
    wanted = [name for name in results.table.entrants if name not in absent(results.table)]
    missing = [name for name in wanted if name not in results.tested]
    members = sorted({each for row in results.of("search", RACE).values() for each in row["strategies"]})
    said = f"In the race: {', '.join(members)}." if members else ""
    return f"{said} Without a result: {', '.join(missing)}." if missing else said


def _over(results: Results, name: str) -> bool:
    return any(share > results.table.contest.ratio for share in results.shares(name))


def _entrant(results: Results, name: str) -> tuple[str, ...]:
    tests, found = results.of("test", name), results.of("search", name)
    winners = results.of("winner", name)
    unseen = [float(unpacked(row["right"], row["images"])[UNSEEN:].mean()) for row in tests.values()]
    return (
        name,
        ", ".join(map(str, sorted(tests))),
        _mean(results.accuracies(name)),
        _mean(unseen),
        _mean([row["validation"] for row in winners.values()]),
        _range(results.shares(name)),
        _range(_errors(results, name)),
        f"{mean(row['seconds'] for row in found.values()):,.0f} s" if found else "-",
        _counts(list(found.values())),
    )


def _errors(results: Results, name: str) -> list[float]:
    """Return by how much the predicted latency of each winner was off, for entrants that predict."""
    found = []
    for seed, row in sorted(results.of("search", name).items()):
        won, timed = results.of("winner", name).get(seed), results.of("timed", name).get(seed)
        if won and timed and "predicted" in row["finalists"][won["place"]]:
            found.append(row["finalists"][won["place"]]["predicted"] / timed["share"] - 1.0)
    return found


def _counts(rows: Rows) -> str:
    kinds = sorted({kind for row in rows for kind in row["evaluations"]})
    return ", ".join(f"{mean(row['evaluations'].get(kind, 0) for row in rows):g} {kind}" for kind in kinds) or "-"


def _mean(values: Sequence[float]) -> str:
    return percent(mean(values)) if values else "-"


def _range(values: Sequence[float]) -> str:
    low, high = (percent(each) for each in (min(values), max(values))) if values else ("-", "-")
    return low if low == high else f"{low} to {high}"


def _rival(results: Results, name: str) -> tuple[str, ...]:
    found = results.gap(name)
    assert found is not None
    shown = [_interval(found.over_seeds), _interval(found.over_images)]
    outcome = "tie" if found.tie else "ahead" if found.ahead > 0 else "**behind**"
    return name, str(found.seeds), points(found.ahead), *shown, outcome


def _interval(interval: tuple[float, float] | None) -> str:
    return f"[{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]" if interval else "-"


def _goals(results: Results) -> Iterator[Figure]:
    """The goals of table A, and that of table 45: the race is never worse than int8 alone."""
    name = results.table.contest.table
    if name == "A" and results.accuracies(RACE):
        yield Figure("test accuracy of the race's winner", results.accuracies(RACE), percent, least=search_race.GOAL)
        for other in (PEER, UNIFORM):
            if found := results.gap(other):
                least = search_race.GOAL_AHEAD
                yield Figure(f"the race ahead of {other}", [found.ahead], points, least=least)
                lowest = min(low for low, _ in found.intervals)
                yield Figure(f"the race ahead of {other}, low end of the intervals", [lowest], points, least=0.0)
    both = sorted(results.of("test", RACE).keys() & results.of("test", "int8").keys())
    if name == "45" and both:
        own, other = results.of("test", RACE), results.of("test", "int8")
        ahead = [own[seed]["accuracy"] - other[seed]["accuracy"] for seed in both]
        yield Figure("the race ahead of int8 alone", ahead, points, least=0.0)


def ranks(rows: Rows) -> Iterator[str]:
    """Report the rank correlation of each cheap fidelity with trained accuracy."""
    if not any(row["fidelity"] == proxy.TRAINED for row in rows):
        yield NONE
        return
    yield taken(rows)
    head = ("fidelity", "candidates", "Kendall's tau", "95 % interval", "median time", "goal", "outcome")
    yield table(head, [_rank(rows, fidelity) for fidelity in proxy.FIDELITIES])
    accuracies = [row["score"] for row in rows if row["fidelity"] == proxy.TRAINED]
    yield figures([Figure("trained accuracy on unseen test images", accuracies, percent)], "candidates")


def _rank(rows: Rows, fidelity: str) -> tuple[str, ...]:
    found = proxy.correlation(rows, fidelity)
    least = proxy.MIN_TAU if fidelity == "F2" else None
    figure = Figure(fidelity, [found.tau], unit("", 2), least=least)
    seconds = sorted(row["seconds"] for row in rows if row["fidelity"] == fidelity)
    interval = f"[{found.low:.2f}, {found.high:.2f}]"
    middle = f"{seconds[len(seconds) // 2]:.3g} s"
    return fidelity, str(found.count), f"{found.tau:.2f}", interval, middle, figure.goal, figure.outcome

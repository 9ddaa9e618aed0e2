"""The tables of the race, and who enters each with which seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from racing.arena import Contest
from racing.torch_pruning import ENTRANT as PEER
from search import strategies

PRUNE, INT8 = "filter_prune", "int8_ptq"
RACERS = ("bayesian", "ddpg", "genetic", "hakd", "greedy", "tpe")
SINGLES = (*RACERS, "nsga2", "random")
RACE, UNIFORM = "race", "uniform"
SEEDS = (0, 1, 2)
FIXED: Mapping[str, Mapping[str, Any]] = {
    "unpruned": {"untouched": True, "methods": [], "values": {}},
    "int8": {"methods": [INT8], "values": {INT8: "int8"}, "epochs": 0},
    "int8_trained": {"methods": [INT8], "values": {INT8: "int8"}},
}
"""Entrants that need no search, as finalists."""


@dataclass(frozen=True)
class Table:
    """A contest and its entrants: name -> seeds."""

    contest: Contest
    entrants: Mapping[str, Sequence[int]]
    title: str


def racing(name: str) -> tuple[str, ...]:
    """Return the strategies of an entrant that are installed; the peer and fixed entrants have none."""
    if name in (*FIXED, PEER):
        return ()
    return tuple(each for each in (RACERS if name == RACE else (name,)) if each in strategies.names())


def absent(table: Table) -> list[str]:
    """Return the entrants of a table, and the members of its race, that are not installed."""
    members = (*table.entrants, *(RACERS if RACE in table.entrants else ()))
    known = {RACE, PEER, *FIXED, *strategies.names()}
    return sorted({each for each in members if each not in known})


def tables(evaluations: int = 100) -> dict[str, Table]:
    """Return the tables of ResNet-20."""
    both, one = (PRUNE, INT8), (0,)
    fixed = dict.fromkeys(FIXED, one)
    main = dict.fromkeys((RACE, UNIFORM, PEER), SEEDS)
    return {
        "A": Table(
            Contest("A", both, 0.35, evaluations),
            {**main, **dict.fromkeys(SINGLES, one), **fixed},
            "prune + int8 at 35 % of the original's latency",
        ),
        "B": Table(
            Contest("B", (PRUNE,), 0.65, evaluations),
            {**dict.fromkeys(main, one), **fixed},
            "fp32 alone at 65 %, with int8 beside it",
        ),
        "C": Table(Contest("C", both, 0.27, evaluations), dict.fromkeys(main, one), "prune + int8 at 27 %"),
        "45": Table(
            Contest("45", both, 0.45, evaluations), {RACE: SEEDS, **fixed}, "prune + int8 at 45 %, against int8 alone"
        ),
    }


def quick_tables() -> dict[str, Table]:
    """Return one small table for the digits."""
    names = (RACE, UNIFORM, PEER, "unpruned", "int8")
    contest = Contest("A", (PRUNE, INT8), 0.85, 4)
    return {"A": Table(contest, dict.fromkeys(names, (0,)), "prune + int8 at 85 % of the original's latency")}

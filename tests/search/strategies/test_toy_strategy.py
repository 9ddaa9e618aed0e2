"""A strategy of another distribution is one file: it is found, and reads all that a strategy may know of a problem.

It ranks drawn points by F1, takes the shares of latency from the terms, and asks for what no evaluation has told.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

from search import strategies
from search.candidate import Candidate
from search.evaluation import Evaluation
from search.knowledge import Knowledge
from search.problem import Problem
from search.sampling.draws import drawn
from search.space import Bounds, Doc, Float, Space, Values
from search.strategy import StrategyFamily
from search.synthetic.replay import make_replay, run
from search.testing import StrategyContract

FACTS = ("index", "channels", "input_channels", "kernel", "stride", "height", "width", "share_of_macs")


@dataclass(frozen=True)
class Settings:
    """How many points are looked at."""

    draws: Annotated[int, Doc("points drawn for one candidate"), Bounds(1, 100_000)] = 2000


class Toy:
    """Of drawn points under the limits, the one of the least layer losses."""

    def __init__(self, problem: Problem, settings: Settings, seed: int) -> None:
        self._problem = problem
        self._settings = settings
        self._seed = seed
        self._known = Knowledge(problem, "toy", seed)
        self.states = np.array([self._state(name) for name in problem.layer_losses])
        self.shares = {metric: shares(problem, metric) for metric in problem.terms}

    def ask(self, count: int) -> list[Candidate]:
        found: list[Candidate] = []
        while len(found) < count and (values := self._best()) is not None:
            found.append(self._known.candidate(values))
        return found

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        self._known.note(evaluations, pending)

    def _best(self) -> Values | None:
        rng = np.random.default_rng([self._seed, self._known.asked])
        points = [self._problem.space.sample(rng) for _ in range(self._settings.draws)]
        batch = [*points, *self._corners()]
        feasible = self._problem.violations(batch) == 0.0
        order = np.argsort(np.where(feasible, self._problem.proxy(batch), np.inf), kind="stable")
        best = (batch[i] for i in order if feasible[i] and self._known.fresh(batch[i]))
        return next(best, None) or drawn(self._problem, rng, self._known.fresh)

    def _corners(self) -> Iterator[Values]:
        """The least network, so that a tight limit is met if any point meets it."""
        yield {knob.name: knob.least for knob in self._problem.space.knobs}

    def _state(self, name: str) -> list[float]:
        """What AMC's agent sees of a layer, and what the statistics say of it: how unequal its units are, and alike."""
        knob, statistics = self._problem.space[name], self._problem.statistics
        fisher, gram = statistics["fisher"][name], statistics["gram"][name]
        return [
            *(knob.features[fact] for fact in FACTS),
            float(fisher.std() / fisher.mean()),
            float(np.trace(gram) / gram.sum()),
        ]


def shares(problem: Problem, metric: str) -> dict[str, float]:
    """Knob -> the share of the whole network's latency that this knob alone can free."""
    whole = problem.space.levels(problem.space.whole)
    columns = range(len(whole))
    least = np.array([np.where(np.arange(len(whole)) == i, 0, whole) for i in columns])
    latency_ms = problem.terms[metric].latency_ms(np.vstack([whole, least]))
    names = [knob.name for knob in problem.space.levelled]
    return dict(zip(names, (1.0 - latency_ms[1:] / latency_ms[0]).tolist(), strict=True))


STRATEGY = StrategyFamily("toy", "Draws points and takes those of the least layer losses.", "none", Settings, Toy, True)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The distribution on the path of this process; what child processes need for theirs."""
    info = tmp_path / "toy_strategy-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-strategy\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[netlathe.strategies]\ntoy = {Path(__file__).stem}:STRATEGY\n")
    path = [str(tmp_path), str(Path(__file__).parent)]
    for entry in path:
        monkeypatch.syspath_prepend(entry)
    return os.pathsep.join([*path, str(Path(__file__).parents[3])])


class TestToy(StrategyContract):
    family_at = f"{__name__}:STRATEGY"
    overrides = {"draws": 64}  # noqa: RUF012 - as the contract has it


def test_the_catalogue_finds_it_and_its_settings(installed: str) -> None:
    assert "toy" in strategies.names()
    assert strategies.load("toy").name == "toy"
    program = (
        "from service.jobs import catalogue\n"
        "print(catalogue.check_named('strategies', [('toy', {'draws': 7})], catalogue.strategies()))"
    )
    seen = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": installed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.strip() == "[{'name': 'toy', 'settings': {'draws': 7}}]"


def test_it_reads_facts_statistics_and_terms_of_every_width(installed: str) -> None:
    replay = make_replay(4, knobs=6, evaluations=12)
    family = strategies.load("toy")
    strategy = family.make(replay.problem, family.settings(), 0)
    states, shared = strategy.states, strategy.shares  # type: ignore[attr-defined]  # those of the toy
    assert states.shape == (6, len(FACTS) + 2)
    assert np.isfinite(states).all()
    assert len(np.unique(states, axis=0)) == 6
    assert shared.keys() == replay.problem.terms.keys()
    for of_knob in shared.values():
        assert all(0 < of_knob[knob.name] < 1 for knob in replay.problem.space.levelled if knob.role == "width")


def test_f1_leads_it_to_better_candidates_than_chance(installed: str) -> None:
    family, random = strategies.load("toy"), strategies.load("random")
    ours, theirs = [], []
    for seed in range(10):
        replay = make_replay(seed, knobs=6, levels=6, precision=False, evaluations=1)
        for made, found in ((family, ours), (random, theirs)):
            (first,) = run(made.make(replay.problem, made.settings(), seed), replay)
            found.append(replay.accuracy(first.candidate.values))
    assert np.mean(ours) > np.mean(theirs) + 0.02


def test_terms_are_there_beside_a_density() -> None:
    """A share of single weights changes no kernel: the strategy gets the arrays of all other knobs."""
    replay = make_replay(4, knobs=4)
    problem = replay.problem
    wider = Problem(
        space=Space((*problem.space.knobs, Float("weight_prune", 0.005, 1.0))),
        objectives=problem.objectives,
        constraints=problem.constraints,
        estimate=lambda batch: problem.estimate([{k: v for k, v in x.items() if k != "weight_prune"} for x in batch]),
        terms=problem.terms,
        statistics=problem.statistics,
    )
    toy = Toy(wider, Settings(draws=50), 0)
    assert toy.shares == Toy(problem, Settings(draws=50), 0).shares
    (asked,) = toy.ask(1)
    wider.space.check(asked.values)
    assert 0.005 <= float(asked.values["weight_prune"]) <= 1.0  # type: ignore[arg-type]  # a Float's

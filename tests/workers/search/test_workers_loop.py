"""The loop: what is stored when, who is told what, and that a restart changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from search import strategies
from search.candidate import Candidate
from search.errors import Infeasible
from search.evaluation import Evaluation, Status
from search.problem import Problem
from search.ranking.pareto import front
from search.space.settings import check_settings
from search.synthetic.replay import Replay, make_replay
from workers.errors import JobFailed
from workers.pools.in_process_pool import InProcessPool
from workers.pools.pool import Evaluator
from workers.ports import Recorded, Signal
from workers.progress import Asked, Evaluated, Logged, Message, Phased, Warned
from workers.search.loop import Rules, Searched, loop
from workers.search.race import MakeStrategy


def maker(name: str, seed: int = 0) -> MakeStrategy:
    family = strategies.load(name)
    return lambda problem: family.make(problem, check_settings(family.settings, {}), seed)


@dataclass
class Diary:
    """Takes what a loop emits; dies at message number `dies_at`, before it is stored."""

    messages: list[Message] = field(default_factory=list)
    dies_at: int | None = None
    takeovers: dict[str, int] = field(default_factory=dict)

    def emit(self, *messages: Message) -> None:
        if self.dies_at is not None and len(self.messages) + len(messages) > self.dies_at:
            raise KeyboardInterrupt("killed here")
        self.messages += messages

    def recorded(self) -> Recorded:
        spent = [m.spent_s for m in self.messages if isinstance(m, Phased)]
        return Recorded(
            asks=tuple(m for m in self.messages if isinstance(m, Asked)),
            takeovers=self.takeovers,
            evaluations=tuple(m for m in self.messages if isinstance(m, Evaluated)),
            spent_s=spent[-1] if spent else 0.0,
        )


@dataclass
class Bench:
    """A replay behind an in-process pool that counts what it really evaluates."""

    replay: Replay
    diary: Diary = field(default_factory=Diary)
    evaluated: list[str] = field(default_factory=list)
    stored_first: bool = True

    def __call__(self) -> Evaluator:
        return self.evaluate

    def evaluate(self, candidate: Candidate) -> Evaluation:
        stored = {m.candidate.id for m in self.diary.messages if isinstance(m, Asked)}
        self.stored_first &= candidate.id in stored
        self.evaluated.append(candidate.id)
        return self.replay.evaluate(candidate)

    def run(
        self,
        makers: dict[str, MakeStrategy],
        evaluations: int = 20,
        signal: Callable[[], Signal] = lambda: "continue",
        **rules: object,
    ) -> Searched:
        with InProcessPool(self) as pool:
            return loop(
                self.replay.problem,
                makers,
                pool,
                Rules(evaluations, **rules),  # type: ignore[arg-type]  # keyword by keyword, as the tests give them
                self.diary.emit,
                self.diary.recorded(),
                signal,
            )


@pytest.fixture
def bench() -> Bench:
    return Bench(make_replay(0, knobs=4, levels=5, evaluations=20))


def front_of(searched: Searched) -> list[dict[str, object]]:
    done = [e.evaluation for e in searched.evaluated if e.feasible]
    points = np.array([[e.metrics["accuracy"], e.metrics["latency_ms@small-cpu"]] for e in done])
    return [dict(done[i].candidate.values) for i in front(points, ("max", "min"))]


def test_the_budget_is_spent_exactly_and_asks_are_stored_first(bench: Bench) -> None:
    searched = bench.run({"random": maker("random")})
    assert searched.end == "budget"
    assert len(bench.evaluated) == len(set(bench.evaluated)) == 20
    assert bench.stored_first
    last = [m for m in bench.diary.messages if isinstance(m, Phased)][-1]
    assert (last.phase, last.done, last.total) == ("search", 20, 20)


class Whole:
    """Random, asked for as full training runs."""

    def __init__(self, problem: Problem) -> None:
        self._inner = maker("random")(problem)

    def ask(self, count: int) -> list[Candidate]:
        return [replace(each, fidelity="F4") for each in self._inner.ask(count)]

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        self._inner.tell(evaluations, pending)


def test_progress_goes_on_within_a_whole_training(bench: Bench) -> None:
    shares = [0.0, 0.25, 0.25, 0.5, 0.1, 0.0]
    seen = 0.0

    class Slow(InProcessPool):
        """Its first training is on its way while there are shares; once it is begun anew."""

        def next(self, timeout_s: float) -> Evaluation | None:
            nonlocal seen
            if not shares:
                return super().next(timeout_s)
            seen = shares.pop(0)
            return None

    with Slow(bench) as pool:
        rules = Rules(2, reached=lambda candidate: seen)
        loop(bench.replay.problem, {"random": Whole}, pool, rules, bench.diary.emit)
    told = [m.done for m in bench.diary.messages if isinstance(m, Phased)]
    assert told == [0.25, 0.5, 1, 2]


@pytest.mark.parametrize("dies_at", [0, 1, 2, 3, 10, 11, 12, 25, 40, 58])
def test_a_restart_anywhere_gives_the_front_of_an_uninterrupted_run(dies_at: int) -> None:
    whole, broken = (Bench(make_replay(1, knobs=4, levels=5, evaluations=20)) for _ in range(2))
    expected = whole.run({"random": maker("random")})
    broken.diary.dies_at = dies_at
    with pytest.raises(KeyboardInterrupt):
        broken.run({"random": maker("random")})
    broken.diary.dies_at = None
    searched = broken.run({"random": maker("random")})
    assert front_of(searched) == front_of(expected)
    assert [e.evaluation.candidate for e in searched.evaluated] == [e.evaluation.candidate for e in expected.evaluated]
    asked = [ask.candidate.id for ask in broken.diary.recorded().asks]
    assert len(asked) == len(set(asked)) == 20
    # Only the one that was under way when the run died is evaluated again; nothing recorded is.
    assert len(broken.evaluated) <= 21


def test_a_candidate_that_was_open_when_two_runs_died_fails_and_the_search_goes_on(bench: Bench) -> None:
    bench.diary.dies_at = 1  # the first ask is stored, its evaluation is not
    with pytest.raises(KeyboardInterrupt):
        bench.run({"random": maker("random")})
    bench.diary.dies_at = None
    (culprit,) = [ask.candidate.id for ask in bench.diary.recorded().asks]
    bench.evaluated.clear()
    bench.diary.takeovers = {culprit: 2}
    searched = bench.run({"random": maker("random")})
    first = searched.evaluated[0].evaluation
    assert (first.candidate.id, first.status) == (culprit, Status.FAILED)
    assert "died 2 times" in first.reason
    assert culprit not in bench.evaluated
    assert (searched.end, len(searched.evaluated), len(bench.evaluated)) == ("budget", 20, 19)


@dataclass
class Scripted:
    """Asks for the given levels of the first knob, one by one, and remembers what it is told."""

    problem: Problem
    name: str
    levels: Sequence[int]
    told: list[str] = field(default_factory=list)
    breaks_at: int | None = None
    raises: Exception = field(default_factory=lambda: RuntimeError("out of ideas"))
    asked: int = 0

    def ask(self, count: int) -> list[Candidate]:
        if self.asked == self.breaks_at:
            raise self.raises
        if self.asked >= len(self.levels):
            return []
        chosen = [0] * len(self.problem.space.knobs)
        chosen[0] = self.levels[self.asked]
        self.asked += 1
        return [Candidate(f"{self.name}-{self.asked}", self.problem.space.values_of(chosen), origin=self.name)]

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        self.told += [evaluation.candidate.id for evaluation in evaluations]


def test_strategies_share_the_budget_and_are_told_everything(bench: Bench) -> None:
    made: list[Scripted] = []

    def make(name: str, levels: Sequence[int]) -> MakeStrategy:
        def of(problem: Problem) -> Scripted:
            made.append(Scripted(problem, name, levels))
            return made[-1]

        return of

    bench.run({"a": make("a", [0, 1, 2]), "b": make("b", [3, 4])}, evaluations=4)
    assert [ask.strategy for ask in bench.diary.recorded().asks] == ["a", "b", "a", "b"]
    assert made[0].told == made[1].told == ["a-1", "b-1", "a-2", "b-2"]


def test_equal_candidates_are_evaluated_once_and_cost_once(bench: Bench) -> None:
    searched = bench.run(
        {
            "a": lambda problem: Scripted(problem, "a", [0, 1, 1]),
            "b": lambda problem: Scripted(problem, "b", [1, 0, 2]),
        },
        evaluations=3,
    )
    assert sorted(bench.evaluated) == ["a-1", "b-1", "b-3"]
    cached = {e.evaluation.candidate.id for e in searched.evaluated if e.cached}
    assert cached == {"a-2", "b-2", "a-3"}
    by_id = {e.evaluation.candidate.id: e.evaluation.metrics for e in searched.evaluated}
    assert by_id["a-2"] == by_id["b-1"]


def test_a_strategy_that_only_repeats_itself_ends(bench: Bench) -> None:
    bench.replay = Replay(replace(bench.replay.problem, evaluations=2), bench.replay.network, 0.0)
    searched = bench.run({"a": lambda problem: Scripted(problem, "a", [0] * 10_000)}, evaluations=2)
    assert searched.end == "finished"
    assert bench.evaluated == ["a-1"]


class Candid(Scripted):
    """It has something to say from the start, and more once it has asked twice."""

    @property
    def notes(self) -> Sequence[str]:
        return ("A bound is not exact.", *(["A table is too wide."] if self.asked > 1 else []))


def test_notes_of_a_strategy_are_warnings_once(bench: Bench) -> None:
    def run() -> Searched:
        return bench.run({"a": lambda problem: Candid(problem, "a", [0, 1, 2, 3]), "random": maker("random")}, 6)

    searched = run()
    assert searched.notes == ("a: A bound is not exact.", "a: A table is too wide.")
    assert [m.text for m in bench.diary.messages if isinstance(m, Warned)] == list(searched.notes)
    assert run().notes[0] == searched.notes[0], "an ended search is not asked again"


def test_a_strategy_that_raises_leaves_and_the_others_go_on(bench: Bench) -> None:

    searched = bench.run(
        {"bad": lambda problem: Scripted(problem, "bad", [0, 1, 2], breaks_at=1), "random": maker("random")},
        evaluations=6,
    )
    assert searched.end == "budget"
    lines = [m for m in bench.diary.messages if isinstance(m, Logged)]
    assert [line.level for line in lines] == ["warning"]
    assert "bad failed and left" in lines[0].text
    assert "out of ideas" in lines[0].text
    assert sum(e.strategy == "random" for e in searched.evaluated) == 5


def test_the_job_fails_when_every_strategy_broke(bench: Bench) -> None:
    with pytest.raises(JobFailed, match="out of ideas") as failure:
        bench.run({"bad": lambda problem: Scripted(problem, "bad", [0], breaks_at=0)})
    assert (failure.value.code, failure.value.step) == ("strategies_failed", "search")


def test_a_strategy_that_finds_nothing_under_the_limits_ends_normally(bench: Bench) -> None:
    nearest = Infeasible({"k": 1}, {"latency_ms@small-cpu": 2.0}, 0.5)
    searched = bench.run(
        {"shy": lambda problem: Scripted(problem, "shy", [0], breaks_at=0, raises=nearest)}, evaluations=6
    )
    assert searched.end == "finished"
    assert any(isinstance(m, Logged) and "meets the limits" in m.text for m in bench.diary.messages)


def test_a_strategy_that_repeats_an_id_leaves(bench: Bench) -> None:
    class Stuck(Scripted):
        def ask(self, count: int) -> list[Candidate]:
            self.asked = 0
            return super().ask(count)

    with pytest.raises(JobFailed, match="twice"):
        bench.run({"stuck": lambda problem: Stuck(problem, "stuck", [0, 1])})


def test_a_failed_candidate_is_told_like_any_other_and_the_search_goes_on(bench: Bench) -> None:
    honest = bench.replay.evaluate

    def evaluate(candidate: Candidate) -> Evaluation:
        if candidate.id.endswith("3"):
            return Evaluation(candidate, Status.COMPLETED, {"accuracy": float("nan")})
        return honest(candidate)

    object.__setattr__(bench.replay, "evaluate", evaluate)
    searched = bench.run({"random": maker("random")}, evaluations=8)
    failed = [e for e in searched.evaluated if e.evaluation.status is Status.FAILED]
    assert [(e.evaluation.reason, e.feasible) for e in failed] == [("nan", False)]
    assert len(searched.evaluated) == 8


@contextmanager
def ticking() -> Iterator[Callable[[], float]]:
    now = iter(range(10_000))
    yield lambda: float(next(now))


def test_the_wall_clock_ends_the_search_and_counts_over_restarts(bench: Bench) -> None:
    with ticking() as clock_s:
        searched = bench.run({"random": maker("random")}, evaluations=1000, wall_s=30.0, clock_s=clock_s)
    assert searched.end == "wall"
    count = len(bench.evaluated)
    assert 0 < count < 30
    with ticking() as clock_s:
        again = bench.run({"random": maker("random")}, evaluations=1000, wall_s=40.0, clock_s=clock_s)
    assert again.end == "wall"
    assert again.spent_s >= 40
    assert len(bench.evaluated) - count < count


def test_a_search_whose_last_evaluation_takes_the_rest_of_the_time_ended_by_its_budget(bench: Bench) -> None:
    def clock_s() -> float:
        return 0.0 if len(bench.evaluated) < 5 else 100.0

    assert bench.run({"random": maker("random")}, evaluations=5, wall_s=30.0, clock_s=clock_s).end == "budget"


@pytest.mark.parametrize(("wanted", "end"), [("pause", "paused"), ("cancel", "cancelled")])
def test_the_user_can_stop_it(bench: Bench, wanted: Signal, end: str) -> None:
    def signal() -> Signal:
        return wanted if len(bench.evaluated) >= 5 else "continue"

    searched = bench.run({"random": maker("random")}, signal=signal)
    assert searched.end == end
    assert len(bench.evaluated) == 5
    assert bench.run({"random": maker("random")}).end == "budget"
    assert len(bench.evaluated) == 20


def test_a_newer_table_gives_fresh_strategies_and_new_estimates(bench: Bench) -> None:
    problem = bench.replay.problem
    slower = {metric: replace(terms, scale=2 * terms.scale) for metric, terms in problem.terms.items()}
    newer = replace(
        problem,
        terms=slower,
        estimate=lambda batch: {
            name: 2 * column if name in slower else column for name, column in problem.estimate(batch).items()
        },
    )
    made: list[Problem] = []

    def make(given: Problem) -> Scripted:
        made.append(given)
        return Scripted(given, f"run{len(made)}", [0, 1, 2, 3])

    def refresh() -> Problem | None:
        return newer if len(bench.evaluated) == 2 and len(made) == 1 else None

    searched = bench.run({"a": make}, evaluations=4, refresh=refresh, table_epochs=lambda: {"small-cpu": len(made)})
    assert made == [problem, newer]
    key = "latency_ms@small-cpu"
    for each in searched.evaluated:
        values = each.evaluation.candidate.values
        epoch = each.table_epochs["small-cpu"]
        expected = (problem, newer)[epoch - 1].estimate([values])[key][0]
        assert each.evaluation.metrics[key] == pytest.approx(float(expected))
    assert {each.table_epochs["small-cpu"] for each in searched.evaluated} == {1, 2}


def test_notices_travel_with_their_evaluation(bench: Bench) -> None:
    bench.run(
        {"random": maker("random")},
        evaluations=2,
        notice=lambda evaluated: [Logged("info", evaluated.evaluation.candidate.id)],
    )
    kinds = [type(m).__name__ for m in bench.diary.messages]
    assert kinds == ["Asked", "Evaluated", "Logged", "Phased"] * 2

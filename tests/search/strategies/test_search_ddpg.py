"""What is particular to the actor-critic; the contract is in test_search_strategies.py."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from search.errors import InvalidInput
from search.evaluation import Evaluation
from search.problem import Objective, Problem
from search.space import Space, Subset, check_settings
from search.strategies.ddpg import Ddpg, Settings
from search.synthetic.replay import Replay, make_replay, run

SMALL = Settings(hidden=32)


def scores(done: list[Evaluation]) -> list[float]:
    return [evaluation.metrics["accuracy"] for evaluation in done]


@pytest.mark.parametrize("reward", ["resource_constrained", "accuracy_guaranteed"])
@pytest.mark.parametrize("ratio", [0.8, 0.3, 0.12])
def test_it_stays_under_the_limit_with_either_reward(reward: str, ratio: float) -> None:
    replay = make_replay(0, knobs=8, evaluations=12, ratios={"latency_ms@small-cpu": ratio})
    settings = check_settings(Settings, {"reward": reward, "hidden": 32})
    done = run(Ddpg(replay.problem, settings, 0), replay)
    assert len(done) == 12
    assert all(replay.problem.feasible(evaluation.metrics) for evaluation in done)


def test_torch_is_imported_only_once_a_search_runs() -> None:
    program = (
        "import sys\n"
        "from search.strategies import load\n"
        "from search.synthetic.replay import make_replay\n"
        "family = load('ddpg')\n"
        "strategy = family.make(make_replay(0).problem, family.settings(), 0)\n"
        "assert 'torch' not in sys.modules\n"
        "strategy.ask(1)\n"
        "assert 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_first_candidate_is_as_wide_everywhere_as_the_limit_allows() -> None:
    replay = make_replay(1, knobs=6, precision=False)
    (first,) = Ddpg(replay.problem, Settings(fill=False), 0).ask(1)
    shares = [float(first.values[name]) / widths[-1] for name, widths in replay.network.widths.items()]  # type: ignore[arg-type]  # widths
    assert np.ptp(shares[:-1]) < 0.15
    assert replay.problem.violations([first.values])[0] == 0.0


def test_room_is_filled_unless_told_otherwise() -> None:
    def room(fill: bool) -> float:
        replay = make_replay(2, knobs=8, evaluations=10)
        done = run(Ddpg(replay.problem, Settings(hidden=32, fill=fill), 0), replay)
        (limit,) = replay.problem.constraints
        return float(np.mean([1.0 - evaluation.metrics[limit.metric] / limit.bound for evaluation in done]))

    assert room(True) < 0.02 < room(False)


def test_it_is_learning_that_makes_later_candidates_better() -> None:
    """The noise decays with and without learning; an actor with a learning rate of 0 stays as it is."""

    def last(actor_lr: float, seed: int) -> float:
        replay = make_replay(seed, knobs=6, evaluations=60)
        settings = Settings(hidden=64, actor_lr=actor_lr, fill=False)
        return float(np.mean(scores(run(Ddpg(replay.problem, settings, seed), replay, batch=1))[-15:]))

    assert np.mean([last(1e-3, seed) - last(0.0, seed) for seed in range(2)]) > 0.02


@pytest.mark.long
@pytest.mark.parametrize("fill", [True, False])
def test_it_learns_within_300_episodes(fill: bool) -> None:
    gains = []
    for seed in range(5):
        replay = make_replay(seed, knobs=8, evaluations=300)
        found = scores(run(Ddpg(replay.problem, Settings(fill=fill), seed), replay, batch=1))
        chance = float(np.mean(scores(told_by_others(replay, 300))))
        gains.append(np.mean(found[-50:]) - np.array([np.mean(found[:50]), chance]))
    assert (np.mean(gains, axis=0) > 0.02).all(), gains
    if fill:
        assert (np.array(gains) > 0.0).all(), gains


def told_by_others(replay: Replay, count: int) -> list[Evaluation]:
    """Return evaluations of another strategy."""
    from search.strategies.random import Random
    from search.strategies.random import Settings as RandomSettings

    return run(Random(replay.problem, RandomSettings(), 0), replay, evaluations=count)


def test_evaluations_of_others_teach_it_before_its_first_candidate() -> None:
    replay = make_replay(3, knobs=6, evaluations=40)
    warm, cold = Ddpg(replay.problem, SMALL, 0), Ddpg(replay.problem, SMALL, 0)
    others = told_by_others(replay, 30)
    warm.tell(others, [])
    (first,) = warm.ask(1)
    assert set(first.parents) == {evaluation.candidate.id for evaluation in others}
    assert first.values != cold.ask(1)[0].values


def test_a_restart_in_a_race_goes_on_alike() -> None:
    """Results of others come between its own, in an order that a restart is not told."""
    replay = make_replay(4, knobs=6, evaluations=40)
    first, others = Ddpg(replay.problem, SMALL, 0), told_by_others(replay, 8)
    done: list[Evaluation] = []
    for other in others[::-1]:
        told = [other, *(replay.evaluate(candidate) for candidate in first.ask(1))]
        first.tell(told, [])
        done += told
    pending = first.ask(2)
    second = Ddpg(replay.problem, SMALL, 0)
    second.tell(sorted(done, key=lambda evaluation: evaluation.metrics["accuracy"]), pending)
    assert [c.to_json() for c in second.ask(3)] == [c.to_json() for c in first.ask(3)]


def test_a_subset_is_refused_by_name() -> None:
    problem = Problem(Space((Subset("units", 3),)), (Objective("accuracy", "max"),), (), lambda batch: {})
    with pytest.raises(InvalidInput, match="units"):
        Ddpg(problem, Settings(), 0)

"""Rewards: by the objective, or by error and latency."""

from __future__ import annotations

from math import log1p

import pytest

from search.actor_critic.reward import Reward
from search.candidate import Candidate
from search.errors import InvalidInput
from search.evaluation import Evaluation, Status
from search.problem import Objective, Problem
from search.space import Int, Space


def problem(objective: Objective, **original: float) -> Problem:
    return Problem(Space((Int("x", 0, 1),)), (objective,), (), lambda batch: {}, original=original)


def evaluation(status: Status = Status.COMPLETED, **metrics: float) -> Evaluation:
    metrics = {name.replace("__", "@"): value for name, value in metrics.items()}
    return Evaluation(Candidate("a", {"x": 1}), status, metrics, reason="no reason")


ACCURACY = problem(Objective("accuracy", "max"), **{"latency_ms@a": 4.0})


def test_the_resource_constrained_reward_is_the_objective() -> None:
    assert Reward(ACCURACY, "resource_constrained").of(evaluation(accuracy=0.7)) == 0.7
    assert Reward(problem(Objective("macs", "min")), "resource_constrained").of(evaluation(macs=3.0)) == -3.0


def test_the_other_reward_weighs_the_error_by_the_logarithm_of_the_latency() -> None:
    reward = Reward(ACCURACY, "accuracy_guaranteed")
    found = reward.of(evaluation(accuracy=0.9, latency_ms__a=2.0, latency_ms__b=0.5))
    assert found == pytest.approx(-0.1 * log1p(2500.0))


@pytest.mark.parametrize("latency_ms", [1e-4, 0.5, 20.0])
def test_it_always_prefers_less_error_and_less_latency(latency_ms: float) -> None:
    reward = Reward(ACCURACY, "accuracy_guaranteed")
    better, worse, slower = (
        reward.of(evaluation(accuracy=score, latency_ms__a=ms))
        for score, ms in ((0.9, latency_ms), (0.8, latency_ms), (0.9, 2 * latency_ms))
    )
    assert better is not None
    assert worse is not None
    assert slower is not None
    assert worse < better
    assert slower < better


@pytest.mark.parametrize("status", [Status.FAILED, Status.STOPPED, Status.INFEASIBLE])
def test_only_completed_evaluations_have_a_reward(status: Status) -> None:
    assert Reward(ACCURACY, "resource_constrained").of(evaluation(status, accuracy=0.9)) is None


def test_an_evaluation_without_a_latency_has_no_reward_by_latency() -> None:
    assert Reward(ACCURACY, "accuracy_guaranteed").of(evaluation(accuracy=0.9)) is None


def test_a_job_without_a_device_is_told_that_the_reward_needs_one() -> None:
    with pytest.raises(InvalidInput, match=r"settings\.reward: needs a device"):
        Reward(problem(Objective("accuracy", "max"), macs=1.0), "accuracy_guaranteed")

"""Finalists of a job with several devices: the best for all of them and the best for each, in turn, each once."""

from __future__ import annotations

import numpy as np

from search.candidate import Candidate
from search.knowledge import values_key
from search.metrics import latency_metric
from search.problem import Problem
from search.synthetic.replay import Replay, make_replay
from workers.problem.aims import every_aim
from workers.progress import Evaluated
from workers.training.choosing import chosen_finalists, chosen_for_every_aim

CPU, GPU = latency_metric("small-cpu"), latency_metric("wide-gpu")


def evaluated(replay: Replay) -> list[Evaluated]:
    rng = np.random.default_rng(0)
    points = [replay.problem.space.sample(rng) for _ in range(200)]
    return [Evaluated("s", replay.evaluate(Candidate(f"c{i:03d}", values))) for i, values in enumerate(points)]


def best(found: list[Evaluated], aim: Problem) -> str:
    within = [each.evaluation for each in found if aim.feasible(each.evaluation.metrics)]
    return max(within, key=lambda each: each.metrics["accuracy"]).candidate.id


def ids(chosen: list[Evaluated]) -> list[str]:
    return [each.evaluation.candidate.id for each in chosen]


def test_each_aim_has_its_best_candidate_first() -> None:
    replay = make_replay(3, ratios={CPU: 0.4, GPU: 0.7})
    found = evaluated(replay)
    firsts = [best(found, aim) for aim in every_aim(replay.problem)]
    assert len(set(firsts)) == 3, "the devices disagree"
    assert ids(chosen_for_every_aim(found, replay.problem, 3)) == firsts
    assert ids(chosen_for_every_aim(found, replay.problem, 2)) == firsts[:2]
    assert len(set(ids(chosen_for_every_aim(found, replay.problem, 9)))) == 9


def test_a_candidate_that_serves_several_devices_takes_one_place() -> None:
    replay = make_replay(3, ratios={CPU: 0.4, GPU: 0.95})
    found = evaluated(replay)
    for_all, on_cpu, on_gpu = (best(found, aim) for aim in every_aim(replay.problem))
    assert for_all == on_cpu
    chosen = chosen_for_every_aim(found, replay.problem, 3)
    assert ids(chosen)[:2] == [for_all, on_gpu]
    assert len({values_key(each.evaluation.candidate.values) for each in chosen}) == 3


def test_one_device_has_the_finalists_that_it_had() -> None:
    replay = make_replay(3)
    found = evaluated(replay)
    assert ids(chosen_for_every_aim(found, replay.problem, 4)) == ids(chosen_finalists(found, replay.problem, 4))

"""The aims of a job with several devices: one network for all of them, and one for each device."""

from __future__ import annotations

from dataclasses import replace

import pytest

from search.metrics import latency_metric
from search.problem import Constraint, Objective, Problem
from search.synthetic.replay import make_replay
from workers.problem.aims import every_aim, searched_aims

CPU, GPU = latency_metric("small-cpu"), latency_metric("wide-gpu")


def problem(cpu: float, gpu: float) -> Problem:
    """Limits on both devices, as shares of the original's latency, and one on the size."""
    made = make_replay(3, ratios={CPU: cpu, GPU: gpu}).problem
    return replace(made, constraints=(*made.constraints, Constraint("size_bytes", made.original["size_bytes"], "max")))


def limited(aim: Problem) -> set[str]:
    return {each.metric for each in aim.constraints}


def test_one_device_is_one_aim() -> None:
    one = make_replay(3).problem
    assert every_aim(one) == searched_aims(one) == (one,)
    free = replace(one, constraints=())
    assert every_aim(free) == (free,)


def test_each_device_alone_has_its_own_limit_and_the_common_ones() -> None:
    whole = problem(cpu=0.4, gpu=0.9)
    first, on_cpu, on_gpu = every_aim(whole)
    assert first is whole
    assert limited(on_cpu) == {CPU, "size_bytes"}
    assert limited(on_gpu) == {GPU, "size_bytes"}
    assert set(on_gpu.terms) == {GPU}


@pytest.mark.parametrize(
    ("cpu", "gpu", "searched"),
    [
        (0.4, 0.95, [{CPU, GPU}, {GPU}]),  # what is fast enough for the CPU is always fast enough for the GPU
        (0.95, 0.4, [{CPU, GPU}, {CPU}]),
        (0.4, 0.6, [{CPU, GPU}, {CPU}, {GPU}]),  # the devices disagree about some networks
    ],
)
def test_a_device_whose_limit_is_the_strictest_everywhere_needs_no_search_of_its_own(
    cpu: float, gpu: float, searched: list[set[str]]
) -> None:
    aims = searched_aims(problem(cpu, gpu))
    assert [limited(aim) - {"size_bytes"} for aim in aims] == searched


def test_the_least_latency_is_each_devices_own() -> None:
    whole = replace(problem(cpu=0.4, gpu=0.95), objectives=(Objective(CPU, "min"),), level=0.5)
    assert [aim.objective.metric for aim in searched_aims(whole)] == [CPU, GPU]
    assert [aim.objective.metric for aim in every_aim(whole)] == [CPU, CPU, GPU]

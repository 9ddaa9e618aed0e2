"""What is particular to genetic; the contract is in test_search_strategies.py, the masks in channel_masks/."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from search.candidate import Candidate
from search.evaluation import Evaluation
from search.space import Choice, Space
from search.stepping.breeding import Breeding, tolerated
from search.stepping.lattice import Lattice
from search.stepping.losses import Losses
from search.strategies.genetic import Genetic, Settings
from search.synthetic.network import PRECISION
from search.synthetic.replay import Replay, make_replay, run
from search.testing import SEVERAL, failed

QUICK: Mapping[str, Any] = {"mask_population": 8, "mask_generations": 2}


def _genetic(replay: Replay, **settings: Any) -> Genetic:
    return Genetic(replay.problem, Settings(**{**QUICK, **settings}), 0)


def _best(replay: Replay, done: list[Evaluation]) -> float:
    return max(replay.accuracy(e.candidate.values) for e in done if replay.problem.feasible(e.metrics))


@pytest.mark.parametrize("seed", range(30, 34))
def test_comes_near_the_optimum(seed: int) -> None:
    replay = make_replay(seed, knobs=6, levels=6, evaluations=40, noise=0.0)
    assert _best(replay, run(_genetic(replay), replay)) > replay.optimum[1] - 0.01


@pytest.mark.parametrize("ratios", [{"latency_ms@small-cpu": 0.4}, SEVERAL])
def test_every_proposal_is_within_the_limits(ratios: Mapping[str, float]) -> None:
    replay = make_replay(3, knobs=6, levels=6, evaluations=30, ratios=ratios)
    done = run(_genetic(replay), replay)
    assert len(done) == 30
    assert all(replay.problem.violation(evaluation.metrics) == 0.0 for evaluation in done)


def test_every_narrowed_block_has_a_mask_of_its_width() -> None:
    replay = make_replay(1, knobs=6, levels=6, evaluations=12)
    for evaluation in run(_genetic(replay), replay):
        values = evaluation.candidate.values
        narrowed = {name for name, widths in replay.network.widths.items() if values[name] != widths[-1]}
        masks = evaluation.candidate.masks
        assert masks.keys() == narrowed
        assert {name: len(set(kept)) for name, kept in masks.items()} == {name: values[name] for name in narrowed}
        assert all(list(kept) == sorted(kept) for kept in masks.values())


def test_only_widths_with_a_gram_matrix_get_masks() -> None:
    replay = make_replay(1, knobs=4, levels=4, evaluations=8)
    grams = dict(replay.problem.statistics["gram"])
    grams[PRECISION] = grams.pop("stream0")
    grams["inner0"] = grams["inner0"][:3, :3]
    problem = replace(replay.problem, statistics={**replay.problem.statistics, "gram": grams})
    for candidate in Genetic(problem, Settings(**QUICK), 0).ask(8):
        assert candidate.masks.keys() <= {"inner1", "inner2"}


@pytest.mark.parametrize("streams", [False, True])
def test_the_channels_of_a_stream_are_searched_only_on_request(streams: bool) -> None:
    """Three layers read the stream, so the shares of their outputs add up to 3."""
    replay = make_replay(1, knobs=4, levels=4, evaluations=8)
    grams = {**replay.problem.statistics["gram"], "stream0": 3.0 * replay.problem.statistics["gram"]["stream0"]}
    problem = replace(replay.problem, statistics={**replay.problem.statistics, "gram": grams})
    asked = Genetic(problem, Settings(**QUICK, streams=streams), 0).ask(8)
    narrowed = [c for c in asked if c.values["stream0"] != replay.network.widths["stream0"][-1]]
    assert narrowed
    assert {"stream0" in candidate.masks for candidate in narrowed} == {streams}


def test_a_rank_gets_no_mask() -> None:
    replay = make_replay(1, knobs=2, levels=4, precision=False)
    knobs = [replace(knob, role="rank") for knob in replay.problem.space.knobs if isinstance(knob, Choice)]
    problem = replace(replay.problem, space=Space(tuple(knobs)))
    assert [candidate.masks for candidate in Genetic(problem, Settings(**QUICK), 0).ask(2)] == [{}, {}]


def test_by_importance_there_are_no_masks() -> None:
    replay = make_replay(1, knobs=4, levels=4, evaluations=8)
    assert not any(e.candidate.masks for e in run(_genetic(replay, channels="importance"), replay))


def test_the_rates_by_sensitivity_come_first() -> None:
    replay = make_replay(2, knobs=5, levels=6, precision=False)
    lattice = Lattice(replay.problem)
    (first,) = _genetic(replay, channels="importance").ask(1)
    expected = tolerated(lattice, Losses(replay.problem, lattice).loss, lattice.top)
    assert expected is not None
    assert first.values == lattice.values(expected)


def test_the_tolerated_drop_is_the_least_that_meets_the_limits() -> None:
    replay = make_replay(2, knobs=4, levels=6, precision=False)
    lattice = Lattice(replay.problem)
    curves = [np.linspace(1.0 + i, 0.0, count) for i, count in enumerate(lattice.counts)]

    def loss(points: np.ndarray) -> np.ndarray:
        return np.asarray(sum(curve[points[:, i]] for i, curve in enumerate(curves)))

    found = tolerated(lattice, loss, lattice.top)
    assert found is not None
    assert lattice.violation(found) == 0.0
    drop = max(curve[rung] for curve, rung in zip(curves, found, strict=True))
    for lower in sorted({value for curve in curves for value in curve.tolist() if value < drop}):
        rates = np.array([int(np.argmax(curve <= lower)) for curve in curves])
        assert lattice.violation(rates) > 0.0


def test_no_drop_suffices() -> None:
    replay = make_replay(2, knobs=4, levels=4, precision=False, ratios={"latency_ms@small-cpu": 0.001})
    lattice = Lattice(replay.problem)
    assert tolerated(lattice, Losses(replay.problem, lattice).loss, lattice.top) is None


def test_better_masks_make_a_layer_look_cheaper() -> None:
    """Rates are searched with the loss that the chosen channels cause, not that of the most important ones."""
    replay = make_replay(4, knobs=4, levels=6, precision=False)
    statistics = dict(replay.problem.statistics)
    width = replay.network.widths["inner0"][-1]
    statistics["importance"] = {**statistics["importance"], "inner0": np.arange(float(width))}
    statistics["gram"] = {**statistics["gram"], "inner0": np.diag(np.arange(float(width), 0.0, -1.0)) / width**2}
    problem = replace(replay.problem, statistics=statistics)
    searched = Genetic(problem, Settings(**QUICK), 0)._masks.statistics["sensitivity"]["inner0"]
    measured = statistics["sensitivity"]["inner0"]
    assert searched[-1] == measured[-1]
    assert (searched[:-1] > measured[:-1]).all()


def test_values_of_others_are_asked_for_again_with_masks() -> None:
    """Another strategy's best widths are a parent, and its channels are chosen anew."""
    replay = make_replay(5, knobs=4, levels=5, precision=False, noise=0.0)
    best, _ = replay.optimum
    strategy = _genetic(replay)
    strategy.tell([replay.evaluate(Candidate("x0", best, origin="greedy"))], [])
    asked = [candidate for _ in range(6) for candidate in strategy.ask(2)]
    again = [candidate for candidate in asked if candidate.values == best]
    assert len(again) == 1
    assert again[0].masks


def test_without_masks_known_values_are_not_asked_for_again() -> None:
    replay = make_replay(5, knobs=4, levels=5, precision=False, noise=0.0, statistics=False)
    first = _genetic(replay).ask(1)
    strategy = _genetic(replay)
    strategy.tell([replay.evaluate(replace(first[0], id="x0", origin="greedy"))], [])
    assert first[0].values not in [candidate.values for candidate in strategy.ask(4)]


def test_an_option_that_always_fails_is_given_up() -> None:
    replay = make_replay(1, knobs=6, levels=6, ratios={"latency_ms@small-cpu": 0.4}, evaluations=20)
    strategy = _genetic(replay)
    asked: list[Candidate] = []
    for _ in range(10):
        batch = strategy.ask(2)
        int8 = [candidate for candidate in batch if candidate.values[PRECISION] == "int8"]
        strategy.tell([failed(c) if c in int8 else replay.evaluate(c) for c in batch], [])
        asked += batch
    assert 2 <= sum(c.values[PRECISION] == "int8" for c in asked) <= 3
    assert all(c.values[PRECISION] == "fp32" for c in asked[4:])


def test_points_bred_are_within_the_limits_and_without_slack() -> None:
    replay = make_replay(6, knobs=6, levels=6)
    lattice = Lattice(replay.problem)
    loss = Losses(replay.problem, lattice).loss
    met = Breeding(lattice, loss, set(), 8).bred(lattice.top[None], 5, np.random.default_rng(0))
    assert len(met) > 4
    assert len(np.unique(met, axis=0)) == len(met)
    assert (lattice.violations(met) == 0.0).all()
    assert (np.diff(loss(met)) >= 0.0).all()
    for point in met:
        for knob in lattice.ordered:
            wider = np.repeat(point[None], lattice.counts[knob], axis=0)
            wider[:, knob] = np.arange(lattice.counts[knob])
            saves = (loss(wider) < loss(point[None])) & (wider[:, knob] > point[knob])
            assert (lattice.violations(wider[saves]) > 0.0).all()


def _layer_by_layer(replay: Replay, evaluations: int) -> list[Evaluation]:
    done = run(_genetic(replay, distil_between=True), replay, evaluations, batch=2)
    return [evaluation for evaluation in done if evaluation.candidate.fidelity == "F3"]


def test_layers_are_cut_one_after_another_each_from_the_last_ones_weights() -> None:
    replay = make_replay(2, knobs=5, levels=6)
    target = _genetic(replay).ask(1)[0]
    stages = _layer_by_layer(replay, 20)
    assert stages[-1].candidate.values == target.values
    assert stages[-1].candidate.masks == target.masks
    assert stages[0].candidate.weights_from is None
    for before, after in pairwise(stages):
        assert after.candidate.weights_from == before.network
        changed = [n for n, value in after.candidate.values.items() if before.candidate.values[n] != value]
        assert len(changed) == 1
        assert before.candidate.masks.items() <= after.candidate.masks.items()


def test_a_restart_goes_on_with_the_next_layer() -> None:
    replay = make_replay(2, knobs=5, levels=6)
    first = _genetic(replay, distil_between=True)
    done: list[Evaluation] = []
    for _ in range(3):
        told = [replay.evaluate(candidate) for candidate in first.ask(2)]
        first.tell(told, [])
        done += told
    second = _genetic(replay, distil_between=True)
    second.tell(done[::-1], [])
    assert [c.to_json() for c in second.ask(2)] == [c.to_json() for c in first.ask(2)]


def test_a_lost_network_ends_the_layers_but_not_the_search() -> None:
    replay = make_replay(2, knobs=5, levels=6)
    strategy = _genetic(replay, distil_between=True)
    fidelities = []
    for _ in range(6):
        asked = strategy.ask(2)
        fidelities += [candidate.fidelity for candidate in asked]
        late = [candidate for candidate in asked if candidate.weights_from is not None]
        strategy.tell([failed(c) if c in late else replay.evaluate(c) for c in asked], [])
    assert fidelities.count("F3") == 2
    assert fidelities.count("F2") == 10


def test_a_layer_is_waited_for_while_the_search_goes_on() -> None:
    strategy = _genetic(make_replay(2, knobs=5, levels=6), distil_between=True)
    (stage,) = strategy.ask(1)
    assert stage.fidelity == "F3"
    strategy.tell([], [stage])
    assert [candidate.fidelity for candidate in strategy.ask(2)] == ["F2", "F2"]

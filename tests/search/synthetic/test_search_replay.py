from __future__ import annotations

import numpy as np
import pytest

from search.candidate import Candidate
from search.errors import InvalidInput
from search.synthetic.network import PRECISION, SyntheticNetwork
from search.synthetic.replay import make_replay


def test_the_same_seed_is_the_same_problem_and_noise_is_of_the_values() -> None:
    first, second = make_replay(3, knobs=4, levels=4), make_replay(3, knobs=4, levels=4)
    values = first.problem.space.sample(np.random.default_rng(0))
    told = first.evaluate(Candidate("a", values))
    assert told.metrics == second.evaluate(Candidate("b", dict(reversed(values.items())))).metrics
    assert told.metrics["accuracy"] != first.accuracy(values)
    quiet = make_replay(3, knobs=4, levels=4, noise=0.0)
    assert quiet.evaluate(Candidate("a", values)).metrics["accuracy"] == first.accuracy(values)


def test_the_optimum_is_feasible_and_nothing_drawn_is_better() -> None:
    replay = make_replay(1, knobs=5, levels=4)
    values, accuracy = replay.optimum
    assert replay.problem.violations([values])[0] == 0.0
    assert replay.accuracy(values) == accuracy
    rng = np.random.default_rng(0)
    drawn = [replay.problem.space.sample(rng) for _ in range(500)]
    feasible = np.flatnonzero(replay.problem.violations(drawn) == 0.0)
    assert len(feasible)
    assert max(replay.accuracy(drawn[i]) for i in feasible) <= accuracy


def test_the_optimum_of_too_large_or_impossible_problems_is_refused() -> None:
    with pytest.raises(InvalidInput, match="smaller problem"):
        _ = make_replay(0, knobs=12, levels=8).optimum
    with pytest.raises(InvalidInput, match="no point"):
        _ = make_replay(0, knobs=2, levels=2, ratios={"macs": 1e-6}).optimum
    with pytest.raises(InvalidInput, match="two knobs"):
        SyntheticNetwork(0, knob_count=1)


def test_latency_is_a_staircase_and_accuracy_falls_with_the_cut() -> None:
    replay = make_replay(2, knobs=4, levels=12, precision=False, noise=0.0)
    space = replay.problem.space
    flat = 0
    for column, name in enumerate(space.names):
        levels = np.array([[count - 1 for count in space.level_counts]] * space.level_counts[column])
        levels[:, column] = np.arange(len(levels))
        latency_ms = replay.problem.terms["latency_ms@small-cpu"].latency_ms(levels)
        assert (np.diff(latency_ms) >= 0).all()
        flat += int((np.diff(latency_ms) == 0).sum())
        assert (np.diff(replay.network.accuracy(levels)) > 0).all(), name
    assert flat > 0


def test_eight_bits_are_fast_small_and_cost_little() -> None:
    replay = make_replay(2, noise=0.0)
    top = replay.network.space.values_of([count - 1 for count in replay.network.space.level_counts])
    fp32, int8 = replay.evaluate(Candidate("a", {**top, PRECISION: "fp32"})), replay.evaluate(Candidate("b", top))
    assert fp32.metrics == pytest.approx(replay.problem.original)
    assert int8.metrics["latency_ms@small-cpu"] < 0.7 * fp32.metrics["latency_ms@small-cpu"]
    assert int8.metrics["size_bytes"] < 0.4 * fp32.metrics["size_bytes"]
    assert int8.metrics["macs"] == fp32.metrics["macs"]
    assert 0.0 <= fp32.metrics["accuracy"] - int8.metrics["accuracy"] < 0.01


def test_terms_and_estimate_agree() -> None:
    replay = make_replay(5, knobs=5, levels=5)
    rng = np.random.default_rng(1)
    batch = [replay.problem.space.sample(rng) for _ in range(20)]
    estimate = replay.problem.estimate(batch)
    for metric, terms in replay.problem.terms.items():
        assert terms.latency_ms(replay.problem.space.levels_of(batch)) == pytest.approx(estimate[metric])


def test_a_whole_training_makes_a_network_of_its_own() -> None:
    replay = make_replay(3, knobs=4, levels=4)
    values = replay.problem.space.sample(np.random.default_rng(0))
    assert replay.evaluate(Candidate("a", values)).network is None
    cold = replay.evaluate(Candidate("b", values, fidelity="F4", recipe="lc"))
    warm = replay.evaluate(Candidate("c", values, fidelity="F4", recipe="lc", weights_from=cold.network))
    assert cold.network
    assert warm.network not in (None, cold.network)


def test_its_knobs_have_the_facts_that_those_of_real_networks_have() -> None:
    """What a strategy reads off a knob is there where the contract is held."""
    space = make_replay(1, knobs=6).problem.space
    widths = [knob for knob in space.levelled if knob.role == "width"]
    assert len(widths) == 6
    for knob in widths:
        assert knob.layers
        assert set(knob.features) == {
            "index",
            "channels",
            "input_channels",
            "kernel",
            "stride",
            "height",
            "width",
            "layers",
            "readers",
            "share_of_macs",
        }
        assert knob.features["channels"] == knob.whole
        assert knob.features["layers"] == len(knob.layers)
        assert 0 < knob.features["share_of_macs"] <= 1
    assert len({knob.features["index"] for knob in widths}) == 6

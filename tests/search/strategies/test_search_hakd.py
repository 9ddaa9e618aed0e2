"""What is particular to hakd; the contract is in test_search_strategies.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from search.candidate import Candidate
from search.elimination.front import front
from search.evaluation import Evaluation
from search.stepping.lattice import Lattice
from search.strategies.hakd import Hakd, Settings
from search.students.saliency import KINDS, Kind, saliencies
from search.synthetic.network import PRECISION
from search.synthetic.replay import Replay, make_replay, run
from search.testing import failed


def _hakd(replay: Replay, **settings: Any) -> Hakd:
    return Hakd(replay.problem, Settings(**settings), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_student_keeps_the_most_saliency_within_the_limit(kind: Kind) -> None:
    replay = make_replay(3, knobs=5, levels=5, ratios={"latency_ms@small-cpu": 0.4})
    lattice = Lattice(replay.problem)
    curves = saliencies(replay.problem, lattice)[kind]
    points = np.indices(lattice.counts).reshape(len(lattice.counts), -1).T
    loss = np.sum([curve[points[:, i]] for i, curve in enumerate(curves)], axis=0)
    loss[lattice.violations(points) > 0.0] = np.inf
    (first,) = _hakd(replay, saliency=kind).ask(1)
    assert first.fidelity == "F2"
    asked = lattice.point(first.values)
    assert asked is not None
    assert sum(curve[rung] for curve, rung in zip(curves, asked, strict=True)) == pytest.approx(loss.min())


def test_students_of_other_saliencies_follow() -> None:
    replay = make_replay(3, knobs=6, levels=6)
    first = [_hakd(replay, saliency=kind).ask(1)[0].values for kind in KINDS]
    asked = [candidate.values for candidate in _hakd(replay).ask(len(KINDS))]
    assert all(values in asked for values in first)


def test_twenty_budgets_from_one_table() -> None:
    """The students of all budgets come from one elimination and are the best by enumeration."""
    replay = make_replay(4, knobs=6, levels=5)
    terms = replay.problem.terms["latency_ms@small-cpu"]
    curves = saliencies(replay.problem, Lattice(replay.problem))["fisher"]
    losses = dict(zip(terms.knobs, curves, strict=True))
    levels = np.indices([len(curve) for curve in curves]).reshape(len(curves), -1).T
    latency_ms = terms.latency_ms(levels)
    loss = np.sum([curve[levels[:, i]] for i, curve in enumerate(curves)], axis=0)
    budgets_ms = [float(b) for b in np.linspace(latency_ms.min(), latency_ms.max(), 22)[1:-1]]
    found = front(terms, losses, budgets_ms)
    assert found is not None
    assert found.gap == 0.0
    for budget_ms in budgets_ms:
        index = found.at(budget_ms)
        assert index is not None
        assert terms.latency_ms(found.levels[index][None])[0] <= budget_ms * (1 + 1e-12)
        assert found.loss[index] == pytest.approx(loss[latency_ms <= budget_ms].min())


def _fidelities(done: list[Evaluation]) -> list[str]:
    return [evaluation.candidate.fidelity for evaluation in done]


def test_the_best_students_get_a_second_look_after_a_short_distillation() -> None:
    replay = make_replay(5, knobs=6, levels=6, evaluations=30)
    done = run(_hakd(replay, students=6, distilled=2), replay, batch=1)
    assert _fidelities(done)[:9] == ["F2"] * 6 + ["F3"] * 2 + ["F2"]
    best = sorted(done[:6], key=lambda evaluation: -evaluation.metrics["accuracy"])[:2]
    assert [e.candidate.values for e in done[6:8]] == [e.candidate.values for e in best]
    assert [e.candidate.parents for e in done[6:8]] == [(e.candidate.id,) for e in best]
    assert {e.candidate.origin for e in done} == {"hakd"}
    assert _fidelities(done).count("F3") == 2


def test_a_short_budget_is_not_spent_on_second_looks() -> None:
    replay = make_replay(5, knobs=6, levels=6, evaluations=9)
    assert "F3" not in _fidelities(run(_hakd(replay), replay, batch=1))


def test_waits_with_second_looks_until_all_students_are_scored() -> None:
    replay = make_replay(5, knobs=6, levels=6, evaluations=30)
    strategy = _hakd(replay, students=3)
    asked = strategy.ask(3)
    strategy.tell([replay.evaluate(candidate) for candidate in asked[:2]], asked[2:])
    assert strategy.ask(1)[0].fidelity == "F2"
    strategy.tell([replay.evaluate(asked[2])], [])
    assert strategy.ask(1)[0].fidelity == "F3"


def test_an_option_that_always_fails_is_left_alone() -> None:
    replay = make_replay(1, knobs=6, levels=6, evaluations=20, ratios={"latency_ms@small-cpu": 0.6})

    def evaluate(candidate: Candidate) -> Evaluation:
        return failed(candidate) if candidate.values[PRECISION] == "int8" else replay.evaluate(candidate)

    strategy = _hakd(replay)
    done: list[Evaluation] = []
    while len(done) < 20 and (asked := strategy.ask(1)):
        done += [evaluate(asked[0])]
        strategy.tell(done[-1:], [])
    assert [e.candidate.values[PRECISION] for e in done].count("int8") == 2
    assert any(replay.problem.feasible(e.metrics) for e in done if e.metrics)


@pytest.mark.parametrize("seed", range(30, 36))
def test_comes_near_the_optimum(seed: int) -> None:
    replay = make_replay(seed, knobs=6, levels=6, evaluations=40, noise=0.0)
    feasible = [e for e in run(_hakd(replay), replay) if replay.problem.feasible(e.metrics)]
    assert max(replay.accuracy(e.candidate.values) for e in feasible) > replay.optimum[1] - 0.01


def test_evaluations_correct_what_saliency_got_wrong() -> None:
    """Statistics are misleading here, in that each knob has those of another; the best student is still found."""
    replay = make_replay(33, knobs=6, levels=6, evaluations=40, noise=0.0)
    for known in replay.problem.statistics.values():
        names = sorted(known)
        shifted = {name: known[other] for name, other in zip(names, names[1:] + names[:1], strict=True)}
        known.clear()  # type: ignore[attr-defined]  # make_replay makes dicts
        known.update(shifted)  # type: ignore[attr-defined]
    done = run(_hakd(replay, distilled=0), replay, batch=1)
    scores = [replay.accuracy(e.candidate.values) for e in done if replay.problem.feasible(e.metrics)]
    assert max(scores[8:]) > max(scores[:8])
    assert max(scores) > replay.optimum[1] - 0.02

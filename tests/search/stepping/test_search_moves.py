"""Lattice, predicted losses and the moves made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from search.errors import InvalidInput
from search.problem import Constraint, Objective, Problem, Term, Terms
from search.space import Choice, Float, Int, Space, Subset, Values
from search.stepping.lattice import Lattice
from search.stepping.losses import Losses
from search.stepping.moves import Moves
from search.synthetic.replay import make_replay

WIDTHS = (2, 4, 6, 8)
SPACE = Space((Choice("a", WIDTHS, True), Choice("b", WIDTHS, True), Choice("p", ("fp32", "int8"), False)))


def _estimate(batch: Sequence[Values]) -> dict[str, Any]:
    def macs(v: Values) -> float:
        return (int(v["a"]) * 2 + int(v["b"])) * (0.5 if v["p"] == "int8" else 1.0)  # type: ignore[arg-type]  # widths

    return {"macs": np.array([macs(v) for v in batch], dtype=float)}


def _problem(bound: float, statistics: Mapping[str, Any] | None = None, **changes: Any) -> Problem:
    return Problem(
        SPACE,
        (Objective("accuracy", "max"),),
        (Constraint("macs", bound, "max"),),
        _estimate,
        statistics=statistics or {},
        original={"accuracy": 0.9, "macs": 24.0},
        **changes,
    )


def _moves(bound: float, prices: tuple[float, float, float], banned: tuple[tuple[int, int], ...] = ()) -> Moves:
    """Moves under a loss of so much per rung of a and b, and for int8."""

    def loss(points: Any) -> Any:
        return (3 - points[:, 0]) * prices[0] + (3 - points[:, 1]) * prices[1] + points[:, 2] * prices[2]

    return Moves(Lattice(_problem(bound)), loss, banned)


def test_rungs_of_every_kind_of_knob() -> None:
    space = Space((Float("f", 0.0, 1.0), Int("i", 2, 5), Int("long", 0, 10_000), Choice("c", ("x", "y"), False)))
    lattice = Lattice(Problem(space, (Objective("m", "max"),), (), lambda batch: {}))
    assert lattice.counts == (33, 4, 33, 2)
    assert lattice.values(lattice.top) == {"f": 1.0, "i": 5, "long": 10_000, "c": "x"}
    assert lattice.point(lattice.values(lattice.top)) == pytest.approx(lattice.top)
    assert lattice.point({"f": 0.123, "i": 5, "long": 0, "c": "x"}) is None
    assert lattice.rungs[1].shares.tolist() == [0.4, 0.6, 0.8, 1.0]


def test_a_subset_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot search a Subset"):
        Lattice(Problem(Space((Subset("s", 3),)), (Objective("m", "max"),), (), lambda batch: {}))


def test_violations_by_terms_and_by_estimate_agree() -> None:
    replay = make_replay(1, knobs=4, levels=4, ratios={"latency_ms@small-cpu": 0.5, "macs": 0.5})
    lattice = Lattice(replay.problem)
    rng = np.random.default_rng(0)
    points = np.stack([rng.integers(0, count, 30) for count in lattice.counts], axis=1)
    expected = replay.problem.violations([lattice.values(point) for point in points])
    assert lattice.violations(points) == pytest.approx(expected)
    assert lattice.violations(points[:0]).shape == (0,)


def test_terms_of_thinned_knobs_are_looked_up_at_the_right_level() -> None:
    space = Space((Int("i", 1, 100),))
    terms = {"latency_ms@d": Terms(("i",), 0.0, 1.0, (Term(("i",), np.arange(1.0, 101.0)),))}
    constraint = Constraint("latency_ms@d", 50.0, "max")
    lattice = Lattice(Problem(space, (Objective("m", "max"),), (constraint,), lambda batch: {}, terms))
    assert lattice.violation(lattice.top) == pytest.approx(1.0)


def test_fill_takes_the_cheapest_step_per_gain() -> None:
    top = np.array([3, 3, 0])
    assert _moves(16, (1.0, 9.0, 9.0)).fill(top, 0.0) == pytest.approx([1, 3, 0])
    assert _moves(18, (9.0, 1.0, 99.0)).fill(top, 0.0) == pytest.approx([3, 0, 0])
    assert _moves(12, (9.0, 9.0, 0.1)).fill(top, 0.0) == pytest.approx([3, 3, 1])


def test_fill_leaves_frozen_knobs_and_banned_options_alone() -> None:
    top = np.array([3, 3, 0])
    assert _moves(18, (1.0, 9.0, 0.1)).fill(top, 0.0, frozen=(0, 2)) == pytest.approx([3, 0, 0])
    banned = _moves(12, (1.0, 9.0, 0.1), banned=((2, 1),))
    assert banned.fill(top, 0.0) == pytest.approx([0, 3, 0])
    assert not banned.allows(np.array([3, 3, 1]))
    assert banned.fill(top, 0.0, frozen=(0,)) is None


def test_walk_says_how_far_it_came() -> None:
    reached, violation = _moves(1.0, (1.0, 1.0, 1.0)).walk(np.array([3, 3, 0]), 0.0)
    assert reached == pytest.approx([0, 0, 1])
    assert violation == pytest.approx(2.0)  # 3 of the 1 that is allowed


def test_lower_reaches_the_target_at_the_highest_rung() -> None:
    moves = _moves(16, (1.0, 1.0, 1.0))
    assert moves.lower(np.array([3, 3, 0]), 0, 0.0) == pytest.approx([1, 3, 0])
    assert moves.lower(np.array([3, 3, 0]), 0, 0.0, floor=2) == pytest.approx([2, 3, 0])
    assert moves.lower(np.array([3, 3, 0]), 1, 0.3) == pytest.approx([3, 1, 0])


def test_give_back_leaves_no_slack() -> None:
    assert _moves(20, (1.0, 2.0, 0.0)).give_back(np.array([0, 0, 0])) == pytest.approx([2, 3, 0])
    assert _moves(3, (1.0, 2.0, 0.0)).give_back(np.array([0, 0, 0])) == pytest.approx([0, 0, 0])


def test_losses_learn_which_knob_is_dear() -> None:
    problem = _problem(12.0)
    lattice = Lattice(problem)
    before = Losses(problem, lattice)
    a_cut, b_cut = np.array([[0, 3, 0]]), np.array([[3, 0, 0]])
    assert before.loss(a_cut) == pytest.approx(before.loss(b_cut))
    after = before.fit([a_cut[0], b_cut[0]], [0.60, 0.89])
    assert after.loss(a_cut)[0] > 5 * after.loss(b_cut)[0]
    assert before.loss(a_cut) == pytest.approx(before.loss(b_cut)), "fit must leave the given one as it was"
    assert after.predict(a_cut).sigma[0] < before.predict(a_cut).sigma[0]
    assert after.loss(lattice.top[None])[0] == 0.0


@pytest.mark.parametrize(
    ("statistics", "dear"),
    [
        ({"sensitivity": {"a": np.array([0.5, 0.7, 0.8, 0.9]), "b": np.array([0.89, 0.9, 0.9, 0.9])}}, "a"),
        ({"ls_error": {"a": np.array([0.1, 0.05, 0.01, 0.0]), "b": np.array([0.9, 0.5, 0.2, 0.0])}}, "b"),
        ({"importance": {"a": np.ones(8), "b": np.array([9.0, 9, 0, 0, 0, 0, 0, 0])}}, "a"),
        ({"ls_error": {"a": np.array([0.9, 0.0])}, "importance": {"b": np.ones(8), "a": np.ones(8)}}, None),
        ({"sensitivity": {"a": np.array([np.nan, 0.7, 0.8, 0.9])}}, None),
    ],
)
def test_statistics_rank_the_knobs_before_any_evaluation(statistics: Mapping[str, Any], dear: str | None) -> None:
    problem = _problem(12.0, statistics)
    loss = Losses(problem, Lattice(problem)).loss(np.array([[0, 3, 0], [3, 0, 0]]))
    if dear is None:  # arrays that do not fit the knob, or hold no number, are not used
        assert loss[0] == pytest.approx(loss[1])
    else:
        assert (loss[0] > loss[1]) == (dear == "a")


def test_an_order_of_evaluations_changes_no_prediction() -> None:
    problem = _problem(12.0)
    lattice = Lattice(problem)
    losses = Losses(problem, lattice)
    points = [np.array(p) for p in ([0, 3, 0], [3, 0, 1], [1, 1, 1], [2, 2, 0])]
    utilities = [0.7, 0.8, 0.6, 0.85]
    forward = losses.fit(points, utilities).loss(np.array([[0, 0, 1]]))
    assert losses.fit(points[::-1], utilities[::-1]).loss(np.array([[0, 0, 1]])) == pytest.approx(forward)


def test_the_curves_of_a_model_add_up_to_its_losses() -> None:
    lattice = Lattice(_problem(12.0))
    rng = np.random.default_rng(1)
    points = np.stack([rng.integers(0, count, 12) for count in lattice.counts], axis=1)
    fitted = Losses(_problem(12.0), lattice).fit(list(points), list(rng.uniform(0.5, 0.9, 12)))
    for model in (fitted, fitted.drawn(rng)):
        total = np.sum([curve[points[:, i]] for i, curve in enumerate(model.curves)], axis=0)
        assert model.loss(points) == pytest.approx(total)


def test_draws_spread_as_far_as_the_model_is_uncertain() -> None:
    lattice = Lattice(_problem(12.0))
    losses = Losses(_problem(12.0), lattice)
    cut = np.array([[0, 3, 0]])

    def spread(model: Losses) -> float:
        draws = [model.drawn(np.random.default_rng(seed)).loss(cut)[0] for seed in range(200)]
        assert min(draws) > 0.0
        return float(np.std(draws))

    assert spread(losses.fit([cut[0]], [0.80])) < 0.5 * spread(losses)

"""L-C and direct compression: the Lagrangian's steps on a case by hand, the set kept, resumed to the same bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from compress_graphs import residual
from test_compress_fit import PIXELS, RECIPE, accuracy, assert_same, one_thread, stripes

from compress.errors import InvalidInput
from compress.network import Network
from compress.pruning.effective_weights import effective, effective_weights, layer_weights, stored
from compress.scheme import BoundScheme, Scheme
from compress.tasks.classification import TASK
from compress.training.checkpoint import Checkpoint
from compress.training.direct import direct, fine_tune
from compress.training.fit import Step, fit
from compress.training.lc import Schedule, _Alternation, lc

__all__ = ["one_thread"]  # a fixture of every test here

SCHEDULE = Schedule(l_steps=4, mu=0.05, growth=1.5, finish=0.5)
Way = Callable[..., Iterator[Step]]
WAYS: dict[str, Way] = {
    "direct": direct,
    "lc": lc,
    "lc alone": partial(lc, schedule=replace(SCHEDULE, finish=0.0)),
}


def sparse(density: float = 0.2) -> BoundScheme:
    return Scheme.of([("weight_prune", {})]).bind({"weight_prune": density})


def zeros(network: Network) -> dict[str, np.ndarray]:
    return {name: network.constants[name] == 0 for name in layer_weights(network)}


def density(network: Network) -> float:
    gone = zeros(network)
    return 1 - sum(int(mask.sum()) for mask in gone.values()) / sum(mask.size for mask in gone.values())


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_step_has_a_compressed_network_and_the_last_one_is_good(way: Way) -> None:
    network, part = residual(norms=True), stripes(256)
    steps = []
    for step in way(network, part, PIXELS, replace(RECIPE, epochs=6, augment="none"), sparse()):
        assert density(step.network()) <= 0.2 + 1e-9
        steps.append(step)
    assert len(steps) == 6 * 16
    assert accuracy(steps[-1].network(), stripes(128, seed=9)) > 0.8


def test_direct_keeps_the_first_projections_zeros_and_lc_may_choose_others() -> None:
    network, part = residual(norms=True), stripes(256)
    projected = sparse().rewrite(network, None)  # type: ignore[arg-type]  # weights are all it looks at
    recipe = replace(RECIPE, epochs=6, augment="none")
    ends = {name: list(way(network, part, PIXELS, recipe, sparse()))[-1].network() for name, way in WAYS.items()}
    first = zeros(projected)
    for name, mask in zeros(ends["direct"]).items():
        np.testing.assert_array_equal(mask, first[name], err_msg=name)
    assert any(not np.array_equal(mask, first[name]) for name, mask in zeros(ends["lc"]).items())


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("stop", [1, 4, 7, 11])
def test_an_interrupted_run_ends_with_the_same_bits(way: Way, stop: int) -> None:
    network, part, teacher = residual(norms=True), stripes(64), residual(seed=5)
    recipe = replace(RECIPE, epochs=3)
    whole = list(way(network, part, PIXELS, recipe, sparse(), teacher))[-1].network()
    saved = list(itertools.islice(way(network, part, PIXELS, recipe, sparse(), teacher), stop))[-1].checkpoint()
    rest = list(way(network, part, PIXELS, recipe, sparse(), teacher, saved))
    assert rest[0].step == stop
    assert_same(rest[-1].network(), whole)


def test_a_checkpoint_of_another_way_set_or_schedule_is_refused() -> None:
    network, part = residual(norms=True), stripes(64)
    saved = next(lc(network, part, PIXELS, RECIPE, sparse())).checkpoint()
    others = (
        direct(network, part, PIXELS, RECIPE, sparse(), None, saved),
        lc(network, part, PIXELS, RECIPE, sparse(0.3), None, saved),
        lc(network, part, PIXELS, RECIPE, sparse(), None, saved, schedule=SCHEDULE),
    )
    for other in others:
        with pytest.raises(InvalidInput, match="another network"):
            next(other)


def test_the_lagrangian_by_hand() -> None:
    """One L step of one batch: the penalty's gradient is mu (w - theta) - lambda, then theta and lambda follow."""
    network, part = residual(), stripes(16)
    recipe = replace(RECIPE, epochs=2, batch=16, augment="none", warm_up=0.0, momentum=0.0, weight_decay=0.0)
    plain, tied = (
        _Alternation(network, part, PIXELS, recipe, None, sparse(), schedule, TASK)
        for schedule in (Schedule(l_steps=2, mu=mu, growth=2.0, finish=0.0) for mu in (1e-8, 0.5))
    )
    name = layer_weights(network)[0]
    w0 = network.constants[name].astype(np.float64)
    theta0 = sparse().project(network, effective_weights(network))[name]
    lr = tied.rate(0)
    plain.advance()
    tied.advance()
    w1 = tied.module.to_network().constants[name].astype(np.float64)
    # The loss's own gradient is that of the run with hardly any penalty.
    gradient = (w0 - plain.module.to_network().constants[name]) / lr
    np.testing.assert_allclose(w1, w0 - lr * (gradient + 0.5 * (w0 - theta0)), atol=1e-6)
    after = effective_weights(tied.module.to_network())
    theta1 = sparse().project(network, after)[name]
    state = tied.state()
    np.testing.assert_array_equal(state[f"theta/{name}"], theta1.astype(np.float32))  # lambda was zero
    np.testing.assert_allclose(state[f"lambda/{name}"], -0.5 * (after[name] - theta1), atol=1e-7)
    # The second L step: mu has doubled, and lambda pulls too.
    tied_before = w1 - theta1
    penalty = tied.penalty()
    assert penalty is not None
    (pull,) = torch.autograd.grad(penalty, tied.module.held(name))
    np.testing.assert_allclose(pull.numpy(), 1.0 * tied_before - state[f"lambda/{name}"], atol=1e-6)


def test_the_penalty_is_on_weights_as_they_are_trained() -> None:
    network = residual(norms=True)
    training = _Alternation(network, stripes(32), PIXELS, RECIPE, None, sparse(), SCHEDULE, TASK)
    theta = stored(network, sparse().project(network, effective(network)))
    expected = sum(float(np.square(network.constants[name] - theta[name]).sum()) for name in layer_weights(network))
    penalty = training.penalty()
    assert penalty is not None
    assert float(penalty.detach()) == pytest.approx(SCHEDULE.mu / 2 * expected, rel=1e-4)


def test_the_multipliers_bring_w_to_theta() -> None:
    """What L-C is for: at the end of a run without a finish, w is nearly compressed by itself."""
    network, part = residual(norms=True), stripes(256)
    schedule = Schedule(l_steps=24, mu=0.1, growth=1.2, finish=0.0)
    recipe = replace(RECIPE, epochs=8, augment="none")
    training = _Alternation(network, part, PIXELS, recipe, None, sparse(), schedule, TASK)
    before = _gap(training)
    list(training.run())
    assert _gap(training) < 0.2 * before


def _gap(training: _Alternation) -> float:
    network = training.module.to_network()
    theta = stored(network, training.bound.project(network, effective(network)))
    own = sum(float(np.square(network.constants[name]).sum()) for name in theta)
    return sum(float(np.square(network.constants[name] - theta[name]).sum()) for name in theta) / own


def test_units_go_by_lc_too_and_put_out_nothing() -> None:
    network, part = residual(norms=True), stripes(128)
    bound = Scheme.of([("filter_prune", {})]).bind({"stem": 5})
    end = list(lc(network, part, PIXELS, replace(RECIPE, epochs=4), bound))[-1].network()
    for name in bound.projected(network):
        rows = np.abs(effective(end)[name]).reshape(8, -1).sum(1)
        assert (rows > 0).sum() == 5


def test_low_bits_are_projected_in_every_c_step() -> None:
    network, part = residual(norms=True), stripes(64)
    bound = Scheme.of([("weight_prune", {}), ("int8_ptq", {})]).bind({"weight_prune": 0.5, "int8_ptq": "int8"})
    training = _Alternation(network, part, PIXELS, RECIPE, None, bound, SCHEDULE, TASK)
    for name, theta in training._theta.items():
        assert len(np.unique(theta[0])) <= 255
        assert (theta == 0).any(), name


def test_nothing_to_compress_is_plain_training() -> None:
    network, part = residual(norms=True), stripes(64)
    for way in (direct, lc):
        end = list(way(network, part, PIXELS, RECIPE, sparse(1.0)))[-1].network()
        assert density(end) == 1.0


def test_fine_tuning_holds_zeros_and_leaves_bits_for_later() -> None:
    network, part = residual(norms=True), stripes(64)
    scheme = Scheme.of([("weight_prune", {}), ("int8_ptq", {})])
    bound = scheme.bind({"weight_prune": 0.3, "int8_ptq": "int8"})
    end = list(fine_tune(network, part, PIXELS, RECIPE, bound))[-1].network()
    assert density(end) == pytest.approx(0.3, abs=0.001)
    assert len(np.unique(end.constants["stem.weight"])) > 50
    plain = list(fine_tune(network, part, PIXELS, RECIPE, scheme.bind({"weight_prune": 1.0})))[-1].network()
    assert_same(plain, list(fit(network, part, PIXELS, RECIPE))[-1].network())


def test_a_state_travels_in_the_checkpoint() -> None:
    network, part = residual(norms=True), stripes(64)
    saved = Checkpoint.from_bytes(next(lc(network, part, PIXELS, RECIPE, sparse())).checkpoint())
    assert {name.partition("/")[0] for name in saved.state} == {"best", "best_loss", "theta", "lambda"}
    assert stored(network, {}) == {}

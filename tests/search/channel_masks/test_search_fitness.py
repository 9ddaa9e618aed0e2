"""The two errors of a mask, against their definitions on real features."""

from __future__ import annotations

import numpy as np
import pytest
from search_correlated import gram, gram_of, layer

from search.channel_masks.fitness import lost, marginal, refitted


def _masks(count: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, width)) < 0.5


def test_lost_is_the_variance_of_what_the_removed_units_contribute() -> None:
    features, weights = layer(12, 1)
    masks = _masks(20, 12)
    total = np.square(features @ weights.T).sum()
    expected = [np.square(features[:, gone] @ weights[:, gone].T).sum() / total for gone in masks]
    assert lost(gram_of(features, weights), masks) == pytest.approx(np.array(expected))


def test_many_masks_are_as_one() -> None:
    found, _ = gram(16, 2)
    masks = _masks(10_000, 16)
    assert lost(found, masks) == pytest.approx(np.array([found[np.ix_(gone, gone)].sum() for gone in masks]))


def test_refitted_is_the_residual_of_one_number_per_kept_unit() -> None:
    features, weights = layer(12, 3)
    contributions = (features[:, None, :] * weights[None]).reshape(-1, 12)
    total = np.square(features @ weights.T).sum()
    for gone in _masks(10, 12):
        target = contributions[:, gone].sum(axis=1)
        numbers, *_ = np.linalg.lstsq(contributions[:, ~gone], target)
        residual = np.square(target - contributions[:, ~gone] @ numbers).sum() / total
        assert refitted(gram_of(features, weights), gone[None])[0] == pytest.approx(residual, rel=1e-5)


def test_refitted_lies_between_the_error_after_a_full_refit_and_lost() -> None:
    features, weights = layer(16, 4)
    masks = _masks(30, 16)
    found = gram_of(features, weights)
    total = np.square(features @ weights.T).sum()
    for gone, upper, error in zip(masks, lost(found, masks), refitted(found, masks), strict=True):
        target = features[:, gone] @ weights[:, gone].T
        numbers, *_ = np.linalg.lstsq(features[:, ~gone], target)
        assert np.square(target - features[:, ~gone] @ numbers).sum() / total <= error + 1e-9
        assert error <= upper + 1e-12


def test_equal_and_idle_units_do_not_break_the_refit() -> None:
    found, _ = gram(8, 5)
    found[1], found[:, 1] = found[0], found[:, 0]  # a copy of unit 0
    found[2] = found[:, 2] = 0.0  # an idle unit
    gone = np.zeros((2, 8), dtype=bool)
    gone[0, [0, 2]] = gone[1, 2] = True
    copied, idle = refitted(found, gone)
    assert copied == pytest.approx(0.0, abs=1e-6)
    assert idle == pytest.approx(0.0, abs=1e-12)
    assert refitted(np.zeros((3, 3)), np.array([[True, False, False]])).tolist() == [0.0]
    assert refitted(found, np.ones((1, 8), dtype=bool))[0] == pytest.approx(found.sum())


def test_marginal_is_the_change_of_lost() -> None:
    found, _ = gram(10, 6)
    for gone in _masks(5, 10):
        before = lost(found, gone[None])[0]
        flipped = gone ^ np.eye(10, dtype=bool)
        change = np.where(gone, before - lost(found, flipped), lost(found, flipped) - before)
        assert marginal(found, gone[None])[0] == pytest.approx(change)

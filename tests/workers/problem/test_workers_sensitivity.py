"""Sensitivities: which levels get a look, and what the looks and the layer errors say about all the others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from search.space import Choice, Space
from workers.problem.sensitivity import MAPPED, Looks, LossMap, Place, Vector

WHOLE = 0.9
INT8 = Choice("int8", ("fp32", "int8"), ordered=False)
LEVELS = 24


def width(name: str, levels: int = LEVELS) -> Choice:
    return Choice(name, tuple(range(8, 8 * levels + 1, 8)), ordered=True)


def many() -> tuple[Space, dict[str, Vector]]:
    """25 widths whose errors span different ranges, and an option without errors."""
    left = np.linspace(1.0, 0.0, LEVELS)
    rng = np.random.default_rng(1)
    errors = {f"w{i}": rng.uniform(0.05, 1.5) * left ** rng.uniform(1.0, 3.0) for i in range(25)}
    return Space((*map(width, errors), INT8)), errors


def loss(error: Vector) -> Vector:
    return np.minimum(0.5 * error**1.5, 0.8)


def scored(places: tuple[Place, ...], errors: Mapping[str, Vector], noise: float = 0.0) -> dict[Place, float]:
    rng = np.random.default_rng(2)
    exact = {place: float(loss(errors[place[0]][place[1]])) if place[0] in errors else 0.01 for place in places}
    return {place: WHOLE - lost + noise * rng.standard_normal() for place, lost in exact.items()}


def test_few_looks_at_many_knobs_cover_the_range_of_errors() -> None:
    space, errors = many()
    places = Looks.of(space, errors).places
    mapped = [place for place in places if place != ("int8", 1)]
    assert len(places) == len(mapped) + 1 == MAPPED + 1
    assert len({name for name, _ in mapped}) == MAPPED, "no knob twice while there are others"
    seen = sorted(float(errors[name][level]) for name, level in mapped)
    assert seen[-1] == max(each[0] for each in errors.values()), "nothing is inferred beyond the largest error"
    shares = np.searchsorted(np.sort([each[level] for each in errors.values() for level in (0, 8, 15)]), seen) / 75
    assert np.diff([0.0, *shares, 1.0]).max() < 2.5 / MAPPED


def test_few_knobs_and_knobs_without_errors_are_all_looked_at() -> None:
    options = Choice("bits", ("8", "4", "2"), ordered=False)
    places = Looks.of(Space((width("a"), width("b", 3), options, width("c"))), {"a": np.linspace(1, 0, LEVELS)}).places
    assert places == (
        *(("a", level) for level in (0, 8, 15)),
        *(("b", level) for level in (0, 1)),
        *(("bits", level) for level in (1, 2)),
        *(("c", level) for level in (0, 8, 15)),
    )


def test_levels_between_looks_are_inferred_from_the_errors_of_other_knobs() -> None:
    space, errors = many()
    looks = Looks.of(space, errors)
    scores = scored(looks.places, errors)
    found = looks.sensitivities(WHOLE, scores)
    assert list(found) == list(space.names)
    unseen = set(errors) - {name for name, _ in scores}
    assert unseen
    for name in errors:
        assert found[name].scores == pytest.approx(WHOLE - loss(errors[name]), abs=0.05)
        assert found[name].scores[-1] == WHOLE
        assert found[name].looked.sum() == (1 if name in unseen else 2), "the level of the original and a look"
    for name, level in scores:
        assert found[name].scores[level] == pytest.approx(scores[name, level])
        assert found[name].looked[level]


def test_a_knob_that_loses_more_than_its_errors_say_keeps_what_its_look_saw() -> None:
    space, errors = many()
    looks = Looks.of(space, errors)
    scores = scored(looks.places, errors)
    plain = looks.sensitivities(WHOLE, scores)
    name, level = next(place for place in scores if place[0] in errors and 0 < place[1] < LEVELS - 2)
    worse = looks.sensitivities(WHOLE, {**scores, (name, level): scores[name, level] - 0.2})
    moved = plain[name].scores - worse[name].scores
    assert moved[level] == pytest.approx(0.2)
    assert moved[-1] == 0.0
    assert 0.0 < moved[level + 1] < 0.2, "lighter cuts lose a part of it"


def test_noise_of_looks_is_averaged_over_knobs() -> None:
    space, errors = many()
    looks = Looks.of(space, errors)
    scores = scored(looks.places, errors, noise=0.01)
    found = looks.sensitivities(WHOLE, scores)
    unseen = [name for name in errors if name not in {place[0] for place in scores}]
    off = [np.abs(found[name].scores - (WHOLE - loss(errors[name]))).mean() for name in unseen]
    assert np.mean(off) < 0.012
    assert min(each.scores.min() for each in found.values()) >= min(scores.values())


def test_without_errors_scores_are_interpolated_between_levels() -> None:
    knob = width("a", 7)
    wrong = {"a": np.full(7, np.nan), "b": np.zeros(7), "int8": np.array([0.0, 1.0])}
    looks = Looks.of(Space((knob, INT8)), wrong)
    assert looks.errors == {}
    scores = {("a", 0): 0.3, ("a", 2): 0.5, ("a", 4): 0.8, ("int8", 1): 0.88}
    assert set(looks.places) == scores.keys()
    found = looks.sensitivities(WHOLE, scores)
    assert found["a"].scores == pytest.approx([0.3, 0.4, 0.5, 0.65, 0.8, 0.85, 0.9])
    assert found["a"].looked.tolist() == [True, False, True, False, True, False, True]
    assert found["int8"].scores.tolist() == [WHOLE, 0.88]


def test_the_map_never_falls_and_pools_what_contradicts_it() -> None:
    found = LossMap.fitted([(0.1, 0.02), (0.2, -0.01), (0.4, 0.3), (0.6, 0.1), (0.8, 0.2), (1.0, 0.5)])
    errors = np.linspace(0.0, 1.5, 100)
    losses = found.at(errors)
    assert losses[0] == 0.0
    assert (np.diff(losses) >= 0.0).all()
    assert found.at(np.array([0.6]))[0] == pytest.approx(0.2), "three looks that contradict each other: their mean"
    assert found.at(np.array([1.0, 2.0])).tolist() == pytest.approx([0.5, 0.5])
    nothing = LossMap.fitted([(0.5, -0.02), (0.9, -0.01)])
    assert nothing.at(errors).tolist() == [0.0] * 100, "noise that seems to raise the score loses nothing"

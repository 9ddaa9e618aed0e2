from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.errors import InvalidInput
from search.space import Choice, Float, Int, Knob, Space, Subset, Value

WIDTHS = Choice("conv1", (8, 16, 32), ordered=True)
PRECISION = Choice("precision", ("fp32", "int8"), ordered=False)
SPACE = Space((WIDTHS, PRECISION, Int("rank", 2, 9)))


def _numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_infinity=False)


KNOBS: st.SearchStrategy[Knob] = st.one_of(
    st.tuples(_numbers(-5, 0), _numbers(1, 5)).map(lambda b: Float("knob", *b)),
    st.tuples(st.integers(-5, 0), st.integers(0, 9)).map(lambda b: Int("knob", *b)),
    st.sets(st.integers(1, 512), min_size=1, max_size=9).map(lambda o: Choice("knob", tuple(sorted(o)), True)),
    st.sets(st.text(), min_size=1, max_size=5).map(lambda o: Choice("knob", tuple(sorted(o)), False)),
    st.integers(1, 20).map(lambda width: Subset("knob", width)),
)


@given(knob=KNOBS, seed=st.integers(0, 2**32))
def test_samples_are_of_the_knob_and_survive_encoding(knob: Knob, seed: int) -> None:
    space = Space((knob,))
    values = space.sample(np.random.default_rng(seed))
    space.check(values)
    code = space.encode(values)
    assert code.shape == (space.dimensions,)
    assert ((code >= 0) & (code <= 1)).all()
    decoded = space.decode(code)["knob"]
    assert decoded == pytest.approx(values["knob"]) if isinstance(knob, Float) else decoded == values["knob"]


@given(knob=KNOBS, data=st.data())
def test_whatever_is_decoded_is_of_the_space(knob: Knob, data: st.DataObject) -> None:
    space = Space((knob,))
    code = data.draw(st.lists(_numbers(-1, 2), min_size=space.dimensions, max_size=space.dimensions))
    space.check(space.decode(np.array(code)))


@given(seed=st.integers(0, 2**32))
def test_levels_and_values_are_inverse(seed: int) -> None:
    values = SPACE.sample(np.random.default_rng(seed))
    assert SPACE.values_of(SPACE.levels(values)) == values


def test_levels_of_a_batch_count_from_the_smallest() -> None:
    batch: list[dict[str, Value]] = [
        {"conv1": 8, "precision": "fp32", "rank": 2},
        {"rank": 9, "precision": "int8", "conv1": 32},
    ]
    assert SPACE.levels_of(batch).tolist() == [[0, 0, 0], [2, 1, 7]]
    assert SPACE.level_counts == (3, 2, 8)
    assert SPACE.levels_of([]).shape == (0, 3)


def test_encoding_keeps_the_distances_of_widths() -> None:
    assert Space((WIDTHS,)).encode({"conv1": 16})[0] == pytest.approx(8 / 24)
    three = Space((Choice("kind", ("a", "b", "c"), ordered=False),))
    assert three.encode({"kind": "b"}).tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"conv1": 12, "precision": "fp32", "rank": 3}, "conv1", "must be one of 8, 16, 32"),
        ({"conv1": 16.0, "precision": "fp32", "rank": 3}, "conv1", "must be one of"),
        ({"conv1": 16, "precision": "fp32", "rank": True}, "rank", "whole number"),
        ({"conv1": 16, "precision": "fp32", "rank": 10}, "rank", r"\[2, 9\]"),
        ({"conv1": 16, "precision": "fp32"}, "rank", "has no value"),
        ({"conv1": 16, "precision": "fp32", "rank": 3, "konv1": 1}, "konv1", "did you mean 'conv1'"),
    ],
)
def test_wrong_values_are_named(values: dict[str, Any], field: str, message: str) -> None:
    for check in (SPACE.check, SPACE.levels, SPACE.encode):
        with pytest.raises(InvalidInput, match=message) as caught:
            check(values)
        assert caught.value.field == field


@pytest.mark.parametrize("value", [(), (1, 0), (0, 0), (-1,), (4,), [0], (0, 1.0)])
def test_wrong_subsets_are_named(value: Any) -> None:
    with pytest.raises(InvalidInput, match="units"):
        Subset("units", 4).check(value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Float("k", 1.0, 1.0),
        lambda: Float("k", 0.0, float("inf")),
        lambda: Int("k", 2, 1),
        lambda: Choice("k", (), ordered=True),
        lambda: Choice("k", (1, 1), ordered=False),
        lambda: Choice("k", (2, 1), ordered=True),
        lambda: Choice("k", ("a", "b"), ordered=True),
        lambda: Choice("k", (None,), ordered=False),  # type: ignore[arg-type]  # what is tested
        lambda: Subset("k", 0),
        lambda: Space(()),
        lambda: Space((WIDTHS, WIDTHS)),
    ],
)
def test_impossible_knobs_are_refused(make: Any) -> None:
    with pytest.raises(InvalidInput):
        make()


def test_levels_are_those_of_the_knobs_that_have_some() -> None:
    space = Space((Float("ratio", 0.0, 1.0), WIDTHS))
    assert space.levels({"conv1": WIDTHS.options[1], "ratio": 0.5}).tolist() == [1]
    assert space.values_of([0]) == {"ratio": 1.0, "conv1": WIDTHS.options[0]}


def test_a_knob_says_what_it_does() -> None:
    assert [knob.role for knob in (WIDTHS, Float("ratio", 0.0, 1.0), Choice("c", ("a", "b"), ordered=False))] == [
        "width",
        "density",
        "option",
    ]
    assert Choice("rank", (2, 4, 8), ordered=True, role="rank", layers=("fc",)).layers == ("fc",)


@pytest.mark.parametrize("knob", SPACE.knobs)
def test_whole_and_least_are_values_of_the_knob(knob: Knob) -> None:
    knob.check(knob.whole)
    knob.check(knob.least)
    assert knob.whole != knob.least


def test_levels_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidInput, match="conv1"):
        SPACE.values_of([3, 0, 0])
    with pytest.raises(InvalidInput, match="must be 3 levels"):
        SPACE.values_of([0])
    with pytest.raises(InvalidInput, match="did you mean 'rank'"):
        SPACE["rnak"]
    assert SPACE["rank"].name == "rank"

"""Every strategy there is, through the contract."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from search.errors import InvalidInput
from search.strategies import load, names
from search.testing import StrategyContract


class TestRandom(StrategyContract):
    family_at = "search.strategies.random:STRATEGY"


class TestUniform(StrategyContract):
    family_at = "search.strategies.uniform:STRATEGY"


class TestGreedy(StrategyContract):
    family_at = "search.strategies.greedy:STRATEGY"


class TestBayesian(StrategyContract):
    family_at = "search.strategies.bayesian:STRATEGY"


class TestBisection(StrategyContract):
    family_at = "search.strategies.bisection:STRATEGY"


class TestTpe(StrategyContract):
    family_at = "search.strategies.tpe:STRATEGY"


class TestNsga2(StrategyContract):
    family_at = "search.strategies.nsga2:STRATEGY"


class TestHakd(StrategyContract):
    family_at = "search.strategies.hakd:STRATEGY"


class TestDdpg(StrategyContract):
    family_at = "search.strategies.ddpg:STRATEGY"
    overrides = {"hidden": 64}  # noqa: RUF012 - as the contract has it


class TestGenetic(StrategyContract):
    family_at = "search.strategies.genetic:STRATEGY"
    overrides: ClassVar[dict[str, Any]] = {"mask_population": 8, "mask_generations": 2, "generations": 4}


def test_no_strategy_is_left_out() -> None:
    tested = {cls.family_at for cls in StrategyContract.__subclasses__()}
    assert tested >= {f"search.strategies.{name}:STRATEGY" for name in names()}


@pytest.mark.parametrize("name", names())
def test_a_family_is_named_as_its_file(name: str) -> None:
    assert load(name).name == name


def test_an_unknown_strategy_is_told_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'greedy'"):
        load("greddy")

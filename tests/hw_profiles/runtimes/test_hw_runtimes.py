from __future__ import annotations

import pytest

from hw_profiles import runtimes
from hw_profiles.errors import InvalidInput
from hw_profiles.ops import TensorSpec, plain
from hw_profiles.runtimes import Runtime
from hw_profiles.runtimes.onnxruntime.engine import OnnxRuntime
from hw_profiles.runtimes.simulated.engine import SimulatedRuntime
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.tables.probe import LIMIT, Curves
from hw_profiles.testing import RuntimeContract


class TestOnnxRuntime(RuntimeContract):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return OnnxRuntime()


class TestSimulatedRuntime(RuntimeContract):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return SimulatedRuntime(seed=1)


def test_runtimes_are_found_by_file() -> None:
    assert {"onnxruntime", "simulated"} <= set(runtimes.names())
    for name in runtimes.names():
        assert runtimes.load(name).name == name


def test_an_unknown_runtime_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"runtime: must be one of .*onnxruntime.*'tensorrt'"):
        runtimes.load("tensorrt")


class _Learner(SimulatedRuntime):
    """Reads curves in a way of its own."""

    def learn(self, curves: Curves) -> KernelClasses:
        return KernelClasses(out_step=7)


def test_a_runtime_learns_its_own_way_and_one_that_is_not_here_the_common_way(monkeypatch: pytest.MonkeyPatch) -> None:
    stairs = {count: 5.0 + 10.0 * -(-count // 16) for count in range(1, LIMIT + 1)}
    curves = Curves(stairs, stairs)
    monkeypatch.setattr(runtimes, "load", lambda _name: _Learner())
    assert runtimes.learned("simulated", curves) == KernelClasses(out_step=7)
    assert runtimes.learned("of-a-phone", curves).out_step == 16


def test_rules_that_stand_in_for_those_of_a_runtime_are_told() -> None:
    assert not any(runtimes.assumed(name) for name in runtimes.names())
    assert "the runtime of-a-phone is not installed on the server" in runtimes.assumed("of-a-phone")


class _OneLayout(SimulatedRuntime):
    """Has only one layout."""

    def layout(self, spec: TensorSpec, made_by: str) -> str:
        return plain(spec, made_by)


def test_a_runtime_has_its_own_layouts_and_one_that_is_not_here_those_of_onnxruntime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = TensorSpec((1, 8, 4, 4)), "conv+relu"
    monkeypatch.setattr(runtimes, "load", lambda _name: _OneLayout())
    assert runtimes.layout_of("simulated")(*made) == "plain"
    assert runtimes.layout_of("of-a-phone")(*made) == OnnxRuntime().layout(*made) == "blocked"

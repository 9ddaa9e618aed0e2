from __future__ import annotations

import pytest

from hw_profiles import runtimes
from hw_profiles.errors import InvalidInput
from hw_profiles.runtimes import Runtime
from hw_profiles.runtimes.onnxruntime.engine import OnnxRuntime
from hw_profiles.runtimes.simulated.engine import SimulatedRuntime
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
    with pytest.raises(InvalidInput, match=r"runtime: one of .*onnxruntime.*'tensorrt'"):
        runtimes.load("tensorrt")

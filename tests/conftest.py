"""What all tests share: the folder of real data and trained networks, and what a skip means."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

hypothesis.settings.register_profile("netlathe", deadline=None)  # a wall time says nothing on a busy machine
hypothesis.settings.load_profile("netlathe")

ROOT = Path(__file__).parent.parent
# Servers that tests start compute in child processes of their own, unless a test is about Ray.
os.environ["NETLATHE_EXECUTOR"] = "local"
SHARED = Path(os.environ.get("NETLATHE_SHARED", ROOT.parent / "shared"))
ALL = os.environ.get("NETLATHE_TEST_ALL", "0") not in ("", "0")
Shared = Callable[[str], Path]
WHOLE_JOBS = frozenset(
    {"test_whole_job.py", "test_toy_task.py", "test_toy_metric.py", "test_toy_runtime.py", "test_readme_runs.py"}
)


@pytest.fixture(scope="session")
def shared() -> Shared:
    """A file of the shared data by its path there. Absent altogether: skipped; given but incomplete: a failure."""

    def find(name: str) -> Path:
        if not SHARED.exists() and "NETLATHE_SHARED" not in os.environ:
            pytest.skip(f"needs real data: {SHARED} is not here")
        path = SHARED / "data" / name
        assert path.exists(), f"{path} is missing from the shared data"
        return path

    return find


@pytest.fixture(scope="session", autouse=True)
def _denormals() -> None:
    """Create a plain onnxruntime session first, because the first session of a process decides about its main thread.

    The timing engine's sessions flush denormals to zero, and Hypothesis refuses to draw floats in such a thread.
    """
    import onnxruntime
    from onnx import helper

    value = helper.make_tensor_value_info("x", 1, [1])
    made = helper.make_tensor_value_info("y", 1, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "first", [value], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the whole jobs: a file that takes minutes and begins last would leave the other process idle."""
    items.sort(key=lambda item: item.path.name not in WHOLE_JOBS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    """`make test-all` proves everything: a program that is missing there is a failure, not a skip."""
    report = yield
    if ALL and report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2])
        if "baseline" not in reason and "needs real data" not in reason:
            report.outcome = "failed"
            report.longrepr = f"make test-all needs what this test skips for: {reason}"
    return report

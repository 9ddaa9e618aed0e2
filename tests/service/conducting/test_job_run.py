"""What a run's ending means for its job."""

from __future__ import annotations

from typing import Any, cast

import pytest
from patience import PATIENCE_S

from compress.errors import Disagreement, TrainingDiverged, Unsupported
from hw_profiles.errors import ExtraMissing
from search.errors import Infeasible
from service.conducting.run import Run, of_error
from service.conducting.store_ports import StorePorts
from workers.errors import ClusterDown, Diverged, NoRoom, PoolBroken
from workers.plan import JobPlan
from workers.ports import Outcome, Ports


def test_a_cluster_that_others_use_is_waited_for_and_no_failure() -> None:
    ending = of_error(NoRoom("no worker with 1 CPUs came up within 120 s"))
    assert ending is not None
    assert (ending.state, ending.machine_failure) == ("queued", None)
    assert "this job waits" in ending.lines[0][1]


@pytest.mark.parametrize("error", [PoolBroken("gone"), ClusterDown("gone"), MemoryError()])
def test_a_failure_of_the_machine_is_counted(error: Exception) -> None:
    ending = of_error(error)
    assert ending is not None
    assert ending.state == "queued"
    assert ending.machine_failure


def test_a_library_that_exits_the_run_is_a_failure_of_the_machine() -> None:
    def exiting(plan: JobPlan, ports: Ports) -> Outcome:
        raise SystemExit(0)

    nobody = cast(Any, None)
    run = Run(exiting, cast(JobPlan, type("Plan", (), {"job_id": "j"})()), cast(StorePorts, nobody)).start()
    assert run.done.wait(PATIENCE_S)
    assert run.ending is not None
    assert run.ending.state == "queued"
    assert run.ending.machine_failure is not None


def caused(error: Exception, by: Exception) -> Exception:
    """`error`, raised from another."""
    error.__cause__ = by
    return error


class Fail(Exception):
    """As onnxruntime names its errors."""


Fail.__module__ = "onnxruntime.capi.onnxruntime_pybind11_state"


@pytest.mark.parametrize(
    ("error", "code", "field", "says"),
    [
        (Infeasible({"w": 4}, {"macs": 5.0}, 0.25), "infeasible", "limits", "candidate exceeds them by 25.0%"),
        (Unsupported("Pad that mirrors channels"), "unsupported", "model", "mirrors channels"),
        (Disagreement("conv7", "Conv", 0.5, 1e-4), "invalid", "file", "'conv7'"),
        (TrainingDiverged(2, 7, float("nan")), "diverged", "training", "epoch 2"),
        (Diverged("the network's outputs are not finite"), "diverged", "training", "not finite"),
        (ExtraMissing("runtime ncnn", "ncnn"), "missing_extra", None, "runtime ncnn needs"),
        (Fail("[ONNXRuntimeError] /srv/x.onnx"), "engine_failed", "model", "onnxruntime could not run"),
    ],
)
def test_a_known_reason_is_told_with_the_phase_it_came_up_in(
    error: Exception, code: str, field: str | None, says: str
) -> None:
    ending = of_error(error, "statistics")
    assert ending is not None
    failure = ending.values["failure"]
    assert (failure["code"], failure["step"], failure["field"]) == (code, "statistics", field)
    assert says in failure["detail"]
    assert "/srv" not in failure["detail"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "out of memory",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory"),
        (Fail("Failed to allocate memory for requested buffer of size 7"), "out of memory"),
        (caused(RuntimeError("a step broke"), by=MemoryError()), "out of memory"),
        (ValueError("IoError(Os { code: 28, message: No space left on device })"), "no space left on device"),
        (caused(RuntimeError("a step broke"), by=OSError(28, "No space left on device")), "no space left on device"),
    ],
)
def test_a_library_out_of_memory_or_disk_is_a_failure_of_the_machine(error: Exception, reason: str) -> None:
    ending = of_error(error, "train")
    assert ending is not None
    assert (ending.state, ending.machine_failure) == ("queued", reason)


def test_what_nobody_expected_is_a_fault_of_netlathe_with_its_id_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    ending = of_error(KeyError("a secret"), "search")
    assert ending is not None
    failure = ending.values["failure"]
    assert (failure["code"], failure["step"], failure["field"]) == ("internal", "search", None)
    assert failure["detail"].startswith("a fault of Netlathe")
    assert "secret" not in failure["detail"]
    number = failure["detail"].rsplit(" ", 1)[1]
    assert number in caplog.text
    assert "KeyError" in caplog.text

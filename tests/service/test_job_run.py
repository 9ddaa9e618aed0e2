"""What a run's ending means for its job."""

from __future__ import annotations

from typing import Any, cast

import pytest

from service.job_ports import StorePorts
from service.job_run import Run, of_error
from workers.errors import ClusterDown, NoRoom, PoolBroken
from workers.plan import JobPlan
from workers.ports import Outcome, Ports


def test_a_cluster_that_others_use_is_waited_for_and_no_failure() -> None:
    ending = of_error(NoRoom("no worker with 1 CPUs came up within 120 s"))
    assert ending is not None
    assert (ending.state, ending.machine_failure) == ("queued", None)
    assert "it waits" in ending.lines[0][1]


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
    assert run.done.wait(30)
    assert run.ending is not None
    assert run.ending.state == "queued"
    assert run.ending.machine_failure is not None

"""Fuser: devices tell what they fuse, and nothing is computed while they are asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest
from patience import PATIENCE_S

from compress.network import Network
from hw_profiles.host_lock import HostLock
from workers.errors import MeasurementFailed
from workers.plan import JobPlan
from workers.ports import FusedSets
from workers.running.context import Context
from workers.running.fuser import Fuser
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]


def fuser(job: Job, lock: HostLock, answer: Callable[[Sequence[bytes]], Sequence[FusedSets]]) -> Fuser:
    """A fuser of the plan's device, which answers like this."""
    plan, ports = job()

    class Asked(MemoryPorts):
        def fused(self, device_id: str, models: Sequence[bytes], timeout_s: float) -> Sequence[FusedSets]:
            assert timeout_s == plan.effort.device_wait_s
            return answer(models)

    asked = Asked(ports.work_dir, ports.runtime, ports.devices)
    return Fuser(Context(plan, asked, asked.recorded(), lock), [target.device_id for target in plan.targets])


def test_a_device_that_wants_the_machine_for_itself_gets_it_while_it_is_asked(
    job: Job, lock: HostLock, trained: Network
) -> None:
    def answer(models: Sequence[bytes]) -> Sequence[FusedSets]:
        timed = threading.Thread(target=alone, daemon=True)
        timed.start()
        timed.join(PATIENCE_S)
        assert not timed.is_alive(), "the machine is not let go"
        return [() for _ in models]

    def alone() -> None:
        with lock.exclusive():
            pass

    asking = fuser(job, lock, answer)
    assert asking.runtimes == ("simulated",)
    with asking.computing():
        assert asking("simulated", [trained]) == [()]
    assert asking("simulated", [trained]) == [()], "also while nothing is computed"


@pytest.mark.parametrize("twice", [False, True])
def test_nodes_that_are_not_there_or_in_two_kernels_are_refused(
    job: Job, lock: HostLock, trained: Network, twice: bool
) -> None:
    first = trained.nodes[0].name
    sets = (frozenset({first}), frozenset({first})) if twice else (frozenset({"elsewhere"}),)
    asking = fuser(job, lock, lambda models: [sets for _ in models])
    with pytest.raises(MeasurementFailed, match=first if twice else "elsewhere"):
        asking("simulated", [trained])

"""Fuser: devices tell what they fuse, and nothing is computed while they are asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from patience import PATIENCE_S

from compress.network import Network
from hw_profiles.host_lock import HostLock
from hw_profiles.runtimes import load as load_runtime
from hw_profiles.timing.protocol import Failure
from workers.errors import MeasurementFailed, NetworkRefused
from workers.plan import JobPlan
from workers.ports import FusedSets
from workers.running.context import Context
from workers.running.fuser import Fuser
from workers.running.memory_ports import MemoryPorts

Job = Callable[..., tuple[JobPlan, MemoryPorts]]


def fuser(job: Job, lock: HostLock, answer: Callable[[Sequence[bytes]], Sequence[FusedSets | Failure]]) -> Fuser:
    """A fuser of the plan's device, which answers like this."""
    plan, ports = job()

    class Asked(MemoryPorts):
        def fused(self, device_id: str, models: Sequence[bytes], timeout_s: float) -> Sequence[FusedSets | Failure]:
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


def test_a_network_that_the_device_cannot_load_is_named(job: Job, lock: HostLock, trained: Network) -> None:
    asking = fuser(job, lock, lambda models: [(), Failure("it", "no kernel for Odd")])
    other = replace(trained)
    with pytest.raises(NetworkRefused, match="no kernel for Odd") as refusal:
        asking("simulated", [trained, other])
    assert refusal.value.network is other


def test_the_casts_of_weights_stored_as_float16_are_no_nodes_of_the_network(
    job: Job, lock: HostLock, trained: Network
) -> None:
    weights = frozenset(name for name in trained.constants if name.endswith(".weight"))
    given = replace(trained, halves=weights).rounded()

    def answer(models: Sequence[bytes]) -> Sequence[FusedSets]:
        return [load_runtime("simulated").fused(model) for model in models]

    (told,) = fuser(job, lock, answer)("simulated", [given])
    named = {name for names in told for name in names}
    assert named == {node.name for node in given.nodes}
    assert all(told), "a kernel of Casts alone is none"

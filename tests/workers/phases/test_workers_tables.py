"""Tables of a run: probes, rows asked for, and rows that come while a search goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from hw_profiles.host_lock import HostLock
from hw_profiles.ops import Op
from hw_profiles.tables.table import LatencyTable
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample
from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from search.problem import Objective, Problem
from workers.errors import DeviceOffline, LeaseLost
from workers.job import run
from workers.phases.profile import profile
from workers.plan import Effort, JobPlan
from workers.problem.builder import Wanted
from workers.profiling.timed_device import Profile
from workers.progress import Evaluated, Learned, Message
from workers.running.context import Context
from workers.running.device_requests import fill_most_uncertain, filled, learned_classes
from workers.running.inputs import Inputs
from workers.running.memory_ports import MemoryPorts
from workers.search.table_watch import LOOK_S, TableWatch

DEVICE = "dev_1"
Job = Callable[..., tuple[JobPlan, MemoryPorts]]


@dataclass
class HandClock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def context_of(plan: JobPlan, ports: MemoryPorts, lock: HostLock, clock: HandClock) -> Context:
    return Context(plan, ports, ports.recorded(), lock, clock)


def test_alignment_is_learned_once_and_told(job: Job, lock: HostLock, clock: HandClock) -> None:
    plan, ports = job(known=False)
    context = context_of(plan, ports, lock, clock)
    classes = learned_classes(context, DEVICE)
    assert (classes.out_step, classes.in_modulus) == (16, 4)
    rows = len(ports.table(DEVICE).rows)
    assert learned_classes(context, DEVICE) == classes
    assert len(ports.table(DEVICE).rows) == rows
    assert sum(isinstance(m, Learned) for m in ports.messages) == 1


def test_a_job_on_a_runtime_that_the_server_lacks_warns_once_of_common_rules(job: Job, lock: HostLock) -> None:
    plan, ports = job()
    found_profile(Context(plan, ports, ports.recorded(), lock))
    assert not ports.warnings
    (table,) = ports.tables.values()
    lacking = replace(table, device=replace(table.device, runtime="of-a-phone"))
    ports = MemoryPorts(ports.work_dir, ports.runtime, {DEVICE: lacking.device}, tables={DEVICE: lacking})
    for _ in range(2):
        found_profile(Context(plan, ports, ports.recorded(), lock))
    (warning,) = ports.warnings
    assert f"{plan.targets[0].device_name}: the runtime of-a-phone is not installed on the server" in warning


def test_the_most_uncertain_times_frequency_comes_first(
    job: Job, lock: HostLock, clock: HandClock, known_table: LatencyTable
) -> None:
    plan, ports = job()
    context = context_of(plan, ports, lock, clock)
    ops = found_profile(context).builder.ops("simulated")
    missing = ops[:6]
    ports._tables[DEVICE] = without(ports.table(DEVICE), missing)
    asked: list[str] = []
    honest = ports.fill

    def fill(device_id: str, ops: Sequence[Op], priority: Sequence[float]) -> None:
        assert list(priority) == sorted(priority, reverse=True)
        asked.extend(op.key for op in ops)
        honest(device_id, ops, priority)

    ports.fill = fill  # type: ignore[method-assign]  # looked at on its way
    # As if the phase had not been here before.
    context = Context(replace(plan, job_id="job_2"), ports, replace(ports.recorded(), checkpoints={}), lock, clock)
    often = {op.key: (100.0 if op is missing[3] else 1.0) for op in ops}
    fill_most_uncertain(context, DEVICE, ops, often, most=4, first={missing[5].key})
    assert len(asked) == 4
    assert asked[:2] == [missing[5].key, missing[3].key]
    assert set(asked) <= {op.key for op in missing}


def test_rows_that_fail_are_said_and_predicted(job: Job, lock: HostLock, clock: HandClock) -> None:
    plan, ports = job()
    context = context_of(plan, ports, lock, clock)
    op = found_profile(context).builder.ops("simulated")[0]
    ports._tables[DEVICE] = without(ports.table(DEVICE), [op])

    def time(models: Mapping[str, bytes], *rest: object) -> Mapping[str, Sample | Failure]:
        return {key: Failure(key, "this kernel crashes the runtime") for key in models}

    ports.runtime.time = time  # type: ignore[method-assign, assignment]  # a device whose runtime crashes on it
    table = filled(context, DEVICE, [op], [1.0])
    assert op.key not in table.rows
    assert any(
        line.startswith(f"{plan.targets[0].device_name}: 1 of 1 kernels could not be timed") for line in ports.lines
    )


def test_a_device_that_never_answers_does_not_block_for_ever(job: Job, lock: HostLock, clock: HandClock) -> None:
    plan, ports = job()
    plan = replace(plan, effort=replace(plan.effort, device_wait_s=60.0))
    context = context_of(plan, ports, lock, clock)
    op = found_profile(context).builder.ops("simulated")[0]
    ports._tables[DEVICE] = without(ports.table(DEVICE), [op])

    def wait(device_id: str, timeout_s: float) -> int:
        clock.now_s += timeout_s
        return 1

    ports.wait = wait  # type: ignore[method-assign]  # nobody times anything
    filled(context, DEVICE, [op], [1.0])
    assert clock.now_s == pytest.approx(60.0, abs=2.0)


@pytest.mark.parametrize("error", [DeviceOffline(DEVICE, "away for an hour"), LeaseLost("epoch 2 is over")])
def test_what_is_not_the_jobs_fault_goes_through(error: Exception, job: Job, lock: HostLock) -> None:
    plan, ports = job()

    def measure(device_id: str, networks: object, protocol: BurstProtocol) -> Mapping[str, Sample]:
        raise error

    ports.measure = measure  # type: ignore[method-assign]  # the world outside has changed
    with pytest.raises(type(error)):
        run(plan, ports, lock)


def test_a_run_that_was_fenced_off_stops_at_its_next_word(job: Job, lock: HostLock) -> None:
    plan, ports = job()

    def observe(message: Message) -> None:
        if isinstance(message, Evaluated):
            raise LeaseLost("epoch 2 is over")

    ports.observe = observe
    with pytest.raises(LeaseLost):
        run(plan, ports, lock)
    assert not any(isinstance(m, Evaluated) for m in ports.messages)


# rows that come while a search goes on


def without(table: LatencyTable, ops: Sequence[Op]) -> LatencyTable:
    gone = {op.key for op in ops}
    return replace(table, rows={key: row for key, row in table.rows.items() if key not in gone})


def found_profile(context: Context) -> Profile:
    return profile(context, Inputs.open(context))


def test_a_grown_table_gives_a_new_problem(job: Job, lock: HostLock, clock: HandClock) -> None:
    plan, ports = job()
    context = context_of(plan, ports, lock, clock)
    found = found_profile(context)
    values = found.builder.space.sample(np.random.default_rng(0))
    missing = found.builder.ops_at(values, "simulated")[:2]
    ports._tables[DEVICE] = without(ports.table(DEVICE), missing)
    found = replace(found, devices=tuple(t.with_table(ports.table(DEVICE)) for t in found.devices))

    def make(newest: Profile) -> Problem:
        wanted = Wanted((Objective("accuracy", "max"),), (), newest.original, "net", 4, {})
        return newest.builder.problem([timed.device for timed in newest.devices], wanted)

    watch = TableWatch(context, found, make)
    before = dict(watch.epochs())
    watch.note(Evaluation(Candidate("a", values), Status.COMPLETED, {"accuracy": 0.5}))
    watch.note(Evaluation(Candidate("b", values), Status.FAILED, reason="nan"))
    assert watch.refresh() is None  # too early to look
    clock.now_s += LOOK_S
    assert watch.refresh() is None  # asked now, nothing has come yet
    assert set(ports._queues[DEVICE]) == {op.key for op in missing}
    while ports.wait(DEVICE, 1.0):
        pass
    clock.now_s += LOOK_S
    newer = watch.refresh()
    assert newer is not None
    assert watch.epochs()[DEVICE] > before[DEVICE]
    entries = watch.profile.devices[0].table.entries(missing)
    assert [entry.source for entry in entries] == ["measured", "measured"]
    clock.now_s += LOOK_S
    assert watch.refresh() is None  # nothing new since
    assert not ports._queues[DEVICE]


def test_what_was_asked_once_is_not_asked_again(job: Job, lock: HostLock) -> None:
    """A restart works with the rows that the first run got."""
    plan, ports = job(effort=Effort(renormalise_images=64, accuracy_images=100, calibration_networks=4, rows=5))
    ports._tables[DEVICE] = LatencyTable(ports.table(DEVICE).device)
    run(plan, ports, lock)
    rows = len(ports.table(DEVICE).rows)
    run(plan, ports, lock)
    assert len(ports.table(DEVICE).rows) == rows

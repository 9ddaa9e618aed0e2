"""The conductor: runs jobs to every end, survives what may happen to it, and never writes what is not its own."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from job_worlds import EVALUATIONS, candidate, lines, package, search, until
from patience import PATIENCE_S
from service_world import HandClock, Uploaded, queue
from sqlalchemy.exc import OperationalError

from service.conducting.conductor import GIVEN_BACK, Conductor, RunJob, crash_rest_s
from service.files.blobs import Blobs
from service.jobs.warnings import JobWarning, texts_of
from service.settings import Settings
from service.store import Store, events
from service.store.jobs import asks, checkpoints, conductors, evaluations, job_leases, job_states, jobs
from service.store.jobs.jobs import Job
from workers.errors import DeviceOffline, InvalidInput, JobFailed, LeaseLost, MeasurementFailed, PoolBroken
from workers.plan import JobPlan
from workers.ports import Outcome, Ports, Recorded
from workers.progress import Asked, Logged, Phased
from workers.running.context import Halted


@contextmanager
def conducting(store: Store, settings: Settings, run: RunJob) -> Iterator[Conductor]:
    """A conductor at work in a thread; it has ended after the block."""
    conductor = Conductor(settings, store, Blobs(settings.data_dir), threading.Event())
    thread = threading.Thread(target=conductor.work, args=(lambda: run,))
    thread.start()
    try:
        yield conductor
    finally:
        conductor.stopping.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


def job_of(store: Store, job_id: str) -> Job:
    with store.read() as tx:
        return jobs.get(tx, job_id)


def log_of(store: Store, job_id: str) -> list[str]:
    with store.read() as tx:
        return [e.data["text"] for e in events.of_topic(tx, jobs.topic(job_id), ("log.line",), None, 100)]


def raising(error: Exception) -> RunJob:
    def run(plan: JobPlan, ports: Ports) -> Outcome:
        raise error

    return run


def test_a_job_runs_to_its_end_and_leaves_what_it_made(
    client: TestClient, store: Store, settings: Settings, queued: str
) -> None:
    with conducting(store, settings, package):
        until(lambda: job_of(store, queued).state == "succeeded")
    job = client.get(f"/api/v1/jobs/{queued}").json()
    assert (job["verdict"], job["phase"], job["progress"]["fraction"]) == ("missed", "package", 1.0)
    evaluation = client.get(f"/api/v1/jobs/{queued}/evaluations").json()["items"][0]
    assert job["best"]["evaluation_id"] == evaluation["id"]
    assert evaluation["on_front"] is True
    assert client.get(f"/api/v1/jobs/{queued}/log").json()["items"][0]["text"] == "Done with <b>everything</b>."
    artifact = client.get(f"/api/v1/jobs/{queued}/artifacts").json()["items"][0]
    content = client.get(f"/api/v1/artifacts/{artifact['id']}/content")
    assert content.json() == {"verdict": "met"}
    assert content.headers["etag"] == f'"{artifact["sha256"]}"'
    assert content.headers["content-disposition"].startswith("attachment")
    again = client.get(
        f"/api/v1/artifacts/{artifact['id']}/content", headers={"If-None-Match": content.headers["etag"]}
    )
    assert again.status_code == 304
    head = client.head(f"/api/v1/artifacts/{artifact['id']}/content")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == content.headers
    with store.read() as tx:
        assert checkpoints.of_job(tx, queued) == {}
    assert not (settings.data_dir / "jobs" / queued).exists()


def test_jobs_run_one_after_the_other_oldest_first(
    store: Store, settings: Settings, uploaded: Uploaded, clock: HandClock
) -> None:
    ids = []
    for _ in range(3):
        ids.append(queue(store, uploaded))
        clock.advance(1)
    begun: list[str] = []

    def run(plan: JobPlan, ports: Ports) -> Outcome:
        begun.append(plan.job_id)
        return Outcome("finished", "met", "")

    with conducting(store, settings, run):
        until(lambda: all(job_of(store, job_id).state == "succeeded" for job_id in ids))
    assert begun == ids


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (JobFailed("nan_loss", "train", "it diverged", "training"), ("nan_loss", "train", "training")),
        (DeviceOffline("dev_1", "gone"), ("device_offline", "device", "targets")),
        (MeasurementFailed("dev_1", "crashed"), ("measurement_failed", "device", "targets")),
        (InvalidInput("limits.max_macs", 3, "is too small"), ("invalid", "run", "limits.max_macs")),
        (RuntimeError("a secret path"), ("internal", "run", None)),
    ],
)
def test_what_a_run_dies_of_is_told(
    store: Store, settings: Settings, queued: str, error: Exception, failure: tuple[Any, ...]
) -> None:
    with conducting(store, settings, raising(error)):
        until(lambda: job_of(store, queued).state == "failed")
    found = job_of(store, queued).failure
    assert found is not None
    assert (found["code"], found["step"], found["field"]) == failure
    assert "a secret path" not in found["detail"]
    assert log_of(store, queued) == [found["detail"]]


def test_the_phase_in_which_a_run_dies_is_told(store: Store, settings: Settings, queued: str) -> None:
    def run(plan: JobPlan, ports: Ports) -> Outcome:
        ports.emit(Phased("statistics", 0, 3))
        raise InvalidInput("limits.max_macs", 3, "is too small")

    with conducting(store, settings, run):
        until(lambda: job_of(store, queued).state == "failed")
    assert (job_of(store, queued).failure or {})["step"] == "statistics"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            PoolBroken("OSError: [Errno 28] No space left on device: '/srv/data/x'"),
            "no evaluator starts (OSError: [Errno 28] No space left on device)",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "/srv/data/x"), "no space left on device"),
        (OSError("odd"), "OSError"),
        (MemoryError(), "out of memory"),
        (
            OperationalError("INSERT", None, sqlite3.OperationalError("database or disk is full")),
            "database or disk is full",
        ),
        (OperationalError("INSERT", None, Exception("server at 192.0.2.1 is away")), "OperationalError"),
    ],
)
def test_a_failure_of_the_machine_queues_the_job_again_but_not_for_ever(
    store: Store, settings: Settings, queued: str, error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.conducting.conductor.CRASH_REST_S", 0.0)
    runs: list[int] = []

    def run(plan: JobPlan, ports: Ports) -> Outcome:
        runs.append(1)
        if len(runs) == 1:
            raise error
        return Outcome("finished", "met", "")

    with conducting(store, settings, run):
        until(lambda: job_of(store, queued).state == "succeeded")
    assert len(runs) == 2
    assert job_of(store, queued).crashes == 1
    assert log_of(store, queued)[0] == f"The machine failed, not the job; the job is queued again: {reason}"


def test_a_machine_that_fails_again_and_again_fails_the_job(
    store: Store, settings: Settings, queued: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.conducting.conductor.CRASH_REST_S", 0.0)
    full = OSError(errno.ENOSPC, "No space left on device")
    with conducting(store, settings.model_copy(update={"max_crashes": 2}), raising(full)):
        until(lambda: job_of(store, queued).state == "failed")
    failure = job_of(store, queued).failure
    assert failure is not None
    assert (failure["code"], job_of(store, queued).crashes) == ("crashed", 3)
    assert failure["detail"].endswith(
        "failed 3 times without a new evaluation in between; the last time: no space left on device"
    )


def test_the_rests_between_attempts_grow() -> None:
    assert [crash_rest_s(crashes) for crashes in range(1, 8)] == [5, 10, 20, 40, 80, 120, 120]
    assert crash_rest_s(10**6) == 120


def test_a_conductor_that_rests_is_seen(
    store: Store, settings: Settings, queued: str, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.conducting.conductor.CRASH_REST_S", 120.0)
    quick = settings.model_copy(update={"renew_s": 0.01})
    with conducting(store, quick, raising(MemoryError())):
        until(lambda: job_of(store, queued).crashes == 1)
        clock.advance(1000)
        until(lambda: seen(store))
    assert job_of(store, queued).crashes == 1


def seen(store: Store) -> bool:
    with store.read() as tx:
        return len(conductors.alive(tx)) == 1


def test_what_a_mistake_of_ours_left_behind_is_kept(store: Store, settings: Settings, queued: str) -> None:
    def run(plan: JobPlan, ports: Ports) -> Outcome:
        package(plan, ports)
        raise RuntimeError("a mistake")

    with conducting(store, settings, run):
        until(lambda: job_of(store, queued).state == "failed")
    with store.read() as tx:
        assert set(checkpoints.of_job(tx, queued)) == {"state"}
    assert (settings.data_dir / "jobs" / queued / "state.json").exists()


@pytest.mark.parametrize(("verb", "state"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_running_job_is_stopped(
    client: TestClient, store: Store, settings: Settings, queued: str, verb: str, state: str
) -> None:
    def run(plan: JobPlan, ports: Ports) -> Outcome:
        until(lambda: ports.signal() != "continue")
        raise Halted({"cancel": "cancelled", "pause": "paused"}[ports.signal()])

    with conducting(store, settings, run):
        until(lambda: job_of(store, queued).state == "running")
        assert client.post(f"/api/v1/jobs/{queued}/{verb}").json()["signal"] == verb
        until(lambda: job_of(store, queued).state == state)


def test_a_paused_job_goes_on_where_it_was(client: TestClient, store: Store, settings: Settings, queued: str) -> None:
    ran = settings.data_dir / "jobs" / f"{queued}.ran"

    def slow(plan: JobPlan, ports: Ports) -> Outcome:
        return search(plan, ports, pause_s=0.02)

    with conducting(store, settings, slow):
        until(lambda: len(lines(ran)) >= 3)
        client.post(f"/api/v1/jobs/{queued}/pause")
        until(lambda: job_of(store, queued).state == "paused")
        client.post(f"/api/v1/jobs/{queued}/resume")
        until(lambda: job_of(store, queued).state == "succeeded")
    assert len(lines(ran)) == EVALUATIONS


def test_a_conductor_that_ends_gives_its_job_back(store: Store, settings: Settings, queued: str) -> None:
    def run(plan: JobPlan, ports: Ports) -> Outcome:
        until(lambda: ports.signal() != "continue")
        return Outcome("paused", None, "paused by the user")

    with conducting(store, settings, run):
        until(lambda: job_of(store, queued).state == "running")
    job = job_of(store, queued)
    assert (job.state, job.lease_owner, job.crashes) == ("queued", None, 0)
    assert log_of(store, queued) == [GIVEN_BACK[0][1]], "nobody paused it"
    with store.read() as tx:
        assert conductors.alive(tx) == []


def test_a_run_that_does_not_listen_is_given_up_and_fenced_off(
    store: Store, settings: Settings, queued: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.conducting.conductor.GRACE_S", 0.1)
    go, refused = threading.Event(), threading.Event()

    def run(plan: JobPlan, ports: Ports) -> Outcome:
        go.wait(PATIENCE_S)
        try:
            ports.emit(Logged("info", "too late"))
        except LeaseLost:
            refused.set()
            raise
        return Outcome("finished", "met", "")

    with conducting(store, settings, run):
        until(lambda: job_of(store, queued).state == "running")
    assert job_of(store, queued).state == "queued"
    go.set()
    assert refused.wait(PATIENCE_S)
    assert log_of(store, queued) == [GIVEN_BACK[0][1]]


def test_a_conductor_that_lost_its_job_stops_and_takes_the_next(
    store: Store, settings: Settings, uploaded: Uploaded, clock: HandClock
) -> None:
    quick = settings.model_copy(update={"renew_s": 0.05})
    lost, other = queue(store, uploaded), threading.Event()

    def run(plan: JobPlan, ports: Ports) -> Outcome:
        while plan.job_id == lost:
            ports.signal()
            other.wait(0.01)
        return Outcome("finished", "met", "")

    with conducting(store, quick, run):
        until(lambda: job_of(store, lost).state == "running")
        with store.begin() as tx:  # as if this conductor had slept through its lease
            tx.session.get_one(Job, lost).lease_until = tx.now
            assert job_leases.claim(tx, "another", 3600, 5) is not None
        second = queue(store, uploaded)
        until(lambda: job_of(store, second).state == "succeeded")
    assert (job_of(store, lost).lease_owner, job_of(store, lost).state) == ("another", "running")


def test_kill_9_loses_no_evaluation_and_runs_none_twice(
    settings: Settings, migrated_file: Path, uploaded: Uploaded, store: Store
) -> None:
    here = Path(__file__).parents[1]
    job_id = _queue_by_the_real_clock(settings, store, uploaded)
    ran = settings.data_dir / "jobs" / f"{job_id}.ran"
    command = [sys.executable, str(here / "conductor_process.py"), str(settings.data_dir)]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=here.parent.parent, env=_environment(here))

    first = start()
    try:
        until(lambda: len(lines(ran)) >= 5)
    finally:
        first.kill()
        first.wait()
    with store.read() as tx:
        before = [row.candidate_id for row in evaluations.of_job(tx, job_id)]
    second = start()
    try:
        until(lambda: job_of(store, job_id).state == "succeeded")
    finally:
        second.kill()
        second.wait()
    with store.read() as tx:
        rows = evaluations.of_job(tx, job_id)
    assert [row.candidate_id for row in rows[: len(before)]] == before
    assert [row.number for row in rows] == list(range(1, EVALUATIONS + 1))
    assert len({row.candidate_id for row in rows}) == EVALUATIONS
    runs = [line.split()[0] for line in lines(ran)]
    assert all(runs.count(candidate_id) == 1 for candidate_id in before)
    assert len(runs) <= EVALUATIONS + 1, "only the one in flight runs again"
    job = job_of(store, job_id)
    assert (job.epoch, job.crashes, job.verdict) == (2, 0, "met")


def test_an_ask_that_was_open_at_a_takeover_is_known_to_the_next_run(
    store: Store, settings: Settings, queued: str, clock: HandClock
) -> None:
    for owner in ("first", "second"):
        with store.begin() as tx:
            held = job_leases.claim(tx, owner, 30, 5)
            assert held is not None
            if owner == "first":
                asks.add(tx, held, Asked("random", candidate(0)))
        clock.advance(31)
    seen: list[Recorded] = []

    def run(plan: JobPlan, ports: Ports) -> Outcome:
        seen.append(ports.recorded())
        return Outcome("finished", "met", "")

    with conducting(store, settings, run):
        until(lambda: job_of(store, queued).state == "succeeded")
    assert seen[0].takeovers == {"c0": 1}


def test_a_candidate_cannot_take_the_conductor_with_it() -> None:
    assert Settings().job_processes >= 1


def _queue_by_the_real_clock(settings: Settings, store: Store, uploaded: Uploaded) -> str:
    from service.store.engine import database_now

    store.clock = database_now
    return queue(store, uploaded)


def _environment(here: Path) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": f"{here}:{here.parent}:{here.parent.parent}"}


def test_the_front_is_told_when_it_changes(store: Store, settings: Settings, queued: str) -> None:
    with conducting(store, settings, search):
        until(lambda: job_of(store, queued).state == "succeeded")
    with store.read() as tx:
        told = events.of_topic(tx, jobs.topic(queued), ("front.changed", "evaluation.added"), None, 1000)
        rows = evaluations.of_job(tx, queued)
    assert len([event for event in told if event.type == "evaluation.added"]) == EVALUATIONS
    # Each one is less accurate and smaller than the one before: all are on the front in the end.
    assert told[-1].type == "front.changed"
    assert told[-1].data["front"] == sorted(row.id for row in rows)


def test_a_verdict_answers_the_warnings_that_asked_for_it(store: Store, settings: Settings, queued: str) -> None:
    asked = JobWarning("device pi is offline: the job waits for it", until_verdict=True)
    lasting = JobWarning("the original is at chance: a sentence may end in: the job waits for it")
    with store.begin() as tx:
        tx.session.get_one(Job, queued).warnings = [asked.to_json(), lasting.to_json()]
    with conducting(store, settings, lambda plan, ports: Outcome("finished", "met", "")):
        until(lambda: job_of(store, queued).state == "succeeded")
    assert texts_of(job_of(store, queued).warnings) == [lasting.text]


def test_cancel_of_an_end_that_races_is_one_end(store: Store, settings: Settings, uploaded: Uploaded) -> None:
    for _ in range(5):
        job_id = queue(store, uploaded)
        with conducting(store, settings, lambda plan, ports: Outcome("finished", "met", "")):
            until(lambda job_id=job_id: job_of(store, job_id).state != "queued")  # type: ignore[misc]  # a default
            with store.begin() as tx:
                job_states.cancel(tx, jobs.get(tx, job_id))
            until(lambda job_id=job_id: job_of(store, job_id).state in job_states.FINAL)  # type: ignore[misc]
        with store.read() as tx:
            told = events.of_topic(tx, jobs.topic(job_id), ("job.state",), None, 100)
        assert sum(event.data["state"] in job_states.FINAL for event in told) == 1

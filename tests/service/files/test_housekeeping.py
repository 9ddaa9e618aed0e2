"""Housekeeping: what ended jobs and measurements leave behind goes, after a while; nothing else does."""

from __future__ import annotations

from pathlib import PurePosixPath

from service_world import HandClock, Uploaded, queue
from sqlalchemy import select

from hw_profiles.timing.protocol import BurstProtocol
from service.files.blobs import Blobs
from service.files.housekeeping import KEEP_S, Housekeeping
from service.settings import Settings
from service.store import Store
from service.store import blobs as rows
from service.store.devices import measurements
from service.store.devices.measurements import MeasuredNetwork
from service.store.jobs import checkpoints, job_leases


def test_folders_of_jobs_that_ended_or_are_gone_are_removed(
    store: Store, settings: Settings, uploaded: Uploaded, clock: HandClock
) -> None:
    jobs = settings.data_dir / "jobs"
    waiting, ended = queue(store, uploaded), queue(store, uploaded)
    with store.begin() as tx:
        first, second = (job_leases.claim(tx, "c", 3600, 5) for _ in range(2))
        assert first is not None
        assert second is not None
        held = first if first.job_id == ended else second
        checkpoints.keep(tx, held, "state", PurePosixPath("state.json"))
        job_leases.end(tx, held, "failed", failure={"code": "internal"})
    for name in (waiting, ended, "job_deleted"):
        (jobs / name).mkdir(parents=True)
    housekeeping = Housekeeping(store, Blobs(settings.data_dir), settings)
    housekeeping.tidy_storage()
    assert {path.name for path in jobs.iterdir()} == {waiting, ended}
    clock.advance(KEEP_S + 1)
    housekeeping.tidy_storage()
    assert {path.name for path in jobs.iterdir()} == {waiting}
    with store.read() as tx:
        assert checkpoints.of_job(tx, ended) == {}


def test_files_of_measurements_that_ended_are_let_go(
    store: Store, settings: Settings, uploaded: Uploaded, clock: HandClock
) -> None:
    blobs = Blobs(settings.data_dir)
    stored = [blobs.put_bytes(content) for content in (b"timed", b"still to be timed")]
    with store.begin() as tx:
        for blob in stored:
            blobs.record(tx, blob)
        done, _ = (measurements.measure(tx, "dev_1", {"n": b.sha256}, BurstProtocol()) for b in stored)
        measurements.cancel(tx, done)
    clock.advance(KEEP_S + 1)
    Housekeeping(store, blobs, settings).tidy_storage()
    with store.read() as tx:
        held = set(tx.session.scalars(select(MeasuredNetwork.sha256)))
        assert held == {None, stored[1].sha256}
        assert stored[0].sha256 not in rows.referenced(tx)

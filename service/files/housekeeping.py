"""Housekeeping: chores that a server runs every few seconds or hours. Several servers may run the same chore at
once.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from datetime import timedelta

import anyio
from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError

from service.files.blobs import Blobs
from service.settings import Settings
from service.store import events
from service.store.devices import agent_leases, conversions, fusions, measurements
from service.store.engine import Store
from service.store.jobs import checkpoints
from service.store.jobs.jobs import Job
from service.store.jobs.states import FINAL

log = logging.getLogger(__name__)

LEASES_EVERY_S = 5.0
STORAGE_EVERY_S = 3600.0
EVENTS_AT_ONCE = 500
KEEP_S = 24 * 3600.0
"""Time for which the files of an ended job or measurement are kept, so that failures can be analysed."""


class Housekeeping:
    """Expires agents' leases; deletes old events, files of ended jobs and unreferenced contents."""

    def __init__(self, store: Store, blobs: Blobs, settings: Settings) -> None:
        self._store = store
        self._blobs = blobs
        self._settings = settings

    async def run(self) -> None:
        """Run until cancelled. A failed chore is logged and tried again when it is next due."""
        storage_s = time.monotonic()
        while True:
            await anyio.sleep(LEASES_EVERY_S)
            await to_thread.run_sync(_attempt, self.expire_leases)
            if time.monotonic() - storage_s >= STORAGE_EVERY_S:
                storage_s = time.monotonic()
                await to_thread.run_sync(_attempt, self.tidy_storage)

    def expire_leases(self) -> None:
        """End leases of silent agents, and report devices that went offline."""
        with self._store.begin() as tx:
            agent_leases.sweep(tx)

    def tidy_storage(self) -> None:
        """Delete events older than the settings allow, files of ended jobs, and unreferenced contents."""
        pruned = EVENTS_AT_ONCE
        while pruned == EVENTS_AT_ONCE:
            with self._store.begin() as tx:
                before = tx.now - timedelta(days=self._settings.event_days)
                pruned = events.prune(tx, before, EVENTS_AT_ONCE)
        self._tidy_jobs()
        with self._store.begin() as tx:
            measurements.release(tx, tx.now - timedelta(seconds=KEEP_S))
            conversions.release(tx, tx.now - timedelta(seconds=KEEP_S))
            fusions.release(tx)
        self._blobs.sweep(self._store)

    def _tidy_jobs(self) -> None:
        """Delete the folders of deleted jobs and of jobs that ended more than a day ago."""
        for folder in sorted(path for path in (self._settings.data_dir / "jobs").glob("*") if path.is_dir()):
            with self._store.begin() as tx:
                job = tx.session.get(Job, folder.name)
                if job is not None:
                    before = tx.now - timedelta(seconds=KEEP_S)
                    if job.state not in FINAL or job.finished_at is None or job.finished_at > before:
                        continue
                    checkpoints.forget(tx, job.id)
            shutil.rmtree(folder, ignore_errors=True)  # remaining files are deleted when this chore runs again


def _attempt(chore: Callable[[], None]) -> None:
    try:
        chore()
    except (SQLAlchemyError, OSError):
        log.exception("housekeeping could not finish and will try again")

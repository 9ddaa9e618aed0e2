"""Random operations never leave the table of states, and an end is an end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from service.errors import Conflict
from service.store import Store, events, make_engine
from service.store.jobs import job_leases, job_states, jobs
from service.store.jobs.job_leases import Held
from service.store.jobs.states import FINAL, MOVES, STATES
from service.testing import CRASHES, LEASE_S, HandClock, add_inputs, request
from workers.errors import LeaseLost

STEERED: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "cancel": {
        "queued": ("cancelled", "continue"),
        "paused": ("cancelled", "continue"),
        "running": ("running", "cancel"),
        "running, to pause": ("running", "cancel"),
        "running, to cancel": ("running", "cancel"),
        **{state: (state, "continue") for state in FINAL},
    },
    "pause": {
        "queued": ("paused", "continue"),
        "running": ("running", "pause"),
        "running, to pause": ("running", "pause"),
    },
    "resume": {
        "paused": ("queued", "continue"),
        "running, to pause": ("running", "continue"),
    },
}
"""State and signal after each verb; what is not here is a conflict."""
ENDS = st.sampled_from(["succeeded", "failed", "cancelled", "paused", "queued"])


class Undone(Exception):
    """What a transaction did is rolled back."""


def _standing(job: jobs.Job) -> str:
    return job.state if job.signal == "continue" else f"{job.state}, to {job.signal}"


class JobLife(RuleBasedStateMachine):
    """One job, two conductors who may die or be slow, and a user who clicks on everything."""

    migrated: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="netlathe-test-"))
        shutil.copy(self.migrated, self.folder / "store.db")
        self.clock = HandClock()
        self.store = Store(make_engine(f"sqlite:///{self.folder / 'store.db'}"), self.clock)
        self.claims: list[Held] = []
        self.state, self.epoch = "queued", 0

    @initialize()
    def queue(self) -> None:
        with self.store.begin() as tx:
            add_inputs(tx)
            self.job_id = jobs.create(tx, request()).id

    @rule(owner=st.sampled_from(["c1", "c2"]))
    def claim(self, owner: str) -> None:
        with self.store.begin() as tx:
            held = job_leases.claim(tx, owner, LEASE_S, CRASHES)
        if held is not None:
            self.claims.append(held)

    @rule(seconds=st.sampled_from([1.0, 29.0, 31.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(verbs=st.lists(st.sampled_from(["cancel", "pause", "resume"]), min_size=1, max_size=3))
    def steer(self, verbs: list[str]) -> None:
        for verb in verbs:
            self._steer(verb)

    def _steer(self, verb: str) -> None:
        with self.store.begin() as tx:
            job = jobs.get(tx, self.job_id)
            abandoned = job.lease_until is not None and job.lease_until <= tx.now
            before, wanted = (job.state, job.signal), STEERED[verb].get(_standing(job))
            if verb == "cancel" and job.state == "running" and abandoned:
                wanted = ("cancelled", "continue")
            refused = pytest.raises(Conflict) if wanted is None else nullcontext()
            with refused:
                getattr(job_states, verb)(tx, job)
            tx.session.refresh(job)
            after = (job.state, job.signal)
            assert after == (wanted or before)
            assert len(tx.events) == (after != before), "one event tells of a change, none of no change"

    @rule()
    def retry(self) -> None:
        with suppress(Undone), self.store.begin() as tx:
            job = jobs.get(tx, self.job_id)
            before = (job.state, job.epoch)
            with nullcontext() if job.state in FINAL else pytest.raises(Conflict):
                again = jobs.retry(tx, job)
                assert (again.state, again.retry_of, again.epoch) == ("queued", job.id, 0)
                assert {**again.request, "name": None} == {**job.request, "name": None}
            tx.session.refresh(job)
            assert (job.state, job.epoch) == before
            raise Undone  # the world stays one of one job

    @rule(state=ENDS, data=st.data())
    def end(self, state: job_states.State, data: st.DataObject) -> None:
        self._write(data, lambda tx, held: job_leases.end(tx, held, state))

    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        self._write(data, lambda tx, held: job_leases.renew(tx, held, LEASE_S))

    def _write(self, data: st.DataObject, write) -> None:  # type: ignore[no-untyped-def]
        if not self.claims:
            return
        held = data.draw(st.sampled_from(self.claims))
        with self.store.read() as tx:
            job = jobs.get(tx, self.job_id)
            mine = job.state == "running" and job.epoch == held.epoch
        try:
            with self.store.begin() as tx:
                write(tx, held)
        except LeaseLost:
            assert not mine
        else:
            assert mine, "somebody wrote who does not hold the job"

    @invariant()
    def moves_are_in_the_table(self) -> None:
        if not hasattr(self, "job_id"):
            return
        with self.store.read() as tx:
            job = jobs.get(tx, self.job_id)
        assert job.epoch >= self.epoch
        if job.epoch == self.epoch:
            assert job.state == self.state or job.state in MOVES[self.state]
        assert self.state not in FINAL or job.state == self.state
        assert (job.lease_owner is not None) == (job.state == "running")
        assert (job.finished_at is not None) == (job.state in FINAL)
        self.state, self.epoch = job.state, job.epoch

    def teardown(self) -> None:
        told = self._told()
        for before, after in pairwise(told):
            assert after == before or after in MOVES[before]
        assert all(state not in FINAL for state in told[:-1]), "something was told after the end"
        self.store.close()
        shutil.rmtree(self.folder)

    def _told(self) -> list[job_states.State]:
        with self.store.read() as tx:
            found = events.of_topic(tx, jobs.topic(self.job_id), ("job.state",), None, 1000)
            return [event.data["state"] for event in found]


def test_a_job_stays_in_its_table(migrated_file: Path) -> None:
    JobLife.migrated = migrated_file
    run_state_machine_as_test(
        JobLife,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_every_state_is_reached_and_ends_lead_nowhere() -> None:
    reached = {"queued"}
    for _ in STATES:
        reached |= {target for source in reached for target in MOVES[source]}
    assert reached == set(STATES)
    assert all(not MOVES[state] for state in FINAL)


def test_a_move_that_is_not_in_the_table_is_a_mistake_of_ours(store: Store, queued: str) -> None:
    with store.begin() as tx, pytest.raises(ValueError, match="no move from queued to succeeded"):
        job_states.transition(tx, queued, 0, "queued", "succeeded")

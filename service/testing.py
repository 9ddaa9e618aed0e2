"""Contract tests of the store, run on every supported database.

class TestMyDatabase(StoreContract):
    @pytest.fixture
    def engine(self): yield an engine on an empty, migrated database
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import IntegrityError, OperationalError

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from service.errors import Conflict, Unauthorised
from service.files.blobs import Blobs
from service.files.secret_values import new_secret
from service.store import Base, Store, Tx, blobs, events, idempotency, tokens
from service.store.blobs import StoredBlob
from service.store.engine import database_now
from service.store.jobs import artifacts, asks, checkpoints, evaluations, job_leases, job_states, jobs
from service.store.jobs.job_leases import Held
from service.store.jobs.jobs import Job
from service.store.migrate import is_newest, migrate
from service.store.uploads.datasets import Dataset
from service.store.uploads.models import Model
from workers.errors import LeaseLost
from workers.progress import Asked, Evaluated

LEASE_S = 30.0
CRASHES = 2


class HandClock:
    """Database clock that a test moves forward by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self, _connection: Connection) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.now += timedelta(seconds=seconds)


def add_inputs(tx: Tx) -> None:
    """Store one row for a model `mdl_1` and one for a data set `dts_1`."""
    blob = StoredBlob("0" * 64, 1)
    blobs.record(tx, blob)
    tx.session.add(model("mdl_1", blob.sha256, tx, name="net"))
    tx.session.add(
        Dataset(
            id="dts_1",
            name="digits",
            sha256=blob.sha256,
            file_name="digits.npz",
            image_shape=[32, 32, 1],
            warnings=[],
            created_at=tx.now,
        )
    )
    tx.session.flush()


def model(row_id: str, sha256: str, tx: Tx, name: str | None = None) -> Model:
    """Return the row of a model with ten classes. The model's name defaults to its id."""
    return Model(
        id=row_id,
        name=name or row_id,
        sha256=sha256,
        preprocessing={},
        input_shape=[1, 32, 32],
        outputs=[{"name": "logits", "shape": [10]}],
        groups=[],
        warnings=[],
        created_at=tx.now,
    )


def request(name: str | None = None) -> dict[str, Any]:
    """Return a job request in the form that `jobs.create` stores."""
    return {"name": name, "model": "mdl_1", "dataset": "dts_1", "targets": []}


def evaluated(candidate_id: str) -> Evaluated:
    """Return a finished evaluation of a candidate with this id."""
    candidate = Candidate(candidate_id, {"a": 3}, origin="random", fidelity="F2")
    evaluation = Evaluation(candidate, Status.COMPLETED, {"accuracy": 0.5, "macs": 7.0}, 0.25)
    return Evaluated("random", evaluation, feasible=True, table_epochs={"dev_1": 4})


def at_once(count: int, work: Callable[[int], Any]) -> Sequence[Any]:
    """Call `work(0)` to `work(count - 1)` in parallel threads that start at the same moment; return the results."""
    gate = threading.Barrier(count)

    def begin(index: int) -> Any:
        gate.wait()
        return work(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


class StoreContract:
    """Tests of the store's behaviour that the service relies on, whatever the database."""

    @pytest.fixture
    def hand_clock(self) -> HandClock:
        return HandClock()

    @pytest.fixture
    def stored(self, engine: Engine, hand_clock: HandClock) -> Iterator[Store]:
        """Yield a store with a model and a data set."""
        store = Store(engine, hand_clock)
        with store.begin() as tx:
            add_inputs(tx)
        yield store
        store.close()

    def _queue(self, store: Store, count: int = 1) -> list[str]:
        with store.begin() as tx:
            return [jobs.create(tx, request()).id for _ in range(count)]

    def _claim(self, store: Store, owner: str = "c1") -> Held | None:
        with store.begin() as tx:
            return job_leases.claim(tx, owner, LEASE_S, CRASHES)

    # the schema and the clock

    def test_the_migrations_make_exactly_the_tables_of_the_code(self, engine: Engine) -> None:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Base.metadata) == []

    def test_migrating_again_changes_nothing(self, stored: Store) -> None:
        migrate(stored.engine)
        assert is_newest(stored.engine)
        with stored.read() as tx:
            assert tx.session.get(Model, "mdl_1") is not None

    def test_the_databases_clock_is_utc(self, engine: Engine) -> None:
        with engine.connect() as connection:
            now = database_now(connection)
        assert now.tzinfo == UTC
        assert abs(now - datetime.now(UTC)) < timedelta(hours=1)  # a wrong time zone adds an hour or more

    def test_times_come_back_as_they_went(self, stored: Store, hand_clock: HandClock) -> None:
        hand_clock.now = datetime(2026, 7, 1, 12, 30, 15, 123456, tzinfo=UTC)
        job_id = self._queue(stored)[0]
        with stored.read() as tx:
            assert jobs.get(tx, job_id).created_at == hand_clock.now

    # transactions and events

    def test_what_fails_leaves_nothing_behind(self, stored: Store) -> None:
        def fail() -> None:
            with stored.begin() as tx:
                jobs.create(tx, request("lost"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        with stored.read() as tx:
            assert jobs.find(tx, "lost") is None
            assert events.newest(tx) == 0

    def test_events_of_racing_writers_have_no_gap_and_appear_in_order(self, stored: Store) -> None:
        seen: list[int] = []
        over = threading.Event()

        def read() -> None:
            while not over.is_set() or len(seen) < 60:
                with stored.read() as tx:
                    seen.extend(event.number for event in events.after(tx, len(seen), 1000))
                over.wait(0.002)

        def write(index: int) -> None:
            turn = 0
            while turn < 10:
                try:
                    with stored.begin() as tx:
                        tx.emit("job:x", "log.line", {"writer": index, "turn": turn})
                except OperationalError:  # on a busy disk, getting the lock can take too long; clients retry, too
                    continue
                turn += 1

        reader = threading.Thread(target=read)
        reader.start()
        at_once(6, write)
        over.set()
        reader.join()
        assert seen == list(range(1, 61))

    def test_old_events_go_and_the_oldest_kept_is_known(self, stored: Store, hand_clock: HandClock) -> None:
        for _ in range(3):
            with stored.begin() as tx:
                tx.emit("job:x", "log.line", {})
            hand_clock.advance(10)
        with stored.begin() as tx:
            assert events.oldest_kept(tx) == 1
            assert events.prune(tx, hand_clock.now - timedelta(seconds=15)) == 2
            assert events.oldest_kept(tx) == 3
            assert events.prune(tx, hand_clock.now) == 1
            assert events.oldest_kept(tx) == 4

    # leases of jobs

    def test_every_job_is_claimed_once_oldest_first(self, stored: Store, hand_clock: HandClock) -> None:
        first = self._queue(stored)[0]
        hand_clock.advance(1)
        others = self._queue(stored, 5)
        held = self._claim(stored)
        assert held is not None
        assert held.job_id == first
        claims = at_once(8, lambda index: self._claim(stored, f"c{index}"))
        assert sorted(held.job_id for held in claims if held is not None) == sorted(others)

    def test_a_held_job_is_taken_over_only_after_its_lease(self, stored: Store, hand_clock: HandClock) -> None:
        job_id = self._queue(stored)[0]
        first = self._claim(stored)
        hand_clock.advance(LEASE_S - 1)
        assert self._claim(stored) is None
        with stored.begin() as tx:
            assert first is not None
            job_leases.renew(tx, first, LEASE_S)
        hand_clock.advance(LEASE_S - 1)
        assert self._claim(stored) is None
        hand_clock.advance(1)
        second = self._claim(stored, "c2")
        assert second == Held(job_id, "c2", first.epoch + 1)

    def test_who_lost_a_job_writes_nothing(self, stored: Store, hand_clock: HandClock) -> None:
        job_id = self._queue(stored)[0]
        zombie = self._claim(stored)
        assert zombie is not None
        hand_clock.advance(LEASE_S)
        assert self._claim(stored, "c2") is not None
        blob = StoredBlob("0" * 64, 1)
        writes: list[Callable[[Tx], Any]] = [
            lambda tx: job_leases.renew(tx, zombie, LEASE_S),
            lambda tx: job_leases.progress(tx, zombie, tell=True, done=1.0),
            lambda tx: job_leases.end(tx, zombie, "succeeded", verdict="met"),
            lambda tx: job_leases.signal(tx, zombie),
            lambda tx: asks.add(tx, zombie, Asked("random", evaluated("a").evaluation.candidate)),
            lambda tx: evaluations.add(tx, zombie, evaluated("a")),
            lambda tx: artifacts.add(tx, zombie, "onnx", "a.onnx", blob),
            lambda tx: checkpoints.keep(tx, zombie, "a", PurePosixPath("a.json")),
        ]
        with stored.read() as tx:
            before = events.newest(tx)
        for write in writes:
            with pytest.raises(LeaseLost), stored.begin() as tx:
                write(tx)
        with stored.read() as tx:
            job = jobs.get(tx, job_id)
            assert (job.state, job.evaluations_done, job.asks_made) == ("running", 0, 0)
            assert events.newest(tx) == before

    def test_a_job_that_kills_its_conductors_fails(self, stored: Store, hand_clock: HandClock) -> None:
        job_id = self._queue(stored)[0]
        for _ in range(CRASHES + 1):
            assert self._claim(stored) is not None
            hand_clock.advance(LEASE_S)
        assert self._claim(stored) is None
        with stored.read() as tx:
            job = jobs.get(tx, job_id)
            assert job.failure is not None
            assert (job.state, job.failure["code"]) == ("failed", "crashed")

    def test_progress_forgives_crashes(self, stored: Store, hand_clock: HandClock) -> None:
        self._queue(stored)
        for turn in range(2 * CRASHES):
            held = self._claim(stored)
            assert held is not None
            with stored.begin() as tx:
                evaluations.add(tx, held, evaluated(f"c{turn}"))
            hand_clock.advance(LEASE_S)
        assert self._claim(stored) is not None

    @pytest.mark.parametrize(("wanted", "state"), [("cancel", "cancelled"), ("pause", "paused")])
    def test_a_takeover_settles_what_the_user_wanted(
        self, stored: Store, hand_clock: HandClock, wanted: str, state: str
    ) -> None:
        job_id = self._queue(stored)[0]
        self._claim(stored)
        with stored.begin() as tx:
            getattr(job_states, wanted)(tx, jobs.get(tx, job_id))
        hand_clock.advance(LEASE_S)
        assert self._claim(stored) is None
        with stored.read() as tx:
            assert jobs.get(tx, job_id).state == state

    def test_of_a_cancel_and_an_end_that_race_one_wins(self, stored: Store) -> None:
        for _ in range(5):
            job_id = self._queue(stored)[0]
            held = self._claim(stored)
            assert held is not None

            def finish(held: Held = held) -> None:
                with stored.begin() as tx:
                    job_leases.end(tx, held, "succeeded", verdict="met")

            def cancel(job_id: str = job_id) -> None:
                with stored.begin() as tx:
                    job_states.cancel(tx, jobs.get(tx, job_id))

            at_once(2, lambda index, work=(finish, cancel): work[index]())  # type: ignore[misc]  # a default
            with stored.read() as tx:
                assert jobs.get(tx, job_id).state == "succeeded"  # a cancellation is only a request to the conductor

    # results of a run

    def test_asks_and_evaluations_come_back_in_order_and_equal(self, stored: Store) -> None:
        job_id = self._queue(stored)[0]
        held = self._claim(stored)
        assert held is not None
        made = [evaluated(f"c{index}") for index in range(3)]
        with stored.begin() as tx:
            for each in made:
                asks.add(tx, held, Asked(each.strategy, each.evaluation.candidate))
            for each in reversed(made):
                evaluations.add(tx, held, each)
        with stored.read() as tx:
            assert [asked.candidate.id for asked in asks.of_job(tx, job_id)] == ["c0", "c1", "c2"]
            rows = evaluations.of_job(tx, job_id)
            assert [row.number for row in rows] == [1, 2, 3]
            assert [row.evaluated for row in rows] == made[::-1]
            assert jobs.get(tx, job_id).evaluations_done == 3

    def test_takeovers_count_for_the_asks_that_were_open(self, stored: Store) -> None:
        job_id = self._queue(stored)[0]
        held = self._claim(stored)
        assert held is not None
        assert not held.takeover
        with stored.begin() as tx:
            for name in ("a", "b"):
                asks.add(tx, held, Asked("random", evaluated(name).evaluation.candidate))
            evaluations.add(tx, held, evaluated("a"))
            asks.interrupted(tx, job_id)
            asks.interrupted(tx, job_id)
        with stored.read() as tx:
            assert asks.takeovers(tx, job_id) == {"b": 2}

    def test_a_candidate_is_recorded_once(self, stored: Store) -> None:
        job_id = self._queue(stored)[0]
        held = self._claim(stored)
        assert held is not None
        for _ in range(2):
            with stored.begin() as tx:
                evaluations.add(tx, held, evaluated("twice"))
        with stored.read() as tx:
            assert len(evaluations.of_job(tx, job_id)) == 1
            assert jobs.get(tx, job_id).evaluations_done == 1

    def test_the_budget_counts_f2_that_was_paid_for(self, stored: Store) -> None:
        job_id = self._queue(stored)[0]
        held = self._claim(stored)
        assert held is not None
        one = evaluated("searched")
        trained = replace(
            one.evaluation, candidate=replace(one.evaluation.candidate, id="trained", fidelity="F4", after_search=True)
        )
        with stored.begin() as tx:
            for each in (one, replace(evaluated("twin"), cached=True), replace(one, evaluation=trained)):
                evaluations.add(tx, held, each)
        with stored.read() as tx:
            assert [row.number for row in evaluations.of_job(tx, job_id)] == [1, 2, 3]
            assert jobs.get(tx, job_id).evaluations_done == 1

    def test_a_deleted_job_takes_its_rows_along(self, stored: Store) -> None:
        job_id = self._queue(stored)[0]
        held = self._claim(stored)
        assert held is not None
        with stored.begin() as tx:
            asks.add(tx, held, Asked("random", evaluated("a").evaluation.candidate))
            evaluations.add(tx, held, evaluated("a"))
            artifacts.add(tx, held, "onnx", "a.onnx", StoredBlob("0" * 64, 1))
            checkpoints.keep(tx, held, "a", PurePosixPath("a.json"))
            job_leases.end(tx, held, "succeeded", verdict="met")
        with stored.begin() as tx:
            jobs.remove(tx, jobs.get(tx, job_id))
        with stored.read() as tx:
            for table in (jobs.Job, asks.Ask, evaluations.EvaluationRow, artifacts.Artifact, checkpoints.Checkpoint):
                assert tx.session.execute(select(func.count()).select_from(table)).scalar_one() == 0

    def test_contents_in_use_are_known(self, stored: Store) -> None:
        with stored.begin() as tx:
            blobs.record(tx, StoredBlob("1" * 64, 5))
        with stored.read() as tx:
            assert blobs.referenced(tx) == {"0" * 64}

    def test_a_sweep_takes_nothing_that_is_pointed_at(
        self, stored: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "service.files.blobs.KEEP_UNREFERENCED_S", -3600.0
        )  # unreferenced blobs are deleted at once
        folder, over = Blobs(tmp_path), threading.Event()
        fates: list[str] = []

        def upload(index: int, turn: int) -> str:
            content = bytes([turn % 2])  # other threads upload the same content
            try:
                blob = folder.put_bytes(content)
                with stored.begin() as tx:
                    folder.record(tx, blob)
                    row = model(f"mdl_{index}_{turn}", blob.sha256, tx)
                    tx.session.add(row)
            except (FileNotFoundError, KeyError, IntegrityError) as error:  # the sweep deleted the content first
                return type(error).__name__
            assert folder.path(blob.sha256).read_bytes() == content
            with stored.begin() as tx:
                tx.session.delete(row)
            return "kept"

        def sweep() -> None:
            while not over.is_set():
                folder.sweep(stored)

        sweeper = threading.Thread(target=sweep)
        sweeper.start()
        try:
            for turn in range(20):
                fates += at_once(3, lambda index, turn=turn: upload(index, turn))  # type: ignore[misc]
        finally:
            over.set()
            sweeper.join()
        assert "kept" in fates
        folder.sweep(stored)
        assert [path for path in folder.root.rglob("*") if path.is_file()] == []

    # tokens

    def test_a_one_time_token_is_spent_once(self, stored: Store) -> None:
        secret = new_secret("enrolment")
        with stored.begin() as tx:
            tokens.create(tx, "enrolment", "pi", secret)

        def spend(_index: int) -> bool:
            try:
                with stored.begin() as tx:
                    tokens.use(tx, tokens.find(tx, secret))
            except Unauthorised:
                return False
            return True

        assert sorted(at_once(6, spend)) == [False] * 5 + [True]

    def test_a_token_ends_with_its_time(self, stored: Store, hand_clock: HandClock) -> None:
        secret = new_secret("user")
        with stored.begin() as tx:
            tokens.create(tx, "user", "guest", secret, expires_at=tx.now + timedelta(seconds=10))
        with stored.read() as tx:
            assert tokens.find(tx, secret).name == "guest"
        hand_clock.advance(10)
        with stored.read() as tx, pytest.raises(Unauthorised):
            tokens.find(tx, secret)

    def test_of_racing_claims_of_a_key_one_makes_the_thing(self, stored: Store) -> None:
        week = timedelta(days=7)

        def make(_index: int) -> str:
            while True:
                try:
                    with stored.begin() as tx:
                        kept = idempotency.find(tx, "tok_1", "key", "print", week)
                        if kept is not None:
                            return str(kept.body["id"])
                        claimed = idempotency.claim(tx, "tok_1", "key", "print", week)
                        claimed.body = {"id": jobs.create(tx, request()).id}
                        return str(claimed.body["id"])
                except idempotency.Raced:
                    continue

        assert len(set(at_once(8, make))) == 1
        with stored.read() as tx:
            assert tx.session.execute(select(func.count()).select_from(Job)).scalar_one() == 1

    def test_a_key_is_for_one_request_and_for_a_week(self, stored: Store, hand_clock: HandClock) -> None:
        week = timedelta(days=7)
        with stored.begin() as tx:
            idempotency.claim(tx, "tok_1", "key", "print", week)
        with stored.read() as tx, pytest.raises(Conflict):
            idempotency.find(tx, "tok_1", "key", "another", week)
        hand_clock.advance(week.total_seconds())
        with stored.begin() as tx:
            assert idempotency.find(tx, "tok_1", "key", "another", week) is None
            idempotency.claim(tx, "tok_1", "key", "another", week)

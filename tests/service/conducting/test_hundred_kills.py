"""A hundred kill -9 of the API server under a stream of submissions: nothing is lost, nothing is there twice."""

from __future__ import annotations

import itertools
import logging
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from api_process import ApiProcess, free_port
from patience import PATIENCE_S
from postgres_server import NoPostgres, running
from service_world import Uploaded
from sqlalchemy import select

from service.settings import Settings
from service.store import Store, make_engine
from service.store.events import Event
from service.store.idempotency import KeptAnswer
from service.store.jobs.jobs import Job
from service.store.migrate import migrate

log = logging.getLogger(__name__)

pytestmark = pytest.mark.long

CLIENTS = 4
KILLS = {"sqlite": 100, "postgresql": 20}
SEED = 1


@pytest.fixture(params=sorted(KILLS))
def database(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def settings(database: str, tmp_path: Path) -> Iterator[Settings]:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    found = Settings(data_dir=data_dir, port=free_port(), max_queued_jobs=1_000_000)
    if database == "sqlite":
        yield found
        return
    try:
        with running() as url:
            yield found.model_copy(update={"database_url": url.format(database="postgres")})
    except NoPostgres as reason:
        pytest.skip(str(reason))


@pytest.fixture
def store(settings: Settings, migrated_file: Path) -> Iterator[Store]:
    """A migrated store, with the database's own clock: the server's process has no other."""
    engine = make_engine(settings.url)
    if settings.database_url is None:
        shutil.copy(migrated_file, settings.data_dir / "netlathe.db")
    else:
        migrate(engine)
    found = Store(engine)
    yield found
    found.close()


@dataclass
class Submissions:
    """What clients submit until they are told to stop: each request under its key, until it is acknowledged."""

    url: str
    token: str
    over: threading.Event = field(default_factory=threading.Event)
    one_more: threading.Event = field(default_factory=threading.Event)
    """Set whenever a request is acknowledged."""
    acknowledged: dict[int, str] = field(default_factory=dict)
    """Ids of jobs by the number of their request."""
    met: Counter[str] = field(default_factory=Counter)
    """What the answers were, for who reads the output."""

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)

    def run(self) -> None:
        """One client's work."""
        headers = {"Authorization": f"Bearer {self.token}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S) as client:
            while not self.over.is_set():
                number = next(self._numbers)
                self.acknowledged[number] = self._submit(client, number)

    def _submit(self, client: httpx.Client, number: int) -> str:
        # The number stands in the body, so that a job tells whose it is; a name would forbid duplicates by itself.
        body = {"model": "net", "dataset": "digits", "budget": {"evaluations": number}}
        while True:
            try:
                answer = client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": key(number)})
            except httpx.TransportError as error:
                self.met[type(error).__name__] += 1
                time.sleep(0.02)  # a client's rest before it tries again
                continue
            self.met[f"{answer.status_code} {answer.headers.get('Idempotent-Replayed', '')}".strip()] += 1
            if answer.status_code == 201:
                self.one_more.set()
                return str(answer.json()["id"])
            assert answer.status_code == 503, answer.text


def key(number: int) -> str:
    return f"key-{number}"


def kill_again_and_again(server: ApiProcess, kills: int, submissions: Submissions) -> None:
    """Kill at random moments: four of five once it has acknowledged something again, the rest while it starts.

    `kills` times at least, and until one fell between a commit and its answer, so that a key was asked for again.
    """
    moments = random.Random(SEED)
    done = 0
    while done < kills or not submissions.met["201 true"]:
        submissions.one_more.clear()
        server.start()
        if moments.random() < 0.8:
            assert submissions.one_more.wait(PATIENCE_S)
            time.sleep(moments.uniform(0.0, 0.15))
        else:
            time.sleep(moments.uniform(0.0, 0.6))
        server.kill()
        done += 1


def test_no_acknowledged_job_is_lost_and_none_is_there_twice(
    database: str, settings: Settings, store: Store, uploaded: Uploaded, user_token: str
) -> None:
    server = ApiProcess(settings)
    submissions = Submissions(server.url, user_token)
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(submissions.run) for _ in range(CLIENTS)]
        try:
            kill_again_and_again(server, KILLS[database], submissions)
        finally:
            submissions.over.set()
            with server.running():  # it acknowledges what is not yet
                wait(clients, PATIENCE_S)
        for client in clients:
            client.result()
    log.info("%d jobs on %s; answers: %s", len(submissions.acknowledged), database, dict(submissions.met))
    check(store, submissions.acknowledged)


def check(store: Store, acknowledged: dict[int, str]) -> None:
    """Each key has one job, the one that was acknowledged, and one kept answer; each job has one event."""
    ids = sorted(acknowledged.values())
    assert len(set(ids)) == len(ids)
    with store.read() as tx:
        found = [(job.request["budget"]["evaluations"], job.id) for job in tx.session.scalars(select(Job))]
        kept = {answer.key: answer.body["id"] for answer in tx.session.scalars(select(KeptAnswer))}
        told = tx.session.scalars(select(Event).order_by(Event.number)).all()
    assert sorted(found) == sorted(acknowledged.items())
    assert kept == {key(number): job_id for number, job_id in acknowledged.items()}
    assert [event.number for event in told] == list(range(1, len(told) + 1))
    of_jobs = [event for event in told if event.topic.startswith("job:")]
    assert sorted(event.topic for event in of_jobs) == [f"job:{job_id}" for job_id in ids]
    assert all((event.type, event.data) == ("job.state", {"state": "queued"}) for event in of_jobs)

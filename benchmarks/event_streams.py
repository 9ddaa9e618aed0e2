"""Streams 10 events a second to 200 listeners, and times GETs meanwhile: `python benchmarks/event_streams.py`.

Four processes take part: a server on SQLite that has seen 10,000 events; a writer that adds events of one job through
the store, as a conductor does; a process with all the listeners; and the process of this script, which requests the job
and the list of jobs in turn over one connection. After that the server is killed (-9) and restarted, then terminated
(SIGTERM) and restarted, while events go on: every listener must receive every event once and in order.

The exit code is 1 if the p99 of the GETs is over 100 ms, or if an event was missing or came twice. One row is appended
to benchmarks/results/event_streams.jsonl.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles
from typing import Any

from stamp import stamp
from stream_clients import Address, faults, run

from service.http.event_feed import HELD
from service.jobs.body import JobCreate, NamedBody
from service.settings import Settings
from service.store import Store, events, make_engine
from service.store.jobs import jobs
from service.store.migrate import migrate
from service.testing import add_inputs

RESULTS = Path(__file__).parent / "results" / "event_streams.jsonl"
MAX_P99_MS = 100.0
FAULTS, MAX_FAULTS = ("missing", "repeated", "disordered"), 0
ASK_EVERY_S = 0.05
AROUND_CUTS_S = 3.0
PATIENCE_S = 60.0
JOBS = 50
PORTS = range(20_000, 32_768)
"""Ports outside the range that the system gives to clients: with a port of that range, a client could connect to itself
during a cut.
"""
ASKED = JobCreate(
    model="mdl_1", dataset="dts_1", methods=[NamedBody(name="filter_prune")], strategies=[NamedBody(name="greedy")]
)
LINE = "epoch 3 of 5: loss 0.4213, accuracy 0.8732 on 2,000 validation samples, learning rate 0.0125"


def write(settings: Settings, topic: str, rate: float, parent: Connection) -> None:
    """Run a process that emits `rate` events of a job per second, one transaction each, until it is told to stop; then
    send the number of the last event.
    """
    store = Store(make_engine(settings.url))
    parent.send("ready")
    begun_s = time.monotonic()
    for number in itertools.count():
        if parent.poll(max(0.0, begun_s + number / rate - time.monotonic())):
            break
        with store.begin() as tx:
            tx.emit(topic, "log.line", {"text": LINE, "turn": number})
    with store.read() as tx:
        parent.send(events.newest(tx))
    store.close()


class Server:
    """A running `netlathe serve` on one port."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def start(self) -> None:
        given = {"port": self.settings.port, "data-dir": self.settings.data_dir}
        options = [f"--{name}={value}" for name, value in given.items()]
        command = [sys.executable, "-c", "from service.cli import main; main()", "serve", "--no-conductor"]
        self.process = subprocess.Popen([*command, "--no-agent", *options], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise SystemExit("the server did not start")

    def cut(self, number: signal.Signals) -> None:
        """Stop the server and start it again."""
        self.end(number)
        self.start()

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.communicate()

    def used(self) -> tuple[float, float]:
        """Return the server's seconds of processor time so far, and its memory in MiB."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks = int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def ask(port: int, token: str, paths: Sequence[str], seconds: float) -> dict[str, list[float]]:
    """Send a GET every ASK_EVERY_S over one connection, taking the paths in turn; return the milliseconds of each."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    found: dict[str, list[float]] = {path: [] for path in paths}
    begun_s = time.monotonic()
    for turn in itertools.count():
        at_s = begun_s + turn * ASK_EVERY_S
        if at_s > begun_s + seconds:
            connection.close()
            return found
        time.sleep(max(0.0, at_s - time.monotonic()))
        path = paths[turn % len(paths)]
        asked_s = time.perf_counter()
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
        found[path].append(1000 * (time.perf_counter() - asked_s))
        if answer.status != 200:
            raise SystemExit(f"GET {path} answered {answer.status}")
    raise AssertionError("itertools.count never ends")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p99 and the maximum."""
    cuts = quantiles(values, n=100, method="inclusive")
    return {"p50": round(cuts[49], 2), "p99": round(cuts[98], 2), "max": round(max(values), 2)}


def fill(store: Store) -> int:
    """Fill the server with the largest number of events that it keeps; return the number of the newest event."""
    with store.begin() as tx:
        for number in range(HELD):
            tx.emit("job:of-yesterday", "log.line", {"text": LINE, "turn": number})
    with store.read() as tx:
        return events.newest(tx)


@contextmanager
def world() -> Iterator[tuple[Settings, Store, str]]:
    """Make a data folder with some jobs; yield the settings, the store and the id of one job."""
    with tempfile.TemporaryDirectory(prefix="netlathe-streams-") as folder:
        settings = Settings(data_dir=Path(folder), port=random.choice(PORTS))
        store = Store(make_engine(settings.url))
        migrate(store.engine)
        with store.begin() as tx:
            add_inputs(tx)
            job, *_ = [jobs.create(tx, ASKED.model_dump(mode="json")).id for _ in range(JOBS)]
        yield settings, store, job
        store.close()


def measure(clients: int, rate: float, seconds: float) -> dict[str, Any]:
    """Run the benchmark once; return its row."""
    processes = multiprocessing.get_context("spawn")
    with world() as (settings, store, job):
        server = Server(settings)
        server.start()
        token = settings.user_token_path.read_text().strip()
        since = fill(store)
        address = Address("127.0.0.1", settings.port, token, f"job:{job}", since)
        listening, theirs = processes.Pipe()
        listeners = processes.Process(target=run, args=(address, clients, theirs))
        telling, theirs_too = processes.Pipe()
        writer = processes.Process(target=write, args=(settings, address.topic, rate, theirs_too))
        try:
            listeners.start()
            listening.recv()
            writer.start()
            telling.recv()
            paths = (f"/api/v1/jobs/{job}", "/api/v1/jobs")
            ask(settings.port, token, paths, 2.0)  # warm-up: loads code that later requests then need not load
            before_s, _ = server.used()
            found = ask(settings.port, token, paths, seconds)
            after_s, memory_mib = server.used()
            for number in (signal.SIGKILL, signal.SIGTERM):
                server.cut(number)
                time.sleep(AROUND_CUTS_S)
            telling.send("stop")
            newest = telling.recv()
            listening.send((newest, PATIENCE_S))
            seen = listening.recv()
        finally:
            for process in (listeners, writer):
                process.kill()
            server.end(signal.SIGKILL)
        with store.read() as tx:
            wanted = [event.number for event in events.of_topic(tx, address.topic, ("log.line",), None, 10**9)]
    wrong = sum((Counter(faults(numbers, wanted)) for numbers in seen["numbers"]), Counter[str]())
    return {
        **stamp(),
        "clients": clients,
        "rate": rate,
        "seconds": seconds,
        "get_ms": spread(list(itertools.chain(*found.values()))),
        "get_job_ms": spread(found[paths[0]]),
        "get_list_ms": spread(found[paths[1]]),
        "lag_ms": spread(seen["lags_ms"][: int(rate * seconds)]),
        "server_cores": round((after_s - before_s) / seconds, 3),
        "server_mib": round(memory_mib, 1),
        "events": len(wanted),
        "frames": sum(len(numbers) for numbers in seen["numbers"]),
        "connections": seen["connections"],
        **{fault: wrong[fault] for fault in FAULTS},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rate", type=float, default=10.0, help="events a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="duration of the GETs, before the cuts")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    row = measure(given.clients, given.rate, given.seconds)
    print(json.dumps(row))
    with given.results.open("a") as file:
        file.write(json.dumps(row) + "\n")
    well = row["get_ms"]["p99"] <= MAX_P99_MS and all(row[fault] <= MAX_FAULTS for fault in FAULTS)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())

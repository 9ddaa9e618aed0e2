"""LeaseRun: handles one lease of an agent."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import httpx

from hw_profiles.agent.connection import Connection, persist
from hw_profiles.child_process import Cancelled
from hw_profiles.device import DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.host_lock import HostLock
from hw_profiles.timing.batch import MODEL, SAMPLES, Batch, Checked, Fused, Outcome, Work
from hw_profiles.timing.protocol import Failure
from hw_profiles.wire.lease import Item, Lease
from hw_profiles.wire.result import Bursts, Completion, Converted, FailureKind, Result

Answered: TypeAlias = Outcome | Fused | Checked

_KINDS: Mapping[str, FailureKind] = {"crash": "crash", "timeout": "timeout"}
"""The kinds of failure that are reported under their own names. Any other kind is an error of the runtime and would
recur.
"""


@dataclass
class Held:
    """The current lease, with the progress that the heartbeat reports."""

    lease: Lease
    done: int = 0
    total: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass
class LeaseRun:
    """Handles one lease, from fetching its files to its completion. Once `stop` is set, calls no longer wait for a
    server that is away.
    """

    connection: Connection
    held: Held
    device: DeviceConfig
    lock: HostLock
    folder: Path
    stop: threading.Event
    least_deadline_s: float

    def run(self) -> None:
        """Fetch the files, then time, take apart or convert them, and report the results.

        Raises:
            LeaseLost: the lease is no longer valid.
            Cancelled: the results are no longer wanted.
            AgentError: the server refused, or was away when `stop` was set.
            InvalidInput: the server sent a file other than the one it announced.
        """
        lease = self.held.lease
        began_s = time.monotonic()
        items = [*lease.anchors, *lease.items]  # anchors first: their results give the scale of all others
        batch = Batch(
            device=self.device,
            protocol=lease.protocol.bursts(),
            lock=self.lock,
            progress=self._progress,
            cancelled=self.held.cancelled.is_set,
            least_deadline_s=self.least_deadline_s,
        )
        done = failed = 0
        for key, outcome in self._outcomes(batch, items):
            self._upload(key, outcome)
            done, failed = (done, failed + 1) if isinstance(outcome, Failure) else (done + 1, failed)
        self._check()
        completion = Completion(lease.epoch, done, failed, time.monotonic() - began_s)
        self._call("POST", "complete", completion.to_json())

    def _outcomes(self, batch: Batch, items: Sequence[Item]) -> Iterator[tuple[str, Answered]]:
        """Yield outcomes one kind after another; in this protocol version, all items of a lease have the same kind."""
        yield from batch.fuse([self._fetch(item) for item in items if item.kind == "fusion"])
        yield from batch.check([self._fetch(item) for item in items if item.kind == "check"])
        yield from batch.time([self._fetch(item) for item in items if item.kind in ("block", "network")])

    def _check(self) -> None:
        if self.held.cancelled.is_set():
            raise Cancelled

    def _progress(self, done: int, total: int) -> None:
        self.held.done, self.held.total = done, total

    def _fetch(self, item: Item) -> Work:
        """Download an item's files, each checked against its digest."""
        self._check()
        names = (MODEL, SAMPLES) if item.kind == "check" else ("many", "single")
        files = {name: self._download(digest, item.suffix) for name, digest in zip(names, item.files, strict=False)}
        return Work(item.key, files, item.expected_us)

    def _download(self, digest: str, suffix: str) -> Path:
        path = self.folder / f"{digest}{suffix}"
        if not path.exists():
            content = self._call("GET", f"files/{digest}").content
            seen = hashlib.sha256(content).hexdigest()
            if seen != digest:
                raise InvalidInput("sha256", seen, f"the server sent a different file than {digest}")
            path.write_bytes(content)
        return path

    def _upload(self, key: str, outcome: Answered) -> None:
        self._check()
        if isinstance(outcome, Checked):
            for file in (outcome.file, outcome.outputs):
                self._send(file)
        self._call("PUT", f"results/{key}", _result(self.held.lease.epoch, outcome).to_json())

    def _send(self, file: Path) -> None:
        whole = f"/leases/{self.held.lease.id}/files/{_digest(file)}"
        persist(lambda: self.connection.send(whole, file), self.stop)

    def _call(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Make a call about this lease; repeat it while the server is away.

        Raises:
            AgentError: see `persist`.
        """
        whole = f"/leases/{self.held.lease.id}/{path}"
        return persist(lambda: self.connection.call(method, whole, body), self.stop)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _result(epoch: int, outcome: Answered) -> Result:
    if isinstance(outcome, Failure):
        kind: FailureKind = _KINDS.get(outcome.kind, "error")
        return Result(epoch, failure=kind, reason=outcome.reason[:2000])
    if isinstance(outcome, Checked):
        return Result(epoch, converted=Converted(_digest(outcome.file), _digest(outcome.outputs)))
    if isinstance(outcome, tuple):
        return Result(epoch, fused=tuple(tuple(sorted(names)) for names in outcome))
    single = outcome.get("single")
    return Result(epoch, bursts=Bursts.of(outcome["many"]), single=Bursts.of(single) if single else None)

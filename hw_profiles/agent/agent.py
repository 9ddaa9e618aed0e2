"""The profiling agent: pulls work for this machine from a server, times it, and sends the results.

    agent = Agent("http://127.0.0.1:8000", enrolment_token="nl_e_...")
    sys.exit(agent.run())

It works behind NAT, opens no port, and survives restarts of its server. SIGTERM drains it: the agent finishes its lease
and takes no more.
"""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx

from hw_profiles import machine as this_machine
from hw_profiles import runtimes
from hw_profiles.agent.connection import (
    AgentError,
    AllRemoved,
    Connection,
    LeaseLost,
    NotAccepted,
    Refused,
    ServerAway,
    UpgradeNeeded,
    persist,
)
from hw_profiles.agent.credentials import CredentialStore
from hw_profiles.agent.exit_codes import DONE, FAILED, USAGE
from hw_profiles.agent.lease_run import Held, LeaseRun
from hw_profiles.agent.offered import Offered
from hw_profiles.agent.self_test import self_test
from hw_profiles.agent.sign_on import SignOn
from hw_profiles.agent.systemd_unit import print_unit
from hw_profiles.child_process import Cancelled
from hw_profiles.device import DeviceConfig
from hw_profiles.errors import ExtraMissing, InvalidInput
from hw_profiles.host_lock import HostLock
from hw_profiles.timing.batch import LEAST_DEADLINE_S
from hw_profiles.wire.bounds import PROTOCOL
from hw_profiles.wire.enrolment import Enrolled, Enrolment, RuntimeOffer
from hw_profiles.wire.heartbeat import AgentState, Heartbeat, HeartbeatAnswer
from hw_profiles.wire.lease import ITEM_KINDS, Lease, LeaseRequest
from hw_profiles.wire.result import Surrender

__all__ = ["Agent", "print_unit"]

log = logging.getLogger(__name__)

IDLE_S = 1.0
"""Seconds to pause if a server has no work and does not say how long to wait."""
NEVER_OFFERED = frozenset({"simulated"})
"""Runtimes that time nothing real; an agent offers one of these only if its user names it."""


class Agent:
    """One agent for this machine.

    Args:
        url: the server.
        machine: the machine's name within device names; default: the host's name.
        runtimes: names of the runtimes to offer; default: all installed runtimes that time something real.
        enrolment_token: needed until the agent has its own credentials.
        state_dir: folder of the credentials; default: the user's state folder.
        lock: keeps other processes on this machine from computing during a timing.
        transport: replaces the network in tests.
        ca: file with the certificate of the server or of its CA; needed if none of the usual CAs issued the server's
            certificate.
        least_deadline_s: minimum number of seconds that every timing process may be silent.
        offer_again: if True, offer a device again after it was deleted on the server; else continue with the other
            devices, and end when none is left.
    """

    def __init__(
        self,
        url: str,
        *,
        machine: str | None = None,
        runtimes: Sequence[str] | None = None,
        enrolment_token: str | None = None,
        state_dir: Path | None = None,
        lock: HostLock | None = None,
        transport: httpx.BaseTransport | None = None,
        ca: Path | None = None,
        least_deadline_s: float = LEAST_DEADLINE_S,
        offer_again: bool = False,
    ) -> None:
        self.url = url.rstrip("/")
        self.machine = machine or this_machine.machine_name()
        self._wanted = runtimes
        self._enrolment_token = enrolment_token
        self._credentials = CredentialStore(self.url, self.machine, state_dir)
        self._lock = lock or HostLock()
        self._transport = transport
        self._ca = ca
        self._least_deadline_s = least_deadline_s
        self._drain = threading.Event()
        self._stop = threading.Event()
        self._held: Held | None = None
        self._offered = Offered(again=offer_again)
        self._voided: AgentError | None = None

    def run(self) -> int:
        """Work until drained; return the exit code: 0 normally, 2 if something must be set up first, 3 if the server
        refuses this agent.

        SIGTERM and SIGINT drain, if this is the main thread; a second signal ends the process at once.
        """
        try:
            with self._credentials.held(), self._draining_on_signals():
                self._serve()
        except Cancelled:
            log.info("drained before the first lease")
        except (InvalidInput, ExtraMissing) as error:
            return _say(str(error), USAGE)
        except UpgradeNeeded as error:
            return _say(str(error), FAILED)
        except NotAccepted as error:
            return _say(f"{error}; enrol again with a new enrolment token", FAILED)
        except AgentError as error:
            return _say(str(error), FAILED)
        return DONE

    def drain(self) -> None:
        """Finish the current lease and take no more."""
        self._drain.set()

    def leave(self) -> None:
        """Give the current lease back at once, and take no more."""
        self._drain.set()
        self._cancel(self._held)

    @contextmanager
    def _draining_on_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handler(number: int, _frame: object) -> None:
            signal.signal(number, signal.SIG_DFL)
            self.drain()

        before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, former in before.items():
                signal.signal(number, former)

    def _serve(self) -> None:
        offers = self._offered.configs = self._offers()
        enrolment = self._enrolment(offers)
        signing = SignOn(self.url, self._credentials, self._drain, self._transport, self._ca)
        credentials, enrolled = signing.sign_on(enrolment, self._enrolment_token)
        self._offered.accepted(enrolled.device_ids)
        log.info("agent %s serves %s", credentials.agent_id, ", ".join(d.name for d in offers))
        connection = Connection(self.url, credentials.token, self._transport, self._ca)
        heart = threading.Thread(target=self._beat, args=(connection, credentials.agent_id, enrolled.heartbeat_s))
        heart.start()
        try:
            self._pull(connection, credentials.agent_id, enrolment)
        finally:
            self._stop.set()
            heart.join()
            connection.close()
        if self._voided is not None:
            raise self._voided

    def _offers(self) -> list[DeviceConfig]:
        """Return every configuration of every runtime that is wanted and installed.

        Raises:
            ExtraMissing: a named runtime is not installed, or no runtime is installed.
        """
        if self._wanted is not None:
            return [config for name in self._wanted for config in runtimes.load(name).configs(self.machine)]
        found: list[DeviceConfig] = []
        missing = ExtraMissing("an agent", "agent")
        for name in runtimes.names():
            if name in NEVER_OFFERED:
                continue
            try:
                found += runtimes.load(name).configs(self.machine)
            except ExtraMissing as error:
                missing = error
        if not found:
            raise missing
        return found

    def _enrolment(self, offers: list[DeviceConfig]) -> Enrolment:
        return Enrolment(
            protocol=PROTOCOL,
            name=self.machine,
            machine=self.machine,
            runtimes=tuple(RuntimeOffer.of(config) for config in offers),
            self_test=self_test(offers, self._lock, self._least_deadline_s, self._drain.is_set),
            fingerprint=this_machine.fingerprint(),
        )

    def _beat(self, connection: Connection, agent_id: str, every_s: float) -> None:
        """Run the heartbeat's thread: report progress and obey the server's answers."""
        while not self._stop.wait(every_s):
            held = self._held
            try:
                answer = connection.call("POST", f"/agents/{agent_id}/heartbeat", self._heartbeat(held).to_json())
                self._obey(HeartbeatAnswer.from_json(answer.json()), held)
            except ServerAway as error:
                log.warning("the server did not accept the heartbeat: %s", error)
            except (NotAccepted, UpgradeNeeded) as error:
                self._voided = error
                self._cancel(held)
                self._drain.set()
                return
            except AgentError as error:
                log.warning("the server does not know this agent's lease: %s", error)
                self._cancel(held)

    def _heartbeat(self, held: Held | None) -> Heartbeat:
        state: AgentState = "draining" if self._drain.is_set() else "working" if held else "idle"
        return Heartbeat(
            state=state,
            lease_id=held.lease.id if held else None,
            done=held.done if held else 0,
            total=held.total if held else 0,
            temperature_c=this_machine.temperature_c(),
            load=this_machine.load(),
        )

    def _obey(self, answer: HeartbeatAnswer, held: Held | None) -> None:
        if answer.action == "cancel":
            self._cancel(held)
        elif answer.action == "drain":
            self._drain.set()
        elif answer.action == "removed":
            self._removed(answer.device_ids)

    def _removed(self, device_ids: Sequence[str]) -> None:
        names = self._offered.removed(device_ids)
        if names and not self._offered.ids and not self._offered.again:
            self._voided = AllRemoved(
                f"every device of this agent was deleted on the server, {', '.join(names)} last; restart the agent to "
                "offer them as new devices, or run it with --offer-again, which does so without a restart"
            )
            self._drain.set()

    @staticmethod
    def _cancel(held: Held | None) -> None:
        if held is not None:
            held.cancelled.set()

    def _pull(self, connection: Connection, agent_id: str, enrolment: Enrolment) -> None:
        """Take one lease after another until drained."""
        while not self._drain.is_set():
            try:
                if self._offered.missing.is_set():
                    self._announce(connection, agent_id, enrolment)
                ids = self._offered.ids
                if not ids:  # the heartbeat's thread is about to end this agent
                    self._drain.wait(IDLE_S)
                    continue
                request = LeaseRequest(agent_id, ids, kinds=ITEM_KINDS).to_json()
                answer = persist(partial(connection.call, "POST", "/leases", request), self._drain)
            except ServerAway:
                return  # drained while the server was away: there is no lease
            except LeaseLost as error:  # 409: another request of this agent is in progress
                log.warning("the server granted no lease: %s", error)
                self._drain.wait(IDLE_S)
                continue
            if answer.status_code == 204:
                self._drain.wait(float(answer.headers.get("Retry-After", IDLE_S)))
                continue
            self._work(connection, Lease.from_json(answer.json()))

    def _announce(self, connection: Connection, agent_id: str, enrolment: Enrolment) -> None:
        """Offer every device again; deleted devices become new devices."""
        call = partial(connection.call, "PUT", f"/agents/{agent_id}", enrolment.to_json())
        self._offered.accepted(Enrolled.from_json(persist(call, self._drain).json()).device_ids)
        log.info("offered again: %s", ", ".join(config.name for config in self._offered.configs))

    def _work(self, connection: Connection, lease: Lease) -> None:
        """Time the models of a lease and report the results; drop the lease if it is lost in the meantime."""
        held = Held(lease)
        self._held = held
        try:
            with tempfile.TemporaryDirectory(prefix="netlathe-agent-") as folder:
                LeaseRun(
                    connection,
                    held,
                    self._offered.config(lease.device_id),
                    self._lock,
                    Path(folder),
                    self._drain,
                    self._least_deadline_s,
                ).run()
        except LeaseLost as error:
            log.warning("lost lease %s: %s", lease.id, error)
        except Cancelled:
            self._give_back(connection, held, "cancelled", "")
        except (Refused, OSError, InvalidInput) as error:
            log.exception("lease %s failed; returning it to the server", lease.id)
            self._give_back(connection, held, type(error).__name__, str(error)[:500])
        except ServerAway as error:
            log.warning("drained while the server was away: %s", error)
        finally:
            self._held = None

    def _give_back(self, connection: Connection, held: Held, error_class: str, detail: str) -> None:
        body = Surrender(held.lease.epoch, error_class, detail).to_json()
        try:
            connection.call("POST", f"/leases/{held.lease.id}/fail", body)
        except AgentError as error:  # the lease expires by itself
            log.warning("could not return lease %s to the server: %s", held.lease.id, error)


def _say(text: str, code: int) -> int:
    """Print why the agent is ending; return the exit code."""
    sys.stderr.write(f"netlathe agent: {text}\n")
    return code

"""Signing on: an enrolled agent announces itself; a new agent uses its enrolment token."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

import httpx

from hw_profiles.agent.connection import Connection, NotAccepted, Refused, Untrusted, persist
from hw_profiles.agent.credentials import Credentials, CredentialStore
from hw_profiles.errors import InvalidInput
from hw_profiles.wire.enrolment import Enrolled, Enrolment


@dataclass(frozen=True)
class SignOn:
    """Signs an agent on to its server. Once `stop` is set, it no longer waits for a server that is away."""

    url: str
    credentials: CredentialStore
    stop: threading.Event
    transport: httpx.BaseTransport | None = None
    ca: Path | None = None

    def sign_on(self, enrolment: Enrolment, token: str | None) -> tuple[Credentials, Enrolled]:
        """Announce the agent if it has valid credentials; otherwise enrol it with `token`.

        Raises:
            InvalidInput: there are neither credentials nor a token.
            AgentError: the server refused.
        """
        known = self.credentials.load()
        if known is not None:
            try:
                return known, self._announce(known, enrolment)
            except NotAccepted:
                if token is None:
                    raise
                self.credentials.forget()
        if token is None:
            raise InvalidInput("enrolment_token", None, f"this machine is not enrolled at {self.url}; give a token")
        return self._enrol(token, enrolment)

    def _announce(self, known: Credentials, enrolment: Enrolment) -> Enrolled:
        return self._call(known.token, "PUT", f"/agents/{known.agent_id}", enrolment, {})

    def _enrol(self, token: str, enrolment: Enrolment) -> tuple[Credentials, Enrolled]:
        once = {"Idempotency-Key": uuid.uuid4().hex}  # lets the server repeat its answer if the first one was lost
        enrolled = self._call(token, "POST", "/agents", enrolment, once)
        credentials = Credentials(self.url, enrolled.agent_id, enrolment.machine, enrolled.token)
        self.credentials.save(credentials)
        return credentials, enrolled

    def _call(self, token: str, method: str, path: str, enrolment: Enrolment, headers: dict[str, str]) -> Enrolled:
        connection = Connection(self.url, token, self.transport, self.ca)

        def call() -> httpx.Response:
            try:
                return connection.call(method, path, enrolment.to_json(), headers)
            except Untrusted as error:
                if method == "PUT":  # was trusted at enrolment, so it must have expired and will be renewed
                    raise
                raise Refused(str(error)) from error

        try:
            answer = persist(call, self.stop)
        finally:
            connection.close()
        return Enrolled.from_json(answer.json())

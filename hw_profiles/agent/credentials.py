"""Credentials: what an agent stores between starts, one file per server, readable only by its user."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hw_profiles.errors import InvalidInput

STATE_DIR_VARIABLE = "NETLATHE_STATE_DIR"


@dataclass(frozen=True)
class Credentials:
    """The agent's identity at the server `url`."""

    url: str
    agent_id: str
    machine: str
    token: str = field(repr=False)


class CredentialStore:
    """The credentials file of one server, for one agent at a time.

    `folder` defaults to $NETLATHE_STATE_DIR, else the user's state folder.
    """

    def __init__(self, url: str, machine: str, folder: Path | None = None) -> None:
        name = hashlib.sha256(f"{url.rstrip('/')}\n{machine}".encode()).hexdigest()[:16]
        self.path = (folder or _state_dir()) / "agents" / f"{name}.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep a second agent for the same server and machine from running while the block runs.

        Raises:
            InvalidInput: another agent is already running.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = self.path.with_suffix(".lock")
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InvalidInput("agent", str(lock), "another agent of this machine serves this server") from None
            yield
        finally:
            os.close(handle)

    def load(self) -> Credentials | None:
        """Return the saved credentials, or None.

        Raises:
            InvalidInput: the file is damaged; the message names it.
        """
        try:
            return Credentials(**json.loads(self.path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise InvalidInput("credentials", str(self.path), f"damaged; delete it and enrol again: {error}") from error

    def save(self, credentials: Credentials) -> None:
        """Replace the file atomically, with mode 0600."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(asdict(credentials), file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def forget(self) -> None:
        """Delete the credentials, because the server no longer knows them."""
        self.path.unlink(missing_ok=True)


def _state_dir() -> Path:
    import platformdirs

    chosen = os.environ.get(STATE_DIR_VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_state_path("netlathe", appauthor=False)

"""Settings, such as where the service keeps its data and where it listens. They are read from environment variables
`NETLATHE_<NAME>`.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal

from platformdirs import user_data_path
from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024**2
GIB = 1024**3
DATABASES = ("postgresql", "postgres", "postgresql+psycopg", "sqlite")
"""Supported schemes of database URLs. Without a URL, SQLite is used."""


def is_loopback(host: str) -> bool:
    """True if only this machine can reach a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Settings(BaseSettings):
    """Settings of a process. The command line makes them once and passes them to `create_app` and to the children."""

    model_config = SettingsConfigDict(env_prefix="NETLATHE_", frozen=True, extra="ignore", env_ignore_empty=True)

    data_dir: Path = Field(default_factory=lambda: user_data_path("netlathe", appauthor=False))
    """Folder of the blobs, the SQLite file and the first user's token; on a shared volume if several machines serve."""
    database_url: str | None = Field(default=None, repr=False)
    """URL of the database; None means SQLite in `data_dir`."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    insecure: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    executor: Literal["ray", "local"] = "ray"
    """The place where candidates are evaluated and trained: Ray, or child processes of a conductor."""
    ray_address: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._\-\[\]:]+:[0-9]{1,5}$")
    """host:port of the head of a Ray cluster; None means that each conductor starts its own Ray on its machine."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names accepted besides the names of loopback. If none is given and the server is not on loopback, all names
    are accepted.
    """

    max_json_bytes: int = Field(default=1 * MIB, gt=0)
    max_model_bytes: int = Field(default=1 * GIB, gt=0)
    max_dataset_bytes: int = Field(default=8 * GIB, gt=0)
    max_table_bytes: int = Field(default=64 * MIB, gt=0)
    check_answer_s: float = Field(default=60.0, ge=0)
    """Time after which the upload is answered with 202 while its check goes on."""
    check_wall_s: float = Field(default=1800.0, gt=0)
    check_memory_bytes: int = Field(default=6 * GIB, gt=0)
    max_queued_jobs: int = Field(default=1000, gt=0)

    lease_s: float = Field(default=30.0, gt=0)
    renew_s: float = Field(default=10.0, gt=0)
    max_crashes: int = Field(default=5, ge=0)
    """Largest number of takeovers of a job without a new evaluation in between. After more takeovers, the job fails."""
    device_offline_s: float = Field(default=3600.0, gt=0)
    """Time that a job waits for an offline device."""
    job_processes: int = Field(default=1, ge=0)
    """Maximum number of evaluators of a job. 0, with the local executor only: evaluate inside the conductor, which
    then dies if a candidate crashes."""

    session_days: float = Field(default=14.0, gt=0)
    sign_in_minutes: float = Field(default=60.0, gt=0)
    idempotency_days: float = Field(default=7.0, gt=0)
    event_days: float = Field(default=30.0, gt=0)
    event_poll_s: float = Field(default=0.2, gt=0)
    """Interval at which a server looks for events that other processes wrote."""
    ping_s: float = Field(default=15.0, gt=0)

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str | None) -> str | None:
        # Only the scheme is shown: the rest of the URL may contain a password.
        scheme, found, _ = (url or "").partition("://")
        if url is not None and (not found or scheme not in DATABASES):
            shown = repr(f"{scheme}://") if found else "no scheme"
            raise ValueError(f"must begin with one of {', '.join(f'{name}://' for name in DATABASES)}, got {shown}")
        return url

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key must be set together; one of them is missing")
        if self.ray_address is not None and self.executor != "ray":
            raise ValueError(f"ray_address needs the executor ray, not {self.executor}")
        if self.renew_s >= self.lease_s:
            raise ValueError(f"renew_s ({self.renew_s}) must be below lease_s ({self.lease_s})")
        return self

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the store."""
        if self.database_url is None:
            return f"sqlite:///{self.data_dir / 'netlathe.db'}"
        for short in ("postgresql://", "postgres://"):
            if self.database_url.startswith(short):
                return "postgresql+psycopg://" + self.database_url.removeprefix(short)
        return self.database_url

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def user_token_path(self) -> Path:
        """Path of the file (mode 0600) with the first user's token, with which the command line on this machine signs
        in.
        """
        return self.data_dir / "user-token"

    @property
    def secret_path(self) -> Path:
        """Path of a file (mode 0600) with 32 random bytes, from which the secrets of repeated requests are derived
        (service.http.idempotency).
        """
        return self.data_dir / "secret"

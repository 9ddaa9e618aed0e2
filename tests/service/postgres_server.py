"""A PostgreSQL server of this test run's own, in a folder of its own, on a socket only."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path

from patience import PATIENCE_S
from sqlalchemy import create_engine, text


class NoPostgres(Exception):
    """No server can be started here; says why."""


def binaries() -> Path:
    """The folder with `initdb` and `postgres`.

    Raises:
        NoPostgres: PostgreSQL is not installed.
    """
    for folder in (*os.environ.get("PATH", "").split(os.pathsep), *sorted(glob("/usr/lib/postgresql/*/bin"))):
        if all((Path(folder) / name).is_file() for name in ("initdb", "postgres")):
            return Path(folder)
    raise NoPostgres("no PostgreSQL is installed (initdb, postgres)")


def _account() -> str | None:
    """Whom to run as: PostgreSQL refuses to be run by root; None: by us."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise NoPostgres("PostgreSQL does not run as root, and there is no other account to run it")


@contextmanager
def running(user: str = "owner", password: str | None = None) -> Iterator[str]:
    """The SQLAlchemy URL of a fresh server, without the database's name; it is gone after the block.

    Args:
        password: None: the folder keeps others out; else anybody on this machine who knows it may connect.
    """
    bin_dir, account = binaries(), _account()
    home = Path(tempfile.mkdtemp(prefix="nlpg-"))
    try:
        _initialise(bin_dir, home, account, user, password)
        server = subprocess.Popen(
            [bin_dir / "postgres", "-D", home / "data", "-k", home, "-c", "listen_addresses=", "-c", "fsync=off"],
            user=account,
            cwd=home,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _await(home, server)
            known = f":{password}" if password is not None else ""
            yield f"postgresql+psycopg://{user}{known}@/{{database}}?host={home}"
        finally:
            server.send_signal(signal.SIGINT)  # fast shutdown
            server.wait(PATIENCE_S)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def compose_database() -> Iterator[str]:
    """The secret `database-url` of docs/compose.md, with the socket of a fresh server in place of its host."""
    with running("netlathe", secrets.token_hex(24)) as url:
        execute(url, "CREATE DATABASE netlathe")
        yield url.format(database="netlathe").replace("postgresql+psycopg", "postgresql")


def execute(url: str, statement: str) -> None:
    """Run a statement that wants no transaction, such as CREATE DATABASE."""
    admin = create_engine(url.format(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(statement))
    admin.dispose()


def _initialise(bin_dir: Path, home: Path, account: str | None, user: str, password: str | None) -> None:
    command: list[str | Path] = [bin_dir / "initdb", "-D", home / "data", "-U", user, "-N", "-E", "UTF8", "-A"]
    command += ["trust"] if password is None else ["scram-sha-256", f"--pwfile={home / 'password'}"]
    if password is not None:
        (home / "password").write_text(password)
        home.chmod(0o711)
    if account is not None:
        for path in (home, *home.iterdir()):
            shutil.chown(path, account)
    ran = subprocess.run(
        command,
        user=account,
        cwd=home,
        env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    if ran.returncode != 0:
        raise NoPostgres(f"initdb failed: {ran.stderr.strip()[-300:]}")


def _await(home: Path, server: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    ready = home / "data" / "postmaster.pid"
    while not (ready.exists() and "ready" in ready.read_text()):
        if server.poll() is not None or time.monotonic() > end_s:
            raise NoPostgres("the server did not come up")
        time.sleep(0.05)

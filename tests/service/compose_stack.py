"""Stack: the parts of docker-compose.yml as processes of this machine, by the very commands and environments in it.

Only names of hosts, ports and folders are others. PostgreSQL is not among the parts: it runs already.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml
from processes import below, command_line
from whole_job import PATIENCE_S, until

from netlathe import Client

ROOT = Path(__file__).parents[2]
SERVICES: Mapping[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
IMAGE = (ROOT / "Dockerfile").read_text()
ENTRYPOINT = re.findall(r'^ENTRYPOINT \["(\w+)"\]$', IMAGE, re.MULTILINE)
BIN = Path(sys.executable).parent
RAY_IS_UP = b"Ray runtime started"


@dataclass
class Part:
    """A container of a service, named `service` or `service-1`, `service-2`...; `process` once it was started."""

    name: str
    port: int
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def service(self) -> Any:
        """What docker-compose.yml says of it."""
        return SERVICES[re.sub(r"-\d+$", "", self.name)]

    @property
    def pid(self) -> int:
        """Of its first process."""
        assert self.process is not None
        return self.process.pid


@dataclass
class Stack:
    """What `docker compose up` starts, part by part; `with` ends all of it.

    Args:
        folder: for volumes, secrets and logs; short, since paths of sockets are limited.
        database_url: of the database that the secret names.
        isolated: whether this process's network has only loopback; else nothing of ours listens on more.
        settings: service or part -> environment beyond the file's.
        arguments: service or part -> words after the command's.
    """

    folder: Path
    database_url: str
    isolated: bool
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    arguments: Mapping[str, Sequence[str]] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._ray_port = free_port()
        (self.folder / "secrets").mkdir(mode=0o700)
        self.keep_secret("database_url", self.database_url)
        self.keep_secret("ray_token", secrets.token_hex(32))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for name in self.parts:
                sys.stderr.write(f"--- {name}\n{self.log(name)[-800:]}\n")
        self.end()

    def keep_secret(self, name: str, value: str) -> None:
        """A file that docker-compose.yml mounts."""
        (self.folder / "secrets" / name).write_text(value)

    def part(self, name: str) -> Part:
        """The part of this name."""
        return self.parts.setdefault(name, Part(name, free_port()))

    def url(self, name: str) -> str:
        """Where a replica of the API listens."""
        return f"http://127.0.0.1:{self.part(name).port}"

    def client(self, name: str) -> Client:
        """Of the first user, at one replica; patient, since replicas are killed."""
        return Client(self.url(name), (self.folder / "data" / "user-token").read_text().strip(), retries=8)

    # starting

    def command(self, part: Part) -> list[str]:
        """The entry point and the command of its service, here."""
        (program,) = part.service.get("entrypoint", ENTRYPOINT)
        words = [self._here(part, word) for word in part.service["command"]]
        words += [f"--temp-dir={self.folder / part.name}"] if program == "ray" else []
        return [str(BIN / program), *words, *self._of(self.arguments, part)]

    def environment(self, part: Part) -> dict[str, str]:
        """The environment of its service, here, and what any process needs."""
        given = {name: self._here(part, value) for name, value in part.service.get("environment", {}).items()}
        own = {"HOME": str(self.folder), "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
        # Threads of many processes would wait for each other.
        extra = {"OMP_NUM_THREADS": "1", "NETLATHE_PORT": str(part.port)}
        return {**own, **given, **extra, **dict(self._of(self.settings, part))}

    def run(self, name: str) -> None:
        """Start a part and wait until it has ended well."""
        self.start(name)
        assert self.part(name).process.wait(PATIENCE_S) == 0, self.log(name)[-2000:]  # type: ignore[union-attr]

    def start(self, name: str) -> None:
        """Start a part; returns at once."""
        part = self.part(name)
        part.starts += 1
        for volume in part.service.get("volumes", []):
            (self.folder / volume.split(":")[0]).mkdir(mode=0o700, exist_ok=True)
        with self._log(part).open("wb") as out:
            part.process = subprocess.Popen(
                self.command(part),
                env=self.environment(part),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def await_healthy(self, name: str) -> None:
        """Until the service's own health check passes, or Ray says that the node runs."""
        part = self.part(name)
        if "healthcheck" not in part.service:
            until(lambda: RAY_IS_UP in self._log(part).read_bytes() or self._ended(part), f"{name} to start")
        else:
            _, *words = part.service["healthcheck"]["test"]
            check = [str(BIN / words[0]), *(self._here(part, word) for word in words[1:])]
            until(
                lambda: subprocess.run(check, capture_output=True).returncode == 0 or self._ended(part),
                f"{name} to be healthy",
            )
        assert not self._ended(part), self.log(name)[-2000:]

    # ending

    def kill(self, name: str, *, whole: bool = False) -> None:
        """Kill -9 of a part's first process; `whole`: of every process in it, as when a machine is gone."""
        part = self.part(name)
        assert part.process is not None
        for pid in [part.pid, *(below(part.pid) if whole else ())]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        part.process.wait()

    def end(self) -> dict[str, int]:
        """SIGTERM to every part, as `docker compose stop` does; name -> exit status. Afterwards nothing is left."""
        running = {name: part.process for name, part in self.parts.items() if not self._ended(part)}
        left = [pid for process in running.values() if process is not None for pid in below(process.pid)]
        for process in running.values():
            assert process is not None
            process.terminate()
        ended = {name: process.wait(PATIENCE_S) for name, process in running.items() if process is not None}
        for pid in left:
            if command_line(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return ended

    # looking

    def log(self, name: str) -> str:
        """What a part has said since it was started last."""
        return self._log(self.part(name)).read_text(errors="replace")

    def actors(self, name: str) -> list[int]:
        """Process ids of the evaluators on a Ray node."""
        part = self.part(name)
        return [] if self._ended(part) else [pid for pid in below(part.pid) if "ray::Actor" in command_line(pid)]

    # parts

    @staticmethod
    def _ended(part: Part) -> bool:
        return part.process is None or part.process.poll() is not None

    @staticmethod
    def _of(given: Mapping[str, Any], part: Part) -> Any:
        return given.get(part.name, given.get(re.sub(r"-\d+$", "", part.name), ()))

    def _log(self, part: Part) -> Path:
        return self.folder / f"{part.name}.{part.starts}.log"

    def _here(self, part: Part, text: str) -> str:
        places = {
            "ray-head:6379": f"127.0.0.1:{self._ray_port}",
            "--port=6379": f"--port={self._ray_port}",
            "http://api:8000": self.url("api-1"),
            "http://127.0.0.1:8000": self.url(part.name),
            "/run/secrets": str(self.folder / "secrets"),
        }
        for volume in part.service.get("volumes", []):
            name, at = volume.split(":")
            places[at] = str(self.folder / name)
        if not self.isolated:
            places["0.0.0.0"] = "127.0.0.1"
        known = "|".join(map(re.escape, places))
        return re.sub(rf"({known})\b", lambda found: places[found[0]], text)


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])

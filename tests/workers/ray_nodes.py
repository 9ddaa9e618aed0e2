"""A program: the Ray nodes of docker-compose.yml on this machine, and a pool on both, one of which is killed.

python ray_nodes.py FOLDER      prints one JSON object
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import yaml
from isolation import bring_up_loopback
from patience import PATIENCE_S

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from workers.evaluating.evaluate_safely import ended
from workers.on_ray.executor import RayExecutor
from workers.pools.pool import Evaluator, Pool

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Where:
    """Tells the node that evaluates; `wait` waits for the file `go` in the folder."""

    folder: Path

    def __call__(self) -> Evaluator:
        return self.evaluate

    def evaluate(self, candidate: Candidate) -> Evaluation:
        import ray

        node = ray.get_runtime_context().get_node_id()
        (self.folder / f"{candidate.id}.at").write_text(node)
        while candidate.values["wait"] and not (self.folder / "go").exists():
            time.sleep(0.02)
        return ended(candidate, Status.STOPPED, node)


def command(service: str, port: int, folder: Path) -> list[str]:
    """The service's command, with this machine and a free port in place of the head's name and port."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    words = [word.replace("ray-head:6379", f"127.0.0.1:{port}") for word in services[service]["command"]]
    words = [f"--port={port}" if word == "--port=6379" else word for word in words]
    return [sys.executable, "-m", "ray.scripts.scripts", *words, f"--temp-dir={folder / service}"]


def started(service: str, port: int, folder: Path) -> subprocess.Popen[bytes]:
    """A node, once it says that it runs."""
    log = folder / f"{service}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command(service, port, folder), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    end_s = time.monotonic() + PATIENCE_S
    while b"Ray runtime started" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > end_s:
            raise SystemExit(f"{service} did not start: {log.read_text()[-2000:]}")
        time.sleep(0.1)
    return process


def drain(pool: Pool, names: Sequence[str]) -> dict[str, str]:
    """Candidate -> node, once all of them are back."""
    found: dict[str, str] = {}
    end_s = time.monotonic() + PATIENCE_S
    while set(found) != set(names):
        if time.monotonic() > end_s:
            raise SystemExit(f"only {found} of {names} came back")
        evaluation = pool.next(0.5)
        if evaluation is not None:
            found[evaluation.candidate.id] = evaluation.reason
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def main(folder: Path) -> None:
    bring_up_loopback()
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    os.environ["PYTHONPATH"] = f"{ROOT}:{ROOT / 'tests'}:{Path(__file__).parent}"
    port = free_port()
    for_nodes = os.environ.pop("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", None)  # that is for a Ray of our own
    nodes = {service: started(service, port, folder) for service in ("ray-head", "ray-worker")}
    if for_nodes is not None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = for_nodes
    executor = RayExecutor(f"127.0.0.1:{port}")
    try:
        executor.start()
        executor._cluster.wait(PATIENCE_S)
        with executor.pool(Where(folder), 2, PATIENCE_S, nullcontext) as pool:
            told = {"capacity": pool.capacity, "cpus": list(executor._cluster.node_cpus())}
            slow = ["slow-a", "slow-b"]
            for name in slow:
                pool.submit(Candidate(name, {"wait": 1}))
            end_s = time.monotonic() + PATIENCE_S
            while not all((folder / f"{name}.at").exists() for name in slow):
                assert pool.next(0.1) is None
                assert time.monotonic() < end_s
            before = {name: (folder / f"{name}.at").read_text() for name in slow}
            nodes["ray-worker"].send_signal(signal.SIGKILL)
            nodes["ray-worker"].wait()
            while len([cpus for cpus in executor._cluster.node_cpus() if cpus]) == 2:
                assert pool.next(0.5) is None
                assert time.monotonic() < end_s
            (folder / "go").touch()
            after = drain(pool, slow)
        sys.stdout.write(json.dumps({**told, "before": before, "after": after}) + "\n")
    finally:
        executor.close()
        for process in nodes.values():
            process.terminate()
        for process in nodes.values():
            process.wait(PATIENCE_S)


if __name__ == "__main__":
    from ray_nodes import main as named  # the evaluator's class is found by this name in the workers

    named(Path(sys.argv[1]))

"""Two Ray nodes on one machine, started as docker-compose.yml starts them; a candidate survives its node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from workers.ray_cluster import RayCluster

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("ray_nodes.py")
ISOLATED = ["unshare", "--map-root-user", "--net"]
"""Ray's nodes listen on every interface: in a network namespace of their own there is only loopback."""


def isolated() -> list[str]:
    """What runs a command in such a namespace; nothing where the kernel or the machine forbids it."""
    try:
        done = subprocess.run([*ISOLATED, "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    except FileNotFoundError:
        return []
    return ISOLATED if done.returncode == 0 else []


@pytest.mark.long
def test_candidates_run_on_both_nodes_and_survive_the_death_of_one() -> None:
    prefix = isolated()
    with tempfile.TemporaryDirectory(prefix="nlr-") as folder:  # short: paths of sockets are limited
        command = [*prefix, sys.executable, str(PROGRAM), folder, *(["--loopback"] if prefix else [])]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{PROGRAM.parent}"}
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert (found["capacity"], found["cpus"]) == (2, [1, 1, 0])
    assert len(set(found["before"].values())) == 2, "one candidate on each node"
    assert set(found["after"]) == set(found["before"])
    assert len(set(found["after"].values())) == 1, "both on the node that is left"


def test_a_cluster_without_a_token_is_down_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    cluster = RayCluster("127.0.0.1:1")
    cluster.start()
    with pytest.raises(Exception, match="token is missing: RAY_AUTH_TOKEN_PATH"):
        cluster.wait(5.0)
    assert cluster.state == "down"
    cluster.close()

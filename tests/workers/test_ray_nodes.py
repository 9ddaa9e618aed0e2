"""Two Ray nodes on one machine, started as docker-compose.yml starts them; a candidate survives its node."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from isolation import told_by

from workers.ray_cluster import RayCluster

PROGRAM = Path(__file__).with_name("ray_nodes.py")


@pytest.mark.long
def test_candidates_run_on_both_nodes_and_survive_the_death_of_one() -> None:
    with tempfile.TemporaryDirectory(prefix="nlr-") as folder:  # short: paths of sockets are limited
        found = told_by(PROGRAM, folder, timeout_s=400)
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

"""Two Ray nodes on one machine, started as docker-compose.yml starts them; a candidate survives its node."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
from isolation import told_by
from patience import PATIENCE_S

from workers.on_ray.cluster import RayCluster

PROGRAM = Path(__file__).parents[1] / "ray_nodes.py"


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
    end_s = time.monotonic() + PATIENCE_S
    while cluster.state != "down" and time.monotonic() < end_s:
        time.sleep(0.05)
    assert cluster.state == "down"
    with pytest.raises(Exception, match="token is missing: set RAY_AUTH_TOKEN_PATH"):
        cluster.wait(0)
    cluster.close()

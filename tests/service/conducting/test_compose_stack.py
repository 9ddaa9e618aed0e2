"""The very commands of docker-compose.yml, started by hand: a job runs through all the parts."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from isolation import told_by
from postgres_server import NoPostgres, compose_database

PROGRAM = Path(__file__).parents[1] / "compose_job.py"


@pytest.mark.long
def test_a_job_runs_through_every_part() -> None:
    try:
        with tempfile.TemporaryDirectory(prefix="nlc-") as folder, compose_database() as url:
            found = told_by(PROGRAM, folder, url, timeout_s=900)
    except NoPostgres as reason:
        pytest.skip(str(reason))
    assert (found["state"], found["verdict"], found["failure"]) == ("succeeded", "met", None), found
    assert found["ready"] == {"store": "ok", "writes": "ok", "executor": "ok", "conductors": 2}
    assert found["evaluations"].count(["F2", "completed"]) == 8
    assert len(found["files"]) == 4
    ours = ("api-1", "api-2", "conductor-1", "conductor-2", "agent")
    assert {name: found["ended"][name] for name in ours} == dict.fromkeys(ours, 0)

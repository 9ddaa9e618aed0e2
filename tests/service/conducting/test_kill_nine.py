"""Kill -9, ten times each at random moments of a search: an evaluator, a Ray node, the conductor, the API server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from isolation import told_by
from kill_nine import EVALUATIONS, KILLS, VICTIMS
from postgres_server import NoPostgres, compose_database

pytestmark = pytest.mark.long
PROGRAM = Path(__file__).parents[1] / "kill_nine.py"


@pytest.fixture(scope="module")
def told() -> Iterator[Any]:
    """What became of each job, by its victim; the job of `nobody` ran undisturbed."""
    try:
        with tempfile.TemporaryDirectory(prefix="nlk-") as folder, compose_database() as url:
            yield told_by(PROGRAM, folder, url, timeout_s=1800)
    except NoPostgres as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_search_ends_as_if_nothing_had_died(victim: str, told: Any) -> None:
    found, calm = told[victim], told["nobody"]
    assert (found["state"], found["verdict"], found["failure"]) == ("succeeded", "met", None), found["log"]
    rows = found["rows"]
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
    paid = [row for row in rows if row["fidelity"] == "F2" and not row["cached"]]
    assert [row["status"] for row in paid] == ["completed"] * EVALUATIONS

    assert len(found["killed_after"]) == KILLS
    for before in found["killed_after"]:
        assert before == [row["id"] for row in rows][: len(before)], "what was recorded stays, with its number"
        assert len(before) < EVALUATIONS, "killed in the search, not after it"

    def lasting(job: Any) -> list[Any]:
        return [{**row, "id": None} for row in job["rows"]]

    assert lasting(found) == lasting(calm)
    assert found["front"] == calm["front"]
    assert len(found["front"]) > 1


def test_every_death_of_a_conductor_was_a_takeover(told: Any) -> None:
    assert told["nobody"]["epoch"] == 1
    assert told["conductor"]["epoch"] == 1 + KILLS

"""The layers on the job page: escaped rows in the HTML, with each finalist's strategy; words while there are none."""

from __future__ import annotations

from fastapi.testclient import TestClient
from layer_reports import REST, ended_job, row
from service_world import Uploaded

from service.files.blobs import Blobs
from service.jobs.layers import LayersPublic
from service.pages.job.layers import layer_tables
from service.settings import Settings
from service.store import Store
from service.store.jobs import job_states, jobs


def test_the_job_page_shows_the_layers_of_every_finalist(
    client: TestClient, store: Store, settings: Settings, uploaded: Uploaded, user_token: str
) -> None:
    job = ended_job(store, Blobs(settings.data_dir), uploaded)
    assert client.post("/api/v1/session", json={"token": user_token}).status_code == 201
    text = client.get(f"/jobs/{job}").text
    best, other = text.index("Best, found by greedy"), text.index("Another finalist, found by tpe")
    assert best < text.index("32 → 20") < other < text.index("32 → 24")
    assert "saves 0.031 ms of 0.080 ms; alone it costs 0.4 points" in text
    assert "0.080 ms → 0.049 ms" in text
    assert "+0.40%" in text
    assert "block&lt;1&gt;" in text
    assert "block<1>" not in text
    assert 'best <span class="soft small">by greedy</span>' in text


def test_a_job_without_layers_says_when_they_come(
    client: TestClient, store: Store, user_token: str, queued: str
) -> None:
    assert client.post("/api/v1/session", json={"token": user_token}).status_code == 201
    assert "is shown when the job has ended" in client.get(f"/jobs/{queued}").text
    with store.begin() as tx:
        job_states.cancel(tx, jobs.get(tx, queued))
    assert "No network was judged" in client.get(f"/jobs/{queued}").text


def test_bars_are_shares_of_the_longest_time() -> None:
    items = [row("a", 20, 0.04), REST | {"latency_ms": {"dev_1": [-0.01, 0.02]}}, REST | {"latency_ms": {}}]
    found = LayersPublic.model_validate({"evaluation_id": "e", "strategy": "tpe", "items": items})
    (network,) = layer_tables([found], "dev_1")
    assert [each["bars"] for each in network["rows"]] == [[1.0, 0.5], [0.0, 0.25], []]
    assert [each["bars"] for each in layer_tables([found], None)[0]["rows"]] == [[], [], []]

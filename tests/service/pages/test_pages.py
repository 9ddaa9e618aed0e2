"""The dashboard's HTML: complete before any script, escaped, and closed to strangers."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from service_world import Uploaded, queue

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from service.pages import pages
from service.pages.device import curves
from service.pages.formats import DASH, percent
from service.store import Store
from service.store.jobs import conductors, evaluations, job_leases, jobs
from service.store.jobs.job_leases import Held
from service.store.jobs.jobs import Job
from workers.progress import Evaluated


def test_a_drop_that_rounds_to_nothing_has_no_minus() -> None:
    assert (percent(-1e-9), percent(-0.0001), percent(None)) == ("0.00 %", "-0.01 %", DASH)


@pytest.fixture
def browser(client: TestClient, user_token: str) -> TestClient:
    """A client that is signed in the way a browser is: by cookie."""
    del client.headers["Authorization"]
    assert client.post("/api/v1/session", json={"token": user_token}).status_code == 201
    return client


def searched(store: Store, uploaded: Uploaded) -> Held:
    """A running job on the device with three evaluations: within the limit, over it, failed."""
    queue(store, uploaded, targets=[{"device": uploaded.device_id, "max_latency_ms": 5.0}])
    with store.begin() as tx:
        held = job_leases.claim(tx, "tests", lease_s=30, max_crashes=3)
    assert held is not None
    record(store, held, 0, latency_ms=4.0, accuracy=0.91, device_id=uploaded.device_id)
    record(store, held, 1, latency_ms=6.0, accuracy=0.95, device_id=uploaded.device_id)
    failed = Evaluation(proposed(2), Status.FAILED, {}, 0.5, "nan: the loss <b>was</b> not finite")
    with store.begin() as tx:
        evaluations.add(tx, held, Evaluated("greedy", failed, False, False, {}))
    return held


def proposed(number: int) -> Candidate:
    return Candidate(id=f"c{number}", values={"width": 8 * (number + 1)}, origin="greedy")


def record(store: Store, held: Held, number: int, *, latency_ms: float, accuracy: float, device_id: str) -> None:
    """One more completed evaluation of a running job whose limit is 5 ms."""
    metrics = {f"latency_ms@{device_id}": latency_ms, "accuracy": accuracy, "macs": 1e6, "size_bytes": 4e5}
    completed = Evaluation(proposed(number), Status.COMPLETED, metrics, 0.5)
    with store.begin() as tx:
        evaluations.add(tx, held, Evaluated("greedy", completed, latency_ms <= 5.0, False, {}))


def test_every_page_sends_a_stranger_to_the_sign_in(anonymous: TestClient, queued: str) -> None:
    for page in pages():
        path = page.path.replace("{job_ref}", queued).replace("{ref}", "dev_1")
        answer = anonymous.get(path, follow_redirects=False)
        if page.open:
            assert answer.status_code == 200
        else:
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/sign-in?next=")
            assert "net" not in answer.text


def test_the_empty_pages_teach(browser: TestClient) -> None:
    assert "netlathe submit" in browser.get("/jobs").text
    assert "netlathe agent" in browser.get("/devices").text


def test_the_root_is_the_list_of_jobs(browser: TestClient) -> None:
    assert browser.get("/", follow_redirects=False).headers["location"] == "/jobs"


def test_a_job_is_in_the_list_with_its_device(browser: TestClient, store: Store, uploaded: Uploaded) -> None:
    job_id = searched(store, uploaded).job_id
    text = browser.get("/jobs").text
    assert f'href="/jobs/{job_id}"' in text
    assert "local-simulated-t1-fp32" in text
    assert "running" in browser.get("/jobs?state=running").text
    assert job_id not in browser.get("/jobs?state=failed").text


def test_a_job_shows_its_evaluations_and_its_front(browser: TestClient, store: Store, uploaded: Uploaded) -> None:
    text = browser.get(f"/jobs/{searched(store, uploaded).job_id}").text
    assert "91.00 %" in text
    assert "4.000 ms" in text
    assert "over the limit" in text
    assert text.count("on front") == 2


def test_the_best_of_a_failed_job_has_no_file_and_says_so(
    browser: TestClient, store: Store, uploaded: Uploaded
) -> None:
    held = searched(store, uploaded)
    with store.begin() as tx:
        job_leases.fence(tx, held, best={"strategy": "greedy", "accuracy": 0.91})
    assert "Best within the limits:" in browser.get(f"/jobs/{held.job_id}").text
    with store.begin() as tx:
        job_leases.end(tx, held, "failed", failure={"code": "internal", "step": "train", "field": None, "detail": "x"})
    text = browser.get(f"/jobs/{held.job_id}").text
    assert "Best of the search within the limits, not verified, no file:" in text
    assert "Best within the limits:" not in text


def test_a_queued_job_names_the_waiting_job_before_it(browser: TestClient, store: Store, uploaded: Uploaded) -> None:
    held = searched(store, uploaded)
    behind = queue(store, uploaded)
    with store.begin() as tx:
        conductors.seen(tx, "c1", "ok")
    assert "queued behind" not in browser.get(f"/jobs/{behind}").text
    with store.begin() as tx:
        jobs.wait_for(tx, held.job_id, uploaded.device_id)
        name = jobs.get(tx, held.job_id).name
        seen = f"queued behind {name}, which waits for device local-simulated-t1-fp32"
    assert browser.get(f"/api/v1/jobs/{behind}").json()["queued_behind"] == seen
    for path in (f"/jobs/{behind}", "/jobs"):
        assert seen in browser.get(path).text, path
    with store.begin() as tx:
        conductors.seen(tx, "c2", "ok")
    assert "queued behind" not in browser.get(f"/jobs/{behind}").text


def test_a_job_that_nobody_can_run_says_so(browser: TestClient, store: Store, queued: str) -> None:
    assert "This job cannot start" in browser.get(f"/jobs/{queued}").text
    with store.begin() as tx:
        conductors.seen(tx, "c1", "starting")
    assert "This job cannot start" not in browser.get(f"/jobs/{queued}").text


def test_finalists_stand_apart_from_what_the_budget_counts(
    browser: TestClient, store: Store, uploaded: Uploaded
) -> None:
    held = searched(store, uploaded)
    trained = replace(proposed(9), fidelity="F4", after_search=True)
    with store.begin() as tx:
        evaluations.add(tx, held, Evaluated("greedy", Evaluation(trained, Status.COMPLETED, {"accuracy": 0.97}, 9.0)))
    text = browser.get(f"/jobs/{held.job_id}").text
    apart, search = text.index("Finalists: trained (F4)"), text.index(">Search</th>")
    assert apart < text.index('id="evaluation-4"') < search < text.index('id="evaluation-3"')
    assert "3 of 60 evaluations" in text


def test_what_comes_from_outside_is_escaped(browser: TestClient, store: Store, uploaded: Uploaded) -> None:
    job_id = searched(store, uploaded).job_id
    with store.begin() as tx:
        job = tx.session.get_one(Job, job_id)
        job.failure = {"code": "x", "step": "train", "field": None, "detail": "<script>alert(1)</script>"}
    text = browser.get(f"/jobs/{job_id}").text
    assert "<script>alert" not in text
    assert "<b>was</b>" not in text
    assert "&lt;script&gt;alert" in text


def test_no_inline_script_and_nothing_from_elsewhere(browser: TestClient, store: Store, uploaded: Uploaded) -> None:
    job_id = searched(store, uploaded).job_id
    for path in ("/sign-in", "/jobs", f"/jobs/{job_id}", "/devices", "/devices/dev_1"):
        text = browser.get(path).text
        assert not re.search(r"<script(?![^>]*\bsrc=)", text)
        assert not re.search(r'\b(?:src|href)="(?:https?:)?//', text)
        for asset in re.findall(r'(?:src|href)="(/assets/[^"]+)"', text):
            answer = browser.get(asset)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]


def test_an_asset_that_is_none_is_not_found(browser: TestClient) -> None:
    for name in ("page.py", "..%2f..%2fsettings.py", "job/page.html", "static/none.js"):
        assert browser.get(f"/assets/000000000000/{name}").status_code == 404


def test_an_unknown_job_and_device_are_a_page_that_says_so(browser: TestClient) -> None:
    for path in ("/jobs/job_none", "/devices/dev_none"):
        answer = browser.get(path)
        assert answer.status_code == 404
        assert "Not found" in answer.text


def test_curves_need_three_channel_counts() -> None:
    assert curves([]) == []


def test_the_result_shows_how_sure_its_accuracy_is(browser: TestClient, store: Store, uploaded: Uploaded) -> None:
    held = searched(store, uploaded)
    interval = {"low": 0.87, "high": 0.92, "n": 500}
    drop = {"mean": 0.01, "low": -0.005, "high": 0.025, "n": 500}
    best = {"accuracy": 0.9, "accuracy_interval": interval, "accuracy_drop": drop, "finalists": 3}
    with store.begin() as tx:
        job_leases.fence(tx, held, best=best, control={"accuracy": 0.91, "accuracy_interval": interval})
    page = browser.get(f"/jobs/{held.job_id}").text
    assert page.count("500 images") == 2
    assert page.count("lost against the control:") == 1
    assert page.count("chosen among 3 finalists on these very images") == 1


def test_a_lost_browser_gets_a_page_and_a_program_a_problem(client: TestClient) -> None:
    browser = {"Accept": "text/html,*/*"}
    lost = client.get("/nowhere/<b>", headers=browser)
    assert (lost.status_code, lost.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "/nowhere/&lt;b&gt;" in lost.text or "/nowhere/%3Cb%3E" in lost.text
    assert client.get("/nowhere").json()["code"] == "not_found"
    assert client.get("/api/v1/nowhere", headers=browser).json()["code"] == "not_found"

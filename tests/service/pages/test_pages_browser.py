"""The dashboard in a real Chromium: sign-in, live rows and charts, no foreign request, no error in the console."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from agent_calls import conv
from patience import PATIENCE_S
from playwright.sync_api import Browser, FloatRect, Page, expect, sync_playwright
from service_world import Uploaded, queue
from test_pages import proposed, record, searched

from hw_profiles.tables.table import Row
from hw_profiles.timing.protocol import Timing
from search.evaluation import Evaluation, Status
from service.app import create_app
from service.settings import Settings
from service.store import Store
from service.store.devices import devices, latency
from service.store.jobs import evaluations, job_leases
from workers.progress import Evaluated

pytestmark = pytest.mark.browser

CHROMIUM = os.environ.get("NETLATHE_CHROMIUM") or shutil.which("chromium")
expect.set_options(timeout=PATIENCE_S * 1000)
# A browser that phones home is refused by a closed network, loudly.
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium, or NETLATHE_CHROMIUM=/path/to/it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def url(settings: Settings, store: Store) -> Iterator[str]:
    """A real server on loopback."""
    config = uvicorn.Config(create_app(settings, store), port=0, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


class Watched:
    """A tab that remembers what went wrong in it and whom it asked."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2].split(":")[0]))

    def check(self) -> None:
        assert self.errors == []
        assert self.hosts <= {"127.0.0.1"}


@pytest.fixture
def tab(chromium: Browser, url: str, user_token: str) -> Iterator[Watched]:
    """A signed-in tab: the token went through the form."""
    context = chromium.new_context(base_url=url)
    context.set_default_timeout(PATIENCE_S * 1000)
    watched = Watched(context.new_page())
    page = watched.page
    page.goto("/devices")
    expect(page).to_have_url(f"{url}/sign-in?next=/devices")
    page.get_by_label("Token").fill(user_token)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{url}/devices")
    yield watched
    watched.check()
    context.close()


def shot(page: Page, name: str) -> None:
    """A picture for people, where NETLATHE_SHOTS names a folder."""
    folder = os.environ.get("NETLATHE_SHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_a_wrong_token_is_told_so(chromium: Browser, url: str) -> None:
    page = chromium.new_page(base_url=url)
    page.set_default_timeout(PATIENCE_S * 1000)
    page.goto("/sign-in")
    page.get_by_label("Token").fill("nl_u_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).not_to_be_empty()
    page.close()


def test_a_job_lives_while_one_looks(tab: Watched, store: Store, uploaded: Uploaded) -> None:
    held = searched(store, uploaded)
    page = tab.page
    page.goto("/jobs")
    expect(page.get_by_role("status")).to_have_text("live")
    shot(page, "jobs")
    page.goto(f"/jobs/{held.job_id}")
    expect(page.get_by_role("status")).to_have_text("live")
    expect(page.locator("#evaluations tr[id]")).to_have_count(3)
    expect(page.locator("#front .main-svg").first).to_be_visible()
    page.evaluate("window.mark = 1")
    record(store, held, 7, latency_ms=3.5, accuracy=0.93, device_id=uploaded.device_id)
    expect(page.locator("#evaluations tr[id]")).to_have_count(4)
    expect(page.locator("#evaluation-4")).to_contain_text("93.00 %")
    expect(page.locator("#front .scatterlayer .points path")).to_have_count(3)
    assert page.evaluate("window.mark") == 1, "the page was reloaded"
    shot(page, "job")
    page.emulate_media(color_scheme="dark")
    shot(page, "job-dark")


def box(tab: Watched, selector: str) -> FloatRect:
    """Where the first such element lies on the page."""
    found = tab.page.locator(selector).first.bounding_box()
    assert found is not None, selector
    return found


def test_on_a_phone_nothing_lies_over_the_points_and_no_button_wraps(
    tab: Watched, store: Store, uploaded: Uploaded
) -> None:
    queue(store, uploaded, targets=[{"device": uploaded.device_id, "max_latency_ms": 5.0}])
    with store.begin() as tx:
        held = job_leases.claim(tx, "tests", lease_s=30, max_crashes=3)
    assert held is not None
    strategies = ("greedy", "random", "uniform", "one-more", "and-another")
    for number, strategy in enumerate(strategies):
        metrics = {f"latency_ms@{uploaded.device_id}": 6.0 + number, "accuracy": 0.5 + 0.1 * number, "macs": 1e6}
        done = Evaluation(proposed(number), Status.COMPLETED, metrics, 0.5)
        with store.begin() as tx:
            evaluations.add(tx, held, Evaluated(strategy, done, False, False, {}))
    page = tab.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"/jobs/{held.job_id}")
    expect(page.locator("#front .scatterlayer .points path")).to_have_count(len(strategies))
    expect(page.locator("#best .annotation")).to_have_text("No evaluation is within the limits yet.")
    expect(page.locator("#best .xtick")).to_have_count(0)
    shot(page, "job-phone")
    legend, plot, chart = (box(tab, f"#front {part}") for part in (".legend .bg", ".nsewdrag", ".main-svg"))
    assert legend["y"] >= chart["y"]
    assert legend["y"] + legend["height"] <= plot["y"] + 1
    assert plot["height"] > chart["height"] / 3
    assert box(tab, "#sign-out")["height"] < 40
    assert box(tab, ".bar")["height"] < 60, "what stands in it takes more than one row"
    record(store, held, 7, latency_ms=3.5, accuracy=0.93, device_id=uploaded.device_id)
    expect(page.locator("#best .annotation")).to_have_count(0)
    expect(page.locator("#best .scatterlayer .points path")).to_have_count(1)


def test_a_device_shows_latency_against_channels(tab: Watched, store: Store, uploaded: Uploaded) -> None:
    with store.begin() as tx:
        device = devices.get(tx, uploaded.device_id)
        for channels in range(4, 68, 4):
            latency_us = 10.0 + 8.0 * -(-channels // 16)
            timing = Timing(latency_us, latency_us * 1.1, latency_us * 1.3, 0.004, 10, {})
            row = Row.of(conv(channels), timing)
            latency.import_table(tx, device, latency.table(tx, device.id).updated([row]))
    page = tab.page
    page.goto("/devices")
    shot(page, "devices")
    page.get_by_role("link", name="local-simulated-t1-fp32").click()
    expect(page.locator("#chart .scatterlayer .points path")).to_have_count(16)
    shot(page, "device")


def test_pause_and_cancel_from_the_page(tab: Watched, store: Store, queued: str) -> None:
    page = tab.page
    page.goto(f"/jobs/{queued}")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Run again")).to_be_visible()
    page.get_by_role("button", name="Run again").click()
    expect(page).not_to_have_url(page.url.rsplit("/", 1)[0] + f"/{queued}")
    expect(page.get_by_text("queued", exact=True)).to_be_visible()

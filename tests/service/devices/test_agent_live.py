"""The agent against the real application over loopback: real requests, real child processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from agent_calls import conv, enrolment_token, fill
from live_server import serving, until
from patience import PATIENCE_S
from service_world import HandClock

from hw_profiles.agent.__main__ import TOKEN_VARIABLE
from hw_profiles.agent.agent import Agent
from hw_profiles.agent.self_test import null_model
from hw_profiles.host_lock import LOCK_DIR_VARIABLE, HostLock
from hw_profiles.runtimes.simulated.engine import SimulatedRuntime
from hw_profiles.tables.probe import probe_op
from hw_profiles.timing.protocol import BurstProtocol
from hw_profiles.timing.timing_model import timing_model
from service.files.blobs import Blobs
from service.processes.agent_child import agent_child
from service.settings import Settings
from service.store import Store
from service.store.devices import agent_leases, devices, latency, measurements, work_items

HW_TESTS = Path(__file__).parents[2] / "hw_profiles"


@pytest.fixture
def url(settings: Settings, store: Store) -> Iterator[str]:
    with serving(settings, store) as found:
        yield found


@contextmanager
def running(
    url: str, store: Store, folder: Path, runtime: str = "simulated", offer_again: bool = False
) -> Iterator[Agent]:
    """An agent in a thread; it has drained when the block ends."""
    agent = Agent(
        url,
        machine="bench",
        runtimes=[runtime],
        enrolment_token=enrolment_token(store, f"token-{os.urandom(4).hex()}"),
        state_dir=folder,
        lock=HostLock(folder),
        offer_again=offer_again,
    )
    codes: list[int] = []
    folder.mkdir(parents=True, exist_ok=True)
    thread = threading.Thread(target=lambda: codes.append(agent.run()))
    thread.start()
    try:
        yield agent
    finally:
        agent.drain()
        thread.join(PATIENCE_S)
    assert codes == [0]


def device_id(store: Store, runtime: str = "simulated") -> str:
    """The id of the agent's device, once it has enrolled."""
    name = f"bench-{runtime}-t1-fp32"

    def known() -> bool:
        with store.read() as tx:
            return devices.find(tx, name) is not None

    until(known, f"device {name}")
    with store.read() as tx:
        return devices.get(tx, name).id


def filled(store: Store, found: str) -> bool:
    with store.read() as tx:
        return work_items.outstanding(tx, found) == 0


def test_blocks_and_whole_networks_are_timed_and_calibrated(
    url: str, store: Store, settings: Settings, tmp_path: Path
) -> None:
    ops = [probe_op(8, width, 16) for width in (16, 32, 48, 64)]
    blobs = Blobs(settings.data_dir)
    networks = {f"n{i}": blobs.put_bytes(timing_model(op, 2).SerializeToString()) for i, op in enumerate(ops)}
    with running(url, store, tmp_path / "agent"):
        found = device_id(store)
        fill(store, found, ops)
        until(lambda: filled(store, found), "the table")
        with store.begin() as tx:
            for blob in networks.values():
                blobs.record(tx, blob)
            shas = {name: blob.sha256 for name, blob in networks.items()}
            blocks = {f"n{i}": [op, op] for i, op in enumerate(ops)}
            asked = measurements.measure(tx, found, shas, BurstProtocol(min_rounds=8, max_rounds=8), blocks)

        def measured() -> bool:
            with store.read() as tx:
                return measurements.measurement(tx, asked).state in ("done", "failed")

        until(measured, "the measurement")
    truth = SimulatedRuntime()
    with store.read() as tx:
        table = latency.table(tx, found)
        done = measurements.measurement(tx, asked)
        samples = done.samples()
    assert done.failure is None
    assert {name: sample.bursts for name, sample in samples.items()} == dict.fromkeys(networks, 8)
    for op in ops:
        single, many = (truth.truth_us(timing_model(op, copies).SerializeToString()) for copies in (1, 4))
        assert table.lookup(op).latency_us == pytest.approx((many - single) / 3, rel=0.08)
    assert table.calibration.networks == len(networks)
    assert table.calibration.a_us > 30  # the call overhead of the simulated device is 70 us


def test_the_real_runtime_times_a_block(url: str, store: Store, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    op = probe_op(8, 16, 16)
    with running(url, store, tmp_path / "agent", "onnxruntime"):
        found = device_id(store, "onnxruntime")
        fill(store, found, [op])
        until(lambda: filled(store, found), "the table")
    with store.read() as tx:
        table = latency.table(tx, found)
    assert 0 < table.lookup(op).latency_us < 1e6
    assert table.lookup(op).source == "measured"


def test_a_network_that_crashes_the_child_fails_its_measurement_and_blocks_survive(
    url: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(HW_TESTS))
    import fragile_runtime

    fragile_runtime.install(tmp_path / "installed", monkeypatch)
    good, bad, refused = conv(8), conv(fragile_runtime.CRASHES), conv(fragile_runtime.REFUSED)
    with running(url, store, tmp_path / "agent", "fragile"):
        found = device_id(store, "fragile")
        fill(store, found, [good, bad, refused])

        def settled() -> bool:
            with store.read() as tx:
                rows = latency.table(tx, found).rows
                item = work_items.by_key(tx, found, bad.key)
                return good.key in rows and item is not None and item.attempt > 0

        until(settled, "the good block and the bad one's report")
    with store.read() as tx:
        crashed, unable = (work_items.by_key(tx, found, op.key) for op in (bad, refused))
    assert crashed is not None
    assert unable is not None
    assert (crashed.state, crashed.attempt) == ("queued", 1)
    assert "SIGSEGV" in crashed.reason
    assert (unable.state, unable.reason) == ("failed", "no such kernel")


def _process(url: str, store: Store, folder: Path, runtime: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hw_profiles.agent", "--url", url, "--machine", "bench"]
    command += ["--runtime", runtime, "--state-dir", str(folder)]
    environment = {**os.environ, TOKEN_VARIABLE: enrolment_token(store), LOCK_DIR_VARIABLE: str(folder)}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_kill_9_in_mid_lease_returns_the_items_and_leaves_no_process(
    url: str, store: Store, clock: HandClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(HW_TESTS))
    import fragile_runtime

    fragile_runtime.install(tmp_path / "installed", monkeypatch)
    agent = _process(url, store, tmp_path / "agent", "fragile")
    try:
        found = device_id(store, "fragile")
        hanging = conv(fragile_runtime.HANGS)
        fill(store, found, [hanging])

        def leased() -> bool:
            with store.read() as tx:
                item = work_items.by_key(tx, found, hanging.key)
                return item is not None and item.state == "leased" and bool(_children(agent.pid))

        until(leased, "the lease to be at work")
        timing = _children(agent.pid)
    finally:
        agent.kill()
        agent.wait(PATIENCE_S)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in timing), "the timing process to end")
    clock.advance(30)
    with store.begin() as tx:
        assert agent_leases.sweep(tx) == 1
    with store.read() as tx:
        item = work_items.by_key(tx, found, hanging.key)
        assert devices.state(tx, devices.get(tx, found)) == "offline"
    assert item is not None
    assert (item.state, item.attempt) == ("queued", 1)
    with HostLock(tmp_path / "agent").exclusive():
        pass  # the dead holder does not block


def removed(store: Store, found: str) -> None:
    with store.begin() as tx:
        devices.remove(tx, devices.get(tx, found))


def test_an_agent_whose_only_device_is_deleted_says_so_and_ends(url: str, store: Store, tmp_path: Path) -> None:
    agent = _process(url, store, tmp_path / "agent", "simulated")
    removed(store, device_id(store))
    assert agent.wait(PATIENCE_S) == 3
    log = (tmp_path / "agent" / "log").read_text()
    assert "every device of this agent was deleted on the server, bench-simulated-t1-fp32 last" in log
    assert "--offer-again" in log
    assert "enrol" not in log
    assert "Traceback" not in log


def test_an_agent_offers_a_deleted_device_again_if_it_was_told_to(url: str, store: Store, tmp_path: Path) -> None:
    with running(url, store, tmp_path / "agent", offer_again=True):
        first = device_id(store)
        removed(store, first)
        second = device_id(store)
        assert second != first
        fill(store, second, [conv(8)])
        until(lambda: filled(store, second), "the new device's table")


def test_sigterm_drains_and_the_credentials_serve_again(url: str, store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    first = _process(url, store, folder, "simulated")
    found = device_id(store)
    # The server has the device before the agent has read that, and saved its credentials.
    until(lambda: any((folder / "agents").glob("*.json")), "the credentials")
    saved = list((folder / "agents").glob("*.json"))
    assert [stat.S_IMODE(path.stat().st_mode) for path in saved] == [0o600]
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE_S) == 0
    fill(store, found, [conv(8)])
    agent = Agent(url, machine="bench", runtimes=["simulated"], state_dir=folder, lock=HostLock(folder))
    thread = threading.Thread(target=agent.run)
    thread.start()
    until(lambda: filled(store, found), "the table, without an enrolment token")
    agent.drain()
    thread.join(PATIENCE_S)
    assert "nl_" not in (folder / "log").read_text()


def test_an_agent_survives_a_restart_of_its_server(settings: Settings, store: Store, tmp_path: Path) -> None:
    with serving(settings, store) as url, running(url, store, tmp_path / "agent"):
        port = int(url.rsplit(":", 1)[1])
        found = device_id(store)
    # The first `with` ended the agent; a second one meets a server that is away at first.
    agent = Agent(url, machine="bench", runtimes=["simulated"], state_dir=tmp_path / "agent", lock=HostLock(tmp_path))
    thread = threading.Thread(target=agent.run)
    thread.start()
    fill(store, found, [conv(8)])
    with serving(settings, store, port):
        until(lambda: filled(store, found), "the table after the first start")
    fill(store, found, [conv(16)])
    with serving(settings, store, port):
        until(lambda: filled(store, found), "the table after the restart")
        agent.drain()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_the_servers_own_agent_enrols_itself_and_ends_with_it(
    url: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOCK_DIR_VARIABLE, str(tmp_path))
    child = agent_child(url, store, tmp_path / "agent", machine="bench", runtimes=("simulated",))
    child.start()
    try:
        found = device_id(store)
        fill(store, found, [conv(8)])
        until(lambda: filled(store, found), "the table")
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        until(lambda: child.pid != first, "another agent")
    finally:
        child.end()
    assert child.pid is not None
    assert not Path(f"/proc/{child.pid}").exists()


def test_the_null_model_is_a_model() -> None:
    import onnx

    onnx.checker.check_model(onnx.load_model_from_string(null_model()))

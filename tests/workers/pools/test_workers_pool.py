"""Pools: the contract over both local ones, and what only child processes can do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from search.evaluation import Status
from workers.errors import InvalidInput, PoolBroken
from workers.pools.executor import local_pool
from workers.pools.in_process_pool import InProcessPool
from workers.pools.pool import Evaluator, EvaluatorFactory, Pool
from workers.pools.process_pool import ProcessPool
from workers.testing import PATIENCE_S, Deeds, PoolContract, deed, drain


class TestInProcess(PoolContract):
    def pool(self, make_evaluator: EvaluatorFactory) -> Pool:
        return local_pool(make_evaluator, processes=0)


class TestOneChild(PoolContract):
    def pool(self, make_evaluator: EvaluatorFactory) -> Pool:
        return local_pool(make_evaluator, processes=1)


class TestTwoChildren(PoolContract):
    def pool(self, make_evaluator: EvaluatorFactory) -> Pool:
        return local_pool(make_evaluator, processes=2)


def wait_for(condition: object, what: str) -> None:
    assert callable(condition)
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, f"waited in vain for {what}"
        time.sleep(0.02)


def pid_of(deeds: Deeds, name: str) -> int:
    wait_for(lambda: deeds.attempts(name) > 0 and (deeds.folder / name).read_text().endswith("\n"), name)
    return int((deeds.folder / name).read_text().splitlines()[-1])


def gone(pid: int) -> bool:
    """No such process, or only its exit code is left (in a container nobody may reap an orphan)."""
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_killed_child_costs_its_candidate_a_second_attempt(tmp_path: Path) -> None:
    deeds = Deeds(tmp_path)
    with ProcessPool(deeds, processes=2) as pool:
        pool.submit(deed("victim", x=5, what="wait"))
        for i in range(4):
            pool.submit(deed(f"c{i}", x=i))
        os.kill(pid_of(deeds, "victim"), signal.SIGKILL)
        wait_for(lambda: deeds.attempts("victim") == 2, "the second attempt")
        (tmp_path / "go").touch()
        taken = drain(pool, 5)
    assert {name: e.metrics["score"] for name, e in taken.items()} == {
        "victim": 25, "c0": 0, "c1": 1, "c2": 4, "c3": 9,
    }  # fmt: skip
    assert deeds.attempts("victim") == 2
    assert all(deeds.attempts(f"c{i}") == 1 for i in range(4))


def test_a_candidate_that_kills_every_worker_fails_with_the_signals_name(tmp_path: Path) -> None:
    deeds = Deeds(tmp_path)
    with ProcessPool(deeds, processes=1) as pool:
        pool.submit(deed("poison", what="die"))
        pool.submit(deed("shaky", x=2, what="die_once"))
        taken = drain(pool, 2)
    assert taken["poison"].status is Status.FAILED
    assert "SIGKILL" in taken["poison"].reason
    assert deeds.attempts("poison") == 2
    assert taken["shaky"].metrics["score"] == 4


def test_a_late_candidate_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    deeds = Deeds(tmp_path)
    with ProcessPool(deeds, processes=1, deadline_s=0.3) as pool:
        pool.submit(deed("slow", what="wait"))
        pool.submit(deed("good", x=2))
        taken = drain(pool, 2)
    assert taken["slow"].status is Status.FAILED
    assert taken["slow"].reason.startswith("timeout")
    assert deeds.attempts("slow") == 1
    assert taken["good"].metrics["score"] == 4


def test_cancel_stops_what_runs(tmp_path: Path) -> None:
    deeds = Deeds(tmp_path)
    with ProcessPool(deeds, processes=1) as pool:
        pool.submit(deed("slow", what="wait"))
        pid = pid_of(deeds, "slow")
        pool.cancel("slow")
        assert drain(pool, 1)["slow"].status is Status.STOPPED
        assert gone(pid)


def test_close_ends_the_children(tmp_path: Path) -> None:
    deeds = Deeds(tmp_path)
    pool = ProcessPool(deeds, processes=1)
    pool.submit(deed("slow", what="wait"))
    pid = pid_of(deeds, "slow")
    pool.close()
    assert gone(pid)


PARENT = """
import sys, time
from pathlib import Path
from workers.pools.process_pool import ProcessPool
from workers.testing import Deeds, deed
if __name__ == "__main__":
    pool = ProcessPool(Deeds(Path(sys.argv[1])), processes=1)
    pool.submit(deed("slow", what="wait"))
    time.sleep(600)
"""


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    folder = tmp_path / "deeds"
    folder.mkdir()
    deeds = Deeds(folder)
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root}
    parent = subprocess.Popen([sys.executable, str(script), str(folder)], env=environment)
    try:
        pid = pid_of(deeds, "slow")
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_for(lambda: gone(pid), "the child's end")


@dataclass(frozen=True)
class BrokenFactory:
    def __call__(self) -> Evaluator:
        raise FileNotFoundError("no data here")


@dataclass(frozen=True)
class DyingFactory:
    def __call__(self) -> Evaluator:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


@pytest.mark.parametrize("processes", [0, 1])
def test_a_factory_that_raises_breaks_the_pool_not_the_candidates(processes: int) -> None:
    with local_pool(BrokenFactory(), processes) as pool:
        pool.submit(deed("a"))
        with pytest.raises(PoolBroken, match="no data here"):
            drain(pool, 1)


def test_workers_that_never_come_up_break_the_pool() -> None:
    with ProcessPool(DyingFactory(), processes=1) as pool:
        pool.submit(deed("a"))
        with pytest.raises(PoolBroken, match="SIGKILL"):
            drain(pool, 1)


def test_children_share_the_cores(tmp_path: Path) -> None:
    with ProcessPool(Threads(), processes=2) as pool:
        pool.submit(deed("a"))
        threads = drain(pool, 1)["a"].reason
    assert threads == str(max(1, len(os.sched_getaffinity(0)) // 2))


@dataclass(frozen=True)
class Threads:
    def __call__(self) -> Evaluator:
        from workers.evaluating.evaluate_safely import ended

        return lambda candidate: ended(candidate, Status.STOPPED, os.environ["OMP_NUM_THREADS"])


@dataclass
class Changing:
    """A factory that cannot travel any more once something has been looked up in it."""

    deeds: Deeds
    seen: object = None

    def __call__(self) -> Evaluator:
        return self.deeds.evaluate


def test_a_worker_is_replaced_by_one_that_got_the_same(tmp_path: Path) -> None:
    factory = Changing(Deeds(tmp_path))
    with ProcessPool(factory, processes=1) as pool:
        factory.seen = MappingProxyType({})
        pool.submit(deed("a", what="die_once", x=2))
        assert drain(pool, 1)["a"].metrics["score"] == 4


def test_children_know_no_settings_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETLATHE_DATABASE_URL", "postgresql://owner:secret@db/netlathe")
    monkeypatch.setenv("NETLATHE_LOCK_DIR", str(tmp_path))
    with ProcessPool(Settings(), processes=1) as pool:
        pool.submit(deed("a"))
        assert drain(pool, 1)["a"].reason == "['NETLATHE_LOCK_DIR']"


@dataclass(frozen=True)
class Settings:
    def __call__(self) -> Evaluator:
        from workers.evaluating.evaluate_safely import ended

        seen = sorted(name for name in os.environ if name.startswith("NETLATHE_"))
        return lambda candidate: ended(candidate, Status.STOPPED, str(seen))


def test_negative_processes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="processes"):
        local_pool(Deeds(tmp_path), -1)


def test_an_in_process_cancel_takes_the_candidate_out(tmp_path: Path) -> None:
    deeds = Deeds(tmp_path)
    pool = InProcessPool(deeds)
    pool.submit(deed("a"))
    pool.cancel("a")
    assert drain(pool, 1)["a"].status is Status.STOPPED
    assert deeds.attempts("a") == 0

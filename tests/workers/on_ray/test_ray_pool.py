"""RayPool: the contract, and what only actors do. One Ray for all tests of this file, on loopback, with two CPUs."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from workers.errors import ClusterDown, InvalidInput, NoRoom, PoolBroken
from workers.evaluating.evaluate_safely import ended
from workers.on_ray import cluster as ray_cluster
from workers.on_ray.cluster import RayCluster
from workers.on_ray.pool import RayPool, room
from workers.pools.malloc_settings import KEEPING
from workers.pools.pool import Evaluator, EvaluatorFactory, Pool
from workers.testing import PATIENCE_S, Deeds, PoolContract, deed, drain


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[RayCluster]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(Path(__file__).parent))  # actors import the factories of this file
        found = RayCluster(cpus=2)
        found.start()
        found.wait(PATIENCE_S)
        yield found
        found.close()


class TestRayPool(PoolContract):
    def pool(self, make_evaluator: EvaluatorFactory) -> Pool:
        return RayPool(make_evaluator, workers=2)


def wait_for(condition: object, what: str) -> None:
    assert callable(condition)
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, f"waited in vain for {what}"
        time.sleep(0.02)


def pid_of(pool: Pool, deeds: Deeds, name: str) -> int:
    """The actor that began this candidate; the pool goes on meanwhile."""
    wait_for(lambda: pool.next(0.05) is None and deeds.attempts(name) >= 1, f"the beginning of {name}")
    return int((deeds.folder / name).read_text().split()[-1])


def test_a_killed_actor_costs_its_candidate_one_second_attempt_and_the_rest_of_its_batch_nothing(
    tmp_path: Path,
) -> None:
    deeds = Deeds(tmp_path)
    with RayPool(deeds, workers=1) as pool:
        pool.submit(deed("first"))
        drain(pool, 1)  # from here on evaluations are known to be short, and go in batches
        pool.submit(deed("victim", x=5, what="wait"))
        for i in range(4):
            pool.submit(deed(f"c{i}", x=i))
        os.kill(pid_of(pool, deeds, "victim"), signal.SIGKILL)
        (tmp_path / "go").touch()
        taken = drain(pool, 5)
    assert {name: e.metrics["score"] for name, e in taken.items()} == {
        "victim": 25, "c0": 0, "c1": 1, "c2": 4, "c3": 9,
    }  # fmt: skip
    assert deeds.attempts("victim") == 2
    assert all(deeds.attempts(f"c{i}") == 1 for i in range(4))


def test_a_candidate_that_kills_every_actor_fails_and_those_behind_it_run(tmp_path: Path) -> None:
    deeds = Deeds(tmp_path)
    with RayPool(deeds, workers=1) as pool:
        for candidate in (deed("poison", what="die"), deed("shaky", x=2, what="die_once"), deed("good", x=3)):
            pool.submit(candidate)
        taken = drain(pool, 3)
    assert taken["poison"].status is Status.FAILED
    assert "died" in taken["poison"].reason
    assert deeds.attempts("poison") == 2
    assert (taken["shaky"].metrics["score"], taken["good"].metrics["score"]) == (4, 9)
    assert deeds.attempts("good") == 1


def test_a_late_candidate_fails_and_the_rest_of_its_batch_runs(tmp_path: Path) -> None:
    deeds = Deeds(tmp_path)
    with RayPool(deeds, workers=1, deadline_s=0.5) as pool:
        pool.submit(deed("first"))
        drain(pool, 1)
        pool.submit(deed("slow", what="wait"))
        pool.submit(deed("good", x=2))
        taken = drain(pool, 2)
    assert (taken["slow"].status, deeds.attempts("slow")) == (Status.FAILED, 1)
    assert taken["slow"].reason.startswith("timeout")
    assert taken["good"].metrics["score"] == 4


def test_a_cancelled_candidate_may_end_by_itself_and_is_killed_after_the_grace(tmp_path: Path) -> None:
    deeds = Deeds(tmp_path)
    with RayPool(deeds, workers=1, grace_s=0.3) as pool:
        pool.submit(deed("slow", what="wait"))
        pid = pid_of(pool, deeds, "slow")
        pool.cancel("slow")
        assert drain(pool, 1)["slow"].status is Status.STOPPED
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the actor's end")
    quick = Deeds(tmp_path / "quick")
    quick.folder.mkdir()
    with RayPool(quick, workers=1, grace_s=PATIENCE_S) as pool:
        pool.submit(deed("slow", x=3, what="wait"))
        pid_of(pool, quick, "slow")
        pool.cancel("slow")
        (quick.folder / "go").touch()
        assert drain(pool, 1)["slow"].metrics["score"] == 9


def test_one_of_a_batch_is_cancelled_by_flag_and_nobody_is_killed(tmp_path: Path) -> None:
    deeds = Deeds(tmp_path)
    with RayPool(deeds, workers=1, grace_s=PATIENCE_S) as pool:
        pool.submit(deed("first"))
        drain(pool, 1)
        pool._waiting += [deed("slow", what="wait"), deed("unwanted"), deed("last", x=2)]
        pool._inside |= {"slow", "unwanted", "last"}
        pool._assign()  # one batch of three
        pid = pid_of(pool, deeds, "slow")
        pool.cancel("unwanted")
        time.sleep(0.5)  # the flag is on its way to the actor
        (tmp_path / "go").touch()
        taken = drain(pool, 3)
        assert (taken["unwanted"].status, deeds.attempts("unwanted")) == (Status.STOPPED, 0)
        assert taken["last"].metrics["score"] == 4
        assert int((tmp_path / "last").read_text()) == pid


def test_close_ends_the_actors(tmp_path: Path) -> None:
    deeds = Deeds(tmp_path)
    pool = RayPool(deeds, workers=1)
    pool.submit(deed("slow", what="wait"))
    pid = pid_of(pool, deeds, "slow")
    pool.close()
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the actor's end")


def test_a_pool_whose_ray_was_lost_is_broken_at_once_and_lets_go(
    cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = RayPool(Deeds(tmp_path), workers=1, hold=cluster.hold())
    monkeypatch.setattr(cluster, "state", "starting")
    monkeypatch.setattr(cluster, "problem", "Ray was lost")
    with pytest.raises(PoolBroken, match="Ray was lost"):
        pool.submit(deed("one"))
    with pytest.raises(ClusterDown, match="Ray was lost"):
        cluster.hold()
    assert cluster._holds, "it is not taken down while somebody uses it"
    pool.close()
    assert not cluster._holds


def test_nobody_waits_for_a_head_that_is_gone(
    cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_head", "127.0.0.1:1")
    hold = cluster.hold()
    hold.check()
    with pytest.raises(PoolBroken, match="the head of the Ray cluster does not answer"):
        RayPool(Deeds(tmp_path), workers=1, hold=hold)
    hold.release()


def test_more_actors_than_the_cluster_has_room_for_do_not_hang(tmp_path: Path) -> None:
    deeds = Deeds(tmp_path)
    with RayPool(deeds, workers=3, start_s=PATIENCE_S) as full:

        def two() -> bool:
            full._listen(0.1)
            return sum(worker.state == "idle" for worker in full._workers) == 2

        wait_for(two, "two of three actors")
        full.submit(deed("a", x=2))
        assert drain(full, 1)["a"].metrics["score"] == 4
        with RayPool(deeds, workers=1, start_s=1.0) as none:
            none.submit(deed("b"))
            with pytest.raises(NoRoom, match="0 of 2 CPUs of the cluster are free"):
                drain(none, 1)


def test_room() -> None:
    assert room([2], 1, share=True) == (1, 2)
    assert room([2], 2, share=True) == (2, 1)
    assert room([2], 3, share=True) == (2, 1)
    assert room([4, 2], 2, share=True) == (2, 2)
    assert room([8, 0], 2, share=False) == (2, 1)
    with pytest.raises(PoolBroken, match="no CPU"):
        room([0], 1, share=True)


@dataclass(frozen=True)
class BrokenFactory:
    def __call__(self) -> Evaluator:
        raise FileNotFoundError("no data here")


@dataclass(frozen=True)
class DyingFactory:
    def __call__(self) -> Evaluator:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


@pytest.mark.parametrize(("factory", "reason"), [(BrokenFactory(), "no data here"), (DyingFactory(), "3 workers")])
def test_a_factory_that_fails_breaks_the_pool_not_the_candidates(factory: EvaluatorFactory, reason: str) -> None:
    with RayPool(factory, workers=1) as pool:
        pool.submit(deed("a"))
        with pytest.raises(PoolBroken, match=reason):
            drain(pool, 1)


@dataclass(frozen=True)
class Surroundings:
    def __call__(self) -> Evaluator:
        return self.evaluate

    @staticmethod
    def evaluate(candidate: Candidate) -> Evaluation:
        seen = sorted(name for name in os.environ if name.startswith("NETLATHE_"))
        keeping = all(os.environ.get(name) == value for name, value in KEEPING.items())
        return ended(candidate, Status.STOPPED, f"{seen} {os.environ['OMP_NUM_THREADS']} {keeping}")


def test_actors_know_their_threads_keep_memory_and_have_no_settings_of_ours() -> None:
    with RayPool(Surroundings(), workers=1, cpus=2) as pool:
        pool.submit(deed("a"))
        assert drain(pool, 1)["a"].reason == "[] 2 True"


def test_nothing_of_ray_listens_beyond_loopback() -> None:
    ours = {int(pid) for pid in os.listdir("/proc") if pid.isdecimal() and _of_ray(int(pid))}
    assert len(ours) >= 3
    held = {_inode(link) for pid in ours for link in Path(f"/proc/{pid}/fd").glob("*")}
    listening = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    addresses = {row[1].split(":")[0] for row in listening if row[3] == "0A" and row[9] in held}
    loopback = socket.inet_aton("127.0.0.1")[::-1].hex().upper()
    assert addresses
    assert all(address.endswith(loopback) for address in addresses), addresses


def _of_ray(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
    return f"nlray-{os.getpid()}-" in command


def _inode(link: Path) -> str:
    try:
        return os.readlink(link).removeprefix("socket:[").removesuffix("]")
    except OSError:
        return ""


@pytest.mark.parametrize("address", ["", "head", "ray://head:1", "head:0", "head:70000", "auto"])
def test_addresses_are_checked(address: str) -> None:
    with pytest.raises(InvalidInput, match="ray_address"):
        RayCluster(address)


def test_a_cluster_that_is_not_up_says_so() -> None:
    with pytest.raises(ClusterDown, match="has not come up"):
        RayCluster().wait(0)


@pytest.mark.parametrize("given", ["a" * 60, "missing"])
def test_a_folder_that_rays_sockets_do_not_fit_into_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    long = tmp_path / given
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    folder = ray_cluster._new_folder()
    try:
        assert long not in folder.parents
        assert len(str(folder.parent)) <= ray_cluster._SHORT
    finally:
        folder.rmdir()


def test_without_a_short_folder_the_message_names_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_SHORT", 0)
    with pytest.raises(ClusterDown, match="TMPDIR"):
        ray_cluster._new_folder()

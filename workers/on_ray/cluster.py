"""RayCluster: the Ray that this process computes on, either a private Ray on this machine or an existing cluster.

A thread starts Ray, watches it, and restarts it after a loss. Nothing is ever stored only in Ray.

A private Ray listens on loopback alone (see `workers.on_ray.environment`). A cluster's nodes listen on every interface,
whatever their settings are, so a cluster belongs on a private network. A private Ray and a cluster both require a
token.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hw_profiles.child_environment import child_environment
from hw_profiles.child_process import ChildProcess, python_module
from workers.errors import ClusterDown, InvalidInput
from workers.on_ray import environment
from workers.pools.executor import State

log = logging.getLogger(__name__)

LOOK_S = 2.0
FIRST_REST_S = 1.0
LONGEST_REST_S = 30.0
JOIN_S = 60.0
"""Seconds that a node of a cluster may take to start. Chosen with busy machines in mind; for a measured time, see
`ray_up_s` in the rows of benchmarks/ray_dispatch.py.
"""
RELEASE_S = 4.0
"""Seconds that users of a lost Ray may take to release it. Shutting Ray down while it is used would end the process."""
HEAD_LOOKS = 2
"""Number of consecutive checks without a connection to the head after which the head counts as lost."""
CLOSE_S = 5.0
"""Seconds allowed for an orderly shutdown; anything still running after that dies with this process."""
STORE_BYTES = 128 * 1024**2
"""Bytes of memory that Ray reserves for objects. Little is needed, because everything large is a file."""
_PREFIX = "nlray-"
_SHORT = 15
"""Maximum length in bytes of the parent of our folder: Ray appends 85 more bytes, and a socket's path has at most
107.
"""
_TOKEN = secrets.token_hex(32)
"""The token of every private Ray. There is only one, because Ray reads a process's token only once."""


class RayCluster:
    """The Ray of this process. There is one at a time, because a process can use only one Ray cluster.

    Args:
        address: host:port of a cluster's head; if None, a private Ray is started, which dies with this process.
        cpus: CPUs of a private Ray; default: the CPUs that this process may use.
    """

    def __init__(self, address: str | None = None, cpus: int | None = None) -> None:
        if address is not None and not _is_address(address):
            raise InvalidInput("ray_address", address, "must be host:port of a Ray head")
        self.address = address
        self._cpus = cpus or len(os.sched_getaffinity(0))
        self.state: State = "starting"
        self.problem: str | None = None
        """The reason why Ray is down, in one line."""
        self._closing = threading.Event()
        self._changed = threading.Condition()
        self._holds: set[Hold] = set()
        self._head = ""
        self._folder: Path | None = None
        self._node: ChildProcess | None = None
        # Our node dies with the thread that forked it, so this thread must live as long as the cluster.
        self._keeper = threading.Thread(target=self._keep, name="ray", daemon=True)

    def start(self) -> None:
        """Start Ray in the background; return at once."""
        self._keeper.start()

    def wait(self, timeout_s: float) -> None:
        """Wait until Ray is up.

        Raises:
            ClusterDown: Ray is not up after `timeout_s`; the message says why.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.state == "ok", timeout_s):
                raise ClusterDown(self.problem or f"Ray has not come up within {timeout_s:g} s")

    def close(self) -> None:
        """Leave the cluster, or shut down a private Ray. May be called twice."""
        self._closing.set()
        if self._keeper.is_alive():
            self._keeper.join(CLOSE_S)

    def hold(self) -> Hold:
        """Register a user of Ray.

        Raises:
            ClusterDown: Ray is not up.
        """
        with self._changed:
            self._check()
            hold = Hold(self)
            self._holds.add(hold)
            return hold

    def _check(self) -> None:
        if self.state != "ok":
            raise ClusterDown(self.problem or "Ray is not up")

    def _release(self, hold: Hold) -> None:
        with self._changed:
            self._holds.discard(hold)
            self._changed.notify_all()

    def node_cpus(self) -> Sequence[int]:
        """Return the number of CPUs of each live node, the largest number first.

        Raises:
            ClusterDown: Ray does not answer.
        """
        import ray

        try:
            nodes = ray.nodes()
        except Exception as error:
            raise ClusterDown(_line(error)) from error
        return sorted((int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]), reverse=True)

    # Everything below runs only in the keeper thread.

    def _keep(self) -> None:
        rest_s = FIRST_REST_S
        while not self._closing.is_set():
            try:
                self._come_up()
                rest_s = FIRST_REST_S
                self._say("ok")
                self._watch()
                if not self._closing.is_set():
                    self._say("starting", "Ray was lost and is being restarted")
            except Exception as error:
                self._say("down", _line(error))
                self._go_down()
                self._closing.wait(rest_s)
                rest_s = min(2 * rest_s, LONGEST_REST_S)
            else:
                self._go_down()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _watch(self) -> None:
        """Watch Ray; return once Ray is lost or this process is closing."""
        unanswered = 0
        while unanswered < HEAD_LOOKS:
            unanswered = 0 if _answers(self._head) else unanswered + 1
            # Ask Ray only while the head answers: for a dead head, Ray waits a minute and then ends this process.
            if (not unanswered and not self._well()) or self._closing.wait(LOOK_S):
                return

    def _say(self, state: State, problem: str | None = None) -> None:
        if problem is not None:
            log.warning("%s", problem)
        with self._changed:
            self.state, self.problem = state, problem
            self._changed.notify_all()

    def _come_up(self) -> None:
        _sweep()
        folder = self._folder or _new_folder()
        self._folder = folder
        _set_token(folder, own=self.address is None)
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        quiet: dict[str, Any] = {"configure_logging": False, "log_to_driver": False}
        if self.address is None:
            options = {"num_cpus": self._cpus, "object_store_memory": STORE_BYTES, "include_dashboard": False}
            ray.init(address="local", _temp_dir=str(folder), **options, **quiet)
        else:
            self._join(self.address, folder / "node")
            ray.init(address=self.address, _temp_dir=str(folder / "node"), **quiet)
        self._head = ray.get_runtime_context().gcs_address

    def _join(self, address: str, folder: Path) -> None:
        """Start a node on this machine, which a driver needs; it has no CPUs, so nothing is computed on it.

        Raises:
            ClusterDown: the head does not answer, or does not accept our token.
        """
        said = folder.with_suffix(".log")
        command = python_module("ray.scripts.scripts", "start", f"--address={address}", "--num-cpus=0")
        command += ["--block", f"--temp-dir={folder}", f"--object-store-memory={STORE_BYTES}", "--disable-usage-stats"]
        with said.open("wb") as out:
            self._node = ChildProcess(
                command,
                environment={**child_environment(), environment.MAY_CLUSTER: "1"},
                output=out,
                dies_by=signal.SIGTERM,
            )
        end_s = time.monotonic() + JOIN_S
        while b"Ray runtime started" not in said.read_bytes():
            if self._node.ended() is not None or time.monotonic() > end_s or self._closing.wait(0.1):
                raise ClusterDown(f"cannot join the Ray cluster at {address}: {_last_line(said)}")

    def _well(self) -> bool:
        """Return True if our own node is alive according to the cluster's head."""
        import ray

        if self._node is not None and self._node.ended() is not None:
            return False
        try:
            ours = ray.get_runtime_context().get_node_id()
            return any(node["Alive"] for node in ray.nodes() if node["NodeID"] == ours)
        except Exception as error:
            log.warning("Ray does not answer: %s", _line(error))
            return False

    def _go_down(self) -> None:
        import ray

        with self._changed:
            self._changed.wait_for(lambda: not self._holds, RELEASE_S)
        with suppress(Exception):  # a lost Ray cannot be shut down cleanly
            ray.shutdown()
        if self._node is not None:
            self._node.terminate(5.0)
            self._node.close()
            self._node = None


class Hold:
    """A registered use of Ray. Once `check` raises, the owner must drop everything that it got from Ray and release
    this hold.
    """

    def __init__(self, cluster: RayCluster) -> None:
        self._cluster = cluster

    def check(self) -> None:
        """Check that Ray is still up; to be called before each use.

        Raises:
            ClusterDown: Ray was lost.
        """
        self._cluster._check()

    def check_head(self) -> None:
        """Check that the head answers; to be called before anything that would wait for the head.

        Raises:
            ClusterDown: see `check`; or the head accepts no connection.
        """
        self.check()
        if not _answers(self._cluster._head):
            raise ClusterDown("the head of the Ray cluster does not answer")

    def release(self) -> None:
        """Declare that this holder no longer uses Ray. May be called twice."""
        self._cluster._release(self)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), LOOK_S).close()
    except OSError:
        return False
    return True


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536 and "/" not in host


def _set_token(folder: Path, own: bool) -> None:
    if own:
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(_TOKEN)
        os.environ.pop(environment.TOKEN, None)
        os.environ[environment.TOKEN_PATH] = str(token)
    elif not os.environ.get(environment.TOKEN) and not os.environ.get(environment.TOKEN_PATH):
        raise ClusterDown(f"the cluster's token is missing: set {environment.TOKEN_PATH} to the file that has it")


def _bases() -> list[str]:
    """List possible parents of our folder, beginning with the user's own choice (TMPDIR)."""
    return [base for base in (tempfile.gettempdir(), "/tmp", "/var/tmp") if len(os.fsencode(base)) <= _SHORT]


def _new_folder() -> Path:
    for base in _bases():
        with suppress(OSError):
            return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=base))
    raise ClusterDown(
        f"Ray needs a temporary folder with a path of at most {_SHORT} bytes: neither {tempfile.gettempdir()} (TMPDIR) "
        "nor /tmp can be used"
    )


def _sweep() -> None:
    """Remove the folders of processes that were killed."""
    for folder in (found for base in _bases() for found in Path(base).glob(f"{_PREFIX}*-*")):
        pid = folder.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists() and folder.stat().st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if isinstance(error, ClusterDown) else f"Ray: {type(error).__name__}: {lines[0] if lines else ''}"


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it does not answer"

"""doctor: check this installation and report one line per check."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from hw_profiles.errors import install_command
from netlathe import Client, NetlatheError, data_dir, is_loopback, proxy_to, shown_proxy
from service.extras import extras

MIB = 1024**2
WANTED_MIB = 2048
"""Free space that a job needs for its checkpoints and a decoded data set of 50,000 images of 32x32 pixels."""
ANSWERS_WITHIN_S = 5.0
"""Time limit for `/readyz`. It is short because a running server answers fast and a person is waiting for `doctor`."""


@dataclass(frozen=True)
class Finding:
    """Result of one check. A `wrong` finding needs repair; a `note` may be intended."""

    name: str
    state: Literal["ok", "note", "wrong"]
    detail: str


def examine(folder: Path | None = None) -> list[Finding]:
    """Run every check, in the order in which faults should be repaired."""
    folder = folder or data_dir()
    return [*_python(), *_extras(), *_folder(folder), *_server(), *_open_ports(Path("/proc/net"))]


def _python() -> Iterator[Finding]:
    fits = sys.version_info >= (3, 11)
    yield Finding("python", "ok" if fits else "wrong", f"{platform.python_version()} on {platform.machine()}")


def _extras() -> Iterator[Finding]:
    if not any(extras().values()):
        yield Finding("extras", "note", "unknown: this copy of Netlathe was not installed with pip")
        return
    for extra, modules in extras().items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        detail = f"{', '.join(missing)} missing: {install_command(extra)}" if missing else "installed"
        yield Finding(f"[{extra}]", "note" if missing else "ok", detail)


def _folder(folder: Path) -> Iterator[Finding]:
    if not folder.is_dir():
        yield Finding("data folder", "note", f"{folder} does not exist yet; `netlathe serve` creates it")
        return
    free_mib = shutil.disk_usage(folder).free // MIB
    writable = os.access(folder, os.W_OK)
    state: Literal["ok", "wrong"] = "ok" if writable and free_mib >= WANTED_MIB else "wrong"
    yield Finding("data folder", state, f"{folder}, {'' if writable else 'NOT '}writable, {free_mib:,} MiB free")
    token = folder / "user-token"
    if token.is_file():
        mode = stat.S_IMODE(token.stat().st_mode)
        private = not mode & 0o077
        yield Finding("user token", "ok" if private else "wrong", f"{token}, mode {mode:04o}")


def _server() -> Iterator[Finding]:
    try:
        client = Client(retries=0, timeout_s=ANSWERS_WITHIN_S)
    except NetlatheError as error:
        yield Finding("proxy", "wrong", str(error))
        return
    yield _proxy(client.url)
    with client:
        try:
            ready = client.ready()
        except NetlatheError as error:
            yield Finding("server", "note", str(error))
            return
        yield Finding("server", "ok", f"{client.url}, " + ", ".join(f"{name} {value}" for name, value in ready.items()))
        try:
            devices = client.devices.list()
        except NetlatheError as error:
            yield Finding("token", "wrong", str(error))
            return
        yield Finding("token", "ok", "the server accepts it")
        for device in devices:
            state: Literal["ok", "note"] = "ok" if device.state in ("online", "busy") else "note"
            yield Finding("device", state, f"{device.name} is {device.state}")


def _proxy(url: str) -> Finding:
    """Check how the server is reached; the shell's proxies are used only if NETLATHE_PROXY says so."""
    proxy = proxy_to(url)
    if proxy == "environment":
        return Finding("proxy", "ok", "from http_proxy, https_proxy and all_proxy (NETLATHE_PROXY is environment)")
    if proxy:
        return Finding("proxy", "ok", f"{shown_proxy(proxy)} (NETLATHE_PROXY)")
    shell = sorted(getproxies_environment().keys() - {"no"})
    if not shell or is_loopback(urlsplit(url).hostname or ""):
        return Finding("proxy", "ok", f"none to {url}")
    named = ", ".join(f"{name}_proxy" for name in shell)
    return Finding("proxy", "note", f"none to {url}: {named} would be used with NETLATHE_PROXY=environment")


def _open_ports(proc: Path) -> Iterator[Finding]:
    """Check for sockets of this user that listen beyond loopback (proc(5), /proc/net/tcp and tcp6)."""
    if not (proc / "tcp").is_file():
        yield Finding("open ports", "note", f"cannot be listed on {platform.system()}")
        return
    ports = sorted({port for name in ("tcp", "tcp6") for port in _listening(proc / name)})
    if ports:
        yield Finding("open ports", "note", f"listening beyond loopback: {', '.join(map(str, ports))}")
    else:
        yield Finding("open ports", "ok", "no port of this user is open beyond loopback")


LISTEN = "0A"
LOOPBACK6 = "00000000000000000000000001000000"
MAPPED4 = "0000000000000000FFFF0000"


def _listening(table: Path) -> Iterator[int]:
    if not table.is_file():
        return
    for line in table.read_text().splitlines()[1:]:
        columns = line.split()
        address, port = columns[1].rsplit(":", 1)
        # The kernel prints addresses with bytes swapped: 127.0.0.1 is 0100007F.
        ipv4 = address.removeprefix(MAPPED4)
        local = address == LOOPBACK6 or (len(ipv4) == 8 and ipv4.endswith("7F"))
        if columns[3] == LISTEN and not local and int(columns[7]) == os.getuid():
            yield int(port, 16)

"""The facts that an agent reports about its machine."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import uuid
from pathlib import Path

_MAX_NAME = 32


def machine_name() -> str:
    """Return the host's name as a machine name: lower case, at most 32 characters."""
    name = re.sub(r"[^a-z0-9._-]+", "-", platform.node().split(".")[0].lower()).strip("._-")
    return name[:_MAX_NAME] or "machine"


def fingerprint() -> str:
    """Return a hash that is the same for every agent of this machine and reveals nothing else about it."""
    identity = Path("/etc/machine-id")
    seen = identity.read_text().strip() if identity.is_file() else f"{uuid.getnode():x}"
    return hashlib.sha256(f"netlathe {platform.node()} {seen}".encode()).hexdigest()[:32]


def facts() -> dict[str, str]:
    """Return the facts that determine the machine's speed, for people to read."""
    return {
        "cpu": _cpu()[:256],
        "cores": str(os.cpu_count() or 0),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}"[:256],
        "python": platform.python_version(),
        "governor": _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
    }


def load() -> float | None:
    """Return the load average over the last minute, if the system reports it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def temperature_c() -> float | None:
    """Return the temperature of the hottest thermal zone, if the system has one."""
    zones = sorted(Path("/sys/class/thermal").glob("thermal_zone*/temp"))
    readings = [int(text) / 1000.0 for zone in zones if (text := _read(zone)).lstrip("-").isdigit()]
    return max(readings, default=None)


def _cpu() -> str:
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # absent or unreadable: these facts are only for people
        return ""

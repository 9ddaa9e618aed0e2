"""Programs that start servers on every interface, run where there is only loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
ISOLATED = ["unshare", "--map-root-user", "--net"]
"""In a network namespace of their own there is no other interface."""
LOOPBACK = "--loopback"
"""Tells the program that it is in such a namespace, whose loopback it is to bring up."""


def isolated() -> list[str]:
    """What runs a command in such a namespace; nothing where the kernel or the machine forbids it."""
    try:
        done = subprocess.run([*ISOLATED, "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    except FileNotFoundError:
        return []
    return ISOLATED if done.returncode == 0 else []


def told_by(program: Path, *arguments: str | Path, timeout_s: float) -> Any:
    """Run a program of the tests, isolated where that is possible; the JSON on its last line."""
    prefix = isolated()
    command = [*prefix, sys.executable, str(program), *map(str, arguments), *([LOOPBACK] if prefix else [])]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{program.parent}"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, done.stderr[-6000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def bring_up_loopback() -> bool:
    """In the program: whether it is isolated; its loopback is up then."""
    if LOOPBACK not in sys.argv:
        return False
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    return True

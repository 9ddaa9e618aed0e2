"""Threads of torch wait asleep, unless the user says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SHOW = "import compress, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"


@pytest.mark.parametrize(("own", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_waiting_threads_sleep(own: dict[str, str], policy: str) -> None:
    others = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env={**others, **own}, capture_output=True, text=True, check=True
    )
    # False: the variable is set before torch can have read it.
    assert done.stdout.split() == [policy, "False"]

"""Prints the systemd user unit that keeps an agent running."""

from __future__ import annotations

import sys
from pathlib import Path

from hw_profiles.agent.exit_codes import FAILED, USAGE
from hw_profiles.machine import machine_name

UNIT = """\
[Unit]
Description=Netlathe profiling agent
After=network-online.target
Wants=network-online.target

[Service]
ExecStart="{python}" -m hw_profiles.agent --url "{url}" --machine "{machine}"{ca}
Restart=on-failure
RestartSec=10
# an upgrade, a new token or a runtime is needed: starting again would not help
RestartPreventExitStatus={usage} {failed}
TimeoutStopSec=90

[Install]
WantedBy=default.target
"""


def print_unit(url: str, machine: str | None = None, ca: Path | None = None) -> str:
    """Return the systemd user unit for this machine's agent. The agent must be enrolled once by hand before the unit is
    started.
    """
    name = machine or machine_name()
    trusted = "" if ca is None else f' --ca "{ca.absolute()}"'
    return UNIT.format(python=sys.executable, url=url, machine=name, ca=trusted, usage=USAGE, failed=FAILED)

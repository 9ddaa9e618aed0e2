"""The systemd user unit that keeps an agent running."""

from __future__ import annotations

import sys

from hw_profiles.exits import FAILED, USAGE
from hw_profiles.machine import machine_name

UNIT = """\
[Unit]
Description=Netlathe profiling agent
After=network-online.target
Wants=network-online.target

[Service]
ExecStart="{python}" -m hw_profiles.agent_main --url "{url}" --machine "{machine}"
Restart=on-failure
RestartSec=10
# an upgrade, a new token or a runtime is needed: starting again would not help
RestartPreventExitStatus={usage} {failed}
TimeoutStopSec=90

[Install]
WantedBy=default.target
"""


def print_unit(url: str, machine: str | None = None) -> str:
    """The systemd user unit of this machine's agent. Enrol once by hand before it is started."""
    name = machine or machine_name()
    return UNIT.format(python=sys.executable, url=url, machine=name, usage=USAGE, failed=FAILED)

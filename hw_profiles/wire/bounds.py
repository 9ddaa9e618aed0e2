"""Bounds of the protocol, which is version 1. It only ever gains optional fields, and agents ignore unknown keys in
answers.

Every number from an agent is checked to be finite and bounded, because an agent may be wrong or lie.
"""

from __future__ import annotations

import re

PROTOCOL = 1
HEARTBEAT_S = 10.0
LEASE_S = 30.0
MAX_ITEMS = 64
MAX_LATENCY_US = 3.6e9
"""One hour, the maximum for one run: a larger value must be an error of the agent, not a slow device."""
MAX_BURSTS = 10_000
MAX_NODES = 100_000
"""Maximum number of nodes of one network; an answer that names more nodes is wrong."""
DIGEST = re.compile(r"[0-9a-f]{64}")
"""A sha256 in hexadecimal."""

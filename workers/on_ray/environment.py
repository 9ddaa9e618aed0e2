"""What Ray is told through the environment, where it reads it once, while it is imported: import this first.

Everything that Ray starts for us inherits it.
"""

from __future__ import annotations

import os

AUTH_MODE = "RAY_AUTH_MODE"
TOKEN = "RAY_AUTH_TOKEN"
TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
MAY_CLUSTER = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray binds to 127.0.0.1, and to nothing else, where this is off: named after the systems with that default."""

os.environ[AUTH_MODE] = "token"
os.environ[MAY_CLUSTER] = "0"
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a call after Ray's end must not bring up another one
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "20")
"""Seconds without the cluster's head after which Ray ends a process: one that comes back then knows us no more, and a
conductor that hangs in a call is better started again than kept."""

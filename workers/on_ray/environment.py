"""Sets Ray's environment variables. Ray reads them only when it is imported, so import this module before Ray.

Every process that Ray starts for us inherits these variables.
"""

from __future__ import annotations

import os

AUTH_MODE = "RAY_AUTH_MODE"
TOKEN = "RAY_AUTH_TOKEN"
TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
MAY_CLUSTER = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""If this variable is off, Ray binds only to 127.0.0.1. Its name mentions the systems on which off is the default."""

os.environ[AUTH_MODE] = "token"
os.environ[MAY_CLUSTER] = "0"
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a call after Ray's end must not start another Ray
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "20")
"""Seconds without the cluster's head after which Ray ends a process. A restarted head does not recognise us, so a
conductor that is quickly restarted is better than a conductor that hangs in a call.
"""

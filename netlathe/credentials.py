"""The server's data folder and the token that the client sends."""

from __future__ import annotations

import os
from pathlib import Path

import httpx

from netlathe.proxy import is_loopback


def data_dir() -> Path:
    """Return the folder in which `netlathe serve` keeps its data: NETLATHE_DATA_DIR, else the user's data folder."""
    import platformdirs

    named = os.environ.get("NETLATHE_DATA_DIR")
    return Path(named) if named else platformdirs.user_data_path("netlathe", appauthor=False)


def token_for(url: str) -> str | None:
    """Return NETLATHE_TOKEN if it is set, else the first user's token if the server runs on this machine, else None.

    The local server's token is not sent to another machine's server, unless NETLATHE_DATA_DIR names that server's
    folder.
    """
    token = os.environ.get("NETLATHE_TOKEN")
    if token:
        return token.strip()
    if not is_loopback(httpx.URL(url).host) and "NETLATHE_DATA_DIR" not in os.environ:
        return None
    try:
        return (data_dir() / "user-token").read_text().strip()
    except OSError:
        return None

"""The environment of a child process: a copy of this process's environment without our settings, which include
secrets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hw_profiles.host_lock import LOCK_DIR_VARIABLE

SETTING = "NETLATHE_"
"""Prefix of the names of all settings."""
ROOT = Path(__file__).absolute().parents[1]
"""The folder that holds our packages."""


def child_environment(environment: Mapping[str, str] | None = None, *, with_packages: bool = False) -> dict[str, str]:
    """Copy an environment (default: this process's) without our settings.

    The setting for the host lock's folder stays: a child that looked for the lock elsewhere would compute while another
    process measures.

    Args:
        environment: the environment to copy.
        with_packages: make our packages importable from any folder.
    """
    given = os.environ if environment is None else environment
    kept = {name: value for name, value in given.items() if name == LOCK_DIR_VARIABLE or not name.startswith(SETTING)}
    if with_packages:
        kept["PYTHONPATH"] = packages_path(kept.get("PYTHONPATH", ""))
    return kept


def packages_path(path: str) -> str:
    """Return a PYTHONPATH with the root of our packages first; all folders are absolute, because the child may run in
    another folder.
    """
    folders = [str(ROOT), *(str(Path(folder).absolute()) for folder in path.split(os.pathsep) if folder)]
    return os.pathsep.join(dict.fromkeys(folders))


def forget_settings() -> None:
    """Remove our settings from this process's environment."""
    for name in os.environ.keys() - child_environment().keys():
        del os.environ[name]

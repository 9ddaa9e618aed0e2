"""Extras of the installation and the modules that each installs, read from the package's metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

NAMES = ("agent", "export", "server")
"""Names of the extras from smallest to largest; each extra includes all smaller extras."""
# Distributions whose module has a different name.
_MODULES = {"pillow": "PIL", "scikit-learn": "sklearn"}
_REQUIREMENT = re.compile(r"""(?P<name>[A-Za-z0-9._-]+)[^;]*;\s*extra\s*==\s*["'](?P<extra>\w+)["']""")


@cache
def extras() -> Mapping[str, Sequence[str]]:
    """Return, for each extra, the modules that no smaller extra includes; empty if the package was not installed."""
    from importlib.metadata import PackageNotFoundError, requires

    found: dict[str, list[str]] = {extra: [] for extra in NAMES}
    try:
        lines = requires("netlathe") or []
    except PackageNotFoundError:
        return found
    matches = [match for line in lines if (match := _REQUIREMENT.match(line)) and match["name"] != "netlathe"]
    seen: set[str] = set()
    for extra in NAMES:
        modules = [_module(match["name"]) for match in matches if match["extra"] == extra]
        found[extra] = [module for module in modules if module not in seen]
        seen.update(modules)
    return found


def extra_of(module: str) -> str | None:
    """Return the smallest extra that includes a module."""
    return next((extra for extra, modules in extras().items() if module in modules), None)


def _module(distribution: str) -> str:
    return _MODULES.get(distribution.lower(), distribution.replace("-", "_"))

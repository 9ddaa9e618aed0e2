"""The built-in networks as files, each exported once a process: torch takes 2 to 12 s of processor time for one."""

from __future__ import annotations

from functools import cache

import pytest
from _pytest.mark import ParameterSet

from compress import builtin

DEEPER = ("resnet32", "resnet56")
"""ResNet-20 with more blocks of the same three kinds, from the same function: only the long tests export them."""


@cache
def exported(name: str) -> bytes:
    return builtin.export_builtin(name, seed=0)


def each(*names: str) -> list[ParameterSet]:
    """The names as parameters of a test, the deeper of a family marked long."""
    return [pytest.param(name, marks=[pytest.mark.long] if name in DEEPER else []) for name in names]

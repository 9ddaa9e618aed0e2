"""The Makefile promises only targets that it has."""

from __future__ import annotations

import re
from pathlib import Path

MAKEFILE = (Path(__file__).parent.parent / "Makefile").read_text()


def test_every_phony_target_has_a_rule() -> None:
    promised = {name for line in re.findall(r"^\.PHONY: (.*)", MAKEFILE, re.MULTILINE) for name in line.split()}
    assert promised
    assert promised <= set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))

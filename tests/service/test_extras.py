"""Extras: the package's metadata, and nothing else, says which modules each brings."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.extras import NAMES, extra_of, extras


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    lines: list[str] = []
    monkeypatch.setattr(importlib.metadata, "requires", lambda _name: lines)
    extras.cache_clear()
    yield lines
    extras.cache_clear()


def test_modules_are_those_of_the_metadata(metadata: list[str]) -> None:
    metadata += ["numpy>=2", "left-right[fast]>=1 ; extra == 'server'", 'pillow; extra == "server"']
    metadata += ['engine>=1; extra == "agent"', 'netlathe[agent]; extra == "server"', 'engine; extra == "server"']
    assert extras() == {"agent": ["engine"], "export": [], "server": ["left_right", "PIL"]}
    assert [extra_of(name) for name in ("engine", "PIL", "numpy")] == ["agent", "server", None]


def test_a_package_that_was_never_installed_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    extras.cache_clear()
    assert extra_of("torch") is None
    extras.cache_clear()


def test_every_extra_of_ours_is_known_and_each_of_its_modules_has_the_right_name() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    # The last two are for those who work on the project: they install no module of the product.
    assert set(project["optional-dependencies"]) == {*NAMES, "bench", "dev"}
    extras.cache_clear()
    assert all(extras().values())
    wrong = [name for modules in extras().values() for name in modules if importlib.util.find_spec(name) is None]
    assert not wrong

"""Discovery: files of a folder and entry points of other distributions, one name each."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.discovery import Discovery, module_names, modules


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Discovery[int]:
    """A package of three files, one of them private, and a distribution that adds two more things."""
    folder = tmp_path / "shapes_of_a_test" / "sides"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("")
    (folder / "square.py").write_text("SIDES = 4\n")
    (folder / "cloud.py").write_text("SIDES = 'many'\n")
    (folder / "_draw.py").write_text("raise RuntimeError('a helper is not for discovery')\n")
    (tmp_path / "foreign_shapes.py").write_text("HEXAGON = 6\nSQUARE = 5\n")
    info = tmp_path / "foreign_shapes-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-shapes\nVersion: 1\n")
    points = "[netlathe.sides]\nhexagon = foreign_shapes:HEXAGON\nsquare = foreign_shapes:SQUARE\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Discovery("shapes_of_a_test.sides", "SIDES", int)


def test_files_and_entry_points_are_found(shapes: Discovery[int]) -> None:
    assert shapes.names() == ("cloud", "hexagon", "square")
    assert shapes.load("hexagon") == 6


def test_a_file_of_ours_goes_before_an_entry_point(shapes: Discovery[int]) -> None:
    assert shapes.load("square") == 4


def test_a_thing_of_another_kind_is_named(shapes: Discovery[int]) -> None:
    with pytest.raises(TypeError, match="cloud offers 'many', not a int"):
        shapes.load("cloud")
    with pytest.raises(KeyError):
        shapes.load("circle")


def test_modules_of_a_package_and_of_those_in_it(shapes: Discovery[int]) -> None:
    assert module_names("shapes_of_a_test") == ("sides",)
    found = [module.__name__.removeprefix("shapes_of_a_test.") for module in modules("shapes_of_a_test")]
    assert found == ["sides", "sides.cloud", "sides.square"]
    assert not list(modules("shapes_of_a_test", skip=["sides"]))

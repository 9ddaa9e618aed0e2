"""The house: imports run one way and in no circle, and every folder is a room, not a heap."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("search", "hw_profiles", "compress", "workers", "service", "netlathe")

# folder -> the prefixes of ours it may import, besides itself
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "search": (),
    "hw_profiles": ("search.discovery",),
    "compress": ("search.discovery", "search.space", "hw_profiles.ops"),
    "workers": ("search", "hw_profiles", "compress"),
    "service": ("search", "hw_profiles", "compress", "workers", "netlathe"),
    "netlathe": (),
}
# The agent must stay light: what hw_profiles may import at module level besides the standard library.
LIGHT = {"numpy", "onnx", "httpx", "hw_profiles", "search"}


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        assert node.level == 0, "imports are absolute"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _all_imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {name for node in ast.walk(tree) for name in _imports(node)}


def _module_level_imports(path: Path) -> set[str]:
    """Imports that run when the module is imported: outside functions and `if TYPE_CHECKING`."""
    found: set[str] = set()
    stack: list[ast.AST] = [ast.parse(path.read_text())]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        found.update(_imports(node))
        stack.extend(ast.iter_child_nodes(node))
    return found


def _sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert len(found) > 1, f"{folder} is empty or has another name now: mend FOLDERS and MAY_IMPORT"
    return found


def _starts(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_run_one_way(folder: str) -> None:
    allowed = (folder, *MAY_IMPORT[folder])
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in _sources(folder)
        for name in sorted(_all_imports(path))
        if any(_starts(name, other) for other in FOLDERS) and not any(_starts(name, prefix) for prefix in allowed)
    ]
    assert not wrong


def _modules() -> dict[str, Path]:
    """Every module of ours by its dotted name; a package by the name of its folder."""
    paths = [path for folder in FOLDERS for path in _sources(folder)]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return dict(zip(names, paths, strict=True))


def test_imports_run_in_no_circle() -> None:
    """Imports inside functions and those for types count: a reader follows them too."""
    modules = _modules()

    def module_of(name: str) -> str:
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name

    graph = TopologicalSorter(
        {name: {module_of(each) for each in _all_imports(path)} - {"", name} for name, path in modules.items()}
    )
    try:
        graph.prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1][::-1]))


def test_rooms_are_not_crowded() -> None:
    """At most a dozen modules in a folder, ten at the top of service."""
    rooms = Counter(path.parent.relative_to(ROOT) for path in _modules().values() if path.name != "__init__.py")
    crowded = {str(room): count for room, count in rooms.items() if count > (10 if str(room) == "service" else 12)}
    assert not crowded


def test_rooms_say_what_they_hold() -> None:
    bare = [
        str(path.relative_to(ROOT))
        for path in _modules().values()
        if path.name == "__init__.py" and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not bare


def test_only_workers_import_ray() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        if folder != "workers"
        for path in _sources(folder)
        if any(_starts(name, "ray") for name in _all_imports(path))
    ]
    assert not wrong


def test_hw_profiles_stays_light() -> None:
    import sys

    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in _sources("hw_profiles")
        if path.name != "testing.py"  # pytest classes for third parties
        for name in sorted(_module_level_imports(path))
        if name.split(".")[0] not in LIGHT and name.split(".")[0] not in sys.stdlib_module_names
    ]
    assert not wrong


def test_the_command_line_starts_fast() -> None:
    path = ROOT / "service" / "cli.py"
    wrong = [
        name
        for name in sorted(_module_level_imports(path))
        if name.split(".")[0] != "typer" and name.split(".")[0] not in __import__("sys").stdlib_module_names
    ]
    assert not wrong


def test_no_heaps() -> None:
    for name in ("core", "common", "utils", "helpers"):
        assert not [p for folder in FOLDERS for p in (ROOT / folder).rglob(name)]
        assert not [p for folder in FOLDERS for p in (ROOT / folder).rglob(f"{name}.py")]

"""Imports run one way: the table of design section 2, held against the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("search", "hw_profiles", "compress", "workers", "service")

# folder -> the prefixes of ours it may import, besides itself
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "search": (),
    "hw_profiles": ("search.discovery",),
    "compress": ("search.discovery", "search.space", "hw_profiles.ops"),
    "workers": ("search", "hw_profiles", "compress"),
    "service": ("search", "hw_profiles", "compress", "workers", "netlathe"),
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
    return sorted((ROOT / folder).rglob("*.py"))


def _starts(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_run_one_way(folder: str) -> None:
    allowed = (folder, *MAY_IMPORT[folder])
    ours = (*FOLDERS, "netlathe")
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in _sources(folder)
        for name in sorted(_all_imports(path))
        if any(_starts(name, other) for other in ours) and not any(_starts(name, prefix) for prefix in allowed)
    ]
    assert not wrong


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

"""README and docs: commands exist with their options, Python parses, links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from service.cli import run

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def _commands() -> list[tuple[str, ...]]:
    """Every `netlathe ...` line of a shell block, without what stands before it and after a redirection."""
    blocks = [block.replace("\\\n", " ") for page in PAGES for block in _blocks(page, "sh")]
    lines = [match for block in blocks for match in re.findall(r"^(?:[A-Z_]+=\S+ )*netlathe (.*)", block, re.MULTILINE)]
    return [tuple(shlex.split(re.split(r" [|>] ", line)[0], comments=True)) for line in lines]


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_commands_exist_with_their_options(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    verbs = list(words[:2]) if words[0] == "tokens" else [words[0]]
    assert run([*verbs, "--help"]) == 0
    known = re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)
    assert [word for word in words if word.startswith("--") and word not in known] == []


def test_there_are_commands_to_check() -> None:
    assert {words[0] for words in _commands()} >= {"serve", "submit", "tokens", "agent", "devices"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_parses_and_links_lead_somewhere(page: Path) -> None:
    for block in _blocks(page, "python"):
        ast.parse(block)
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_client_has_what_the_readme_calls() -> None:
    import netlathe

    text = (ROOT / "README.md").read_text()
    with netlathe.Client("http://127.0.0.1:9", "t") as client:
        for path in set(re.findall(r"\bclient((?:\.[a-z_]+)+)\(", text)):
            found: object = client
            for name in path.strip(".").split("."):
                found = getattr(found, name)
            assert callable(found)


def test_benchmarks_that_are_named_exist() -> None:
    named = re.findall(r"benchmarks/\w+\.py", (ROOT / "docs" / "benchmarks.md").read_text())
    assert named
    assert all((ROOT / name).is_file() for name in named)


def test_the_preprocessing_is_that_of_the_demos_digits() -> None:
    from compress.builtin.digits import digits
    from service.demo.demo import SEED

    pixels = digits(SEED).train.images / 255.0
    wanted = f'{{"mean": [{round(float(pixels.mean()), 4)}], "std": [{round(float(pixels.std()), 4)}]}}'
    assert (ROOT / "README.md").read_text().count(wanted) == 2

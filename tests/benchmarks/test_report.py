"""docs/benchmarks.md is what benchmarks/report.py computes from the committed rows, and scripts write such rows."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("service", "workers", "search", "hw_profiles", "compress")
RESULTS = sorted(path.stem for path in (ROOT / "benchmarks" / "results").glob("*.jsonl"))


@pytest.fixture(scope="module")
def report() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("report")


def test_the_page_is_what_the_report_computes(report: Any) -> None:
    page = report.PAGE.read_text()
    assert page == report.written(page, report.generated()), "run python benchmarks/report.py --write"


def test_only_what_is_between_the_markers_is_written(report: Any) -> None:
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.written(page, "new") == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"


def test_every_file_of_rows_is_reported(report: Any) -> None:
    assert RESULTS
    assert sorted(set(RESULTS) - set(report.REPORTS)) == []


@pytest.mark.parametrize("name", RESULTS)
def test_a_committed_script_writes_the_file(report: Any, name: str) -> None:
    script = report.REPORTS[name].script
    path = report.RESULTS / f"{name}.jsonl"
    variants = [script.RESULTS / f"{script.__name__}-{each}.jsonl" for each in getattr(script, "METHODS", ())]
    assert path in [script.RESULTS, *variants]


@pytest.mark.parametrize("name", RESULTS)
def test_rows_have_only_keys_and_kinds_that_the_script_writes(report: Any, name: str) -> None:
    known = written_keys(Path(report.REPORTS[name].script.__file__))
    rows = report.rows(name)
    assert rows
    keys = {key for row in rows for key in row} | {row["kind"] for row in rows if "kind" in row}
    assert sorted(key for key in keys if not any(re.fullmatch(each, key) for each in known)) == []


def written_keys(script: Path) -> set[str]:
    """Patterns of all names that the script, or a module of ours that it imports, could write as a key."""
    tree = ast.parse(script.read_text())
    sources = [script, *(path for node in ast.walk(tree) for path in imported(node))]
    return {each for path in sources for node in ast.walk(ast.parse(path.read_text())) for each in names(node)}


def imported(node: ast.AST) -> list[Path]:
    modules = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
    modules += [each.name for each in node.names] if isinstance(node, ast.Import) else []
    places = [root / f"{module.replace('.', '/')}.py" for module in modules for root in (ROOT, ROOT / "benchmarks")]
    return [path for path in places if path.is_file()]


def names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield re.escape(node.value)
    if isinstance(node, ast.keyword | ast.arg) and node.arg:
        yield re.escape(node.arg)
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield re.escape(node.target.id)
    for key in keys_at(node):
        if isinstance(key, ast.JoinedStr):
            yield "".join(re.escape(each.value) if isinstance(each, ast.Constant) else ".+" for each in key.values)


def keys_at(node: ast.AST) -> Sequence[ast.expr | None]:
    if isinstance(node, ast.Dict):
        return node.keys
    if isinstance(node, ast.Subscript):
        return [node.slice]
    return [node.key] if isinstance(node, ast.DictComp) else []


@pytest.mark.parametrize(
    ("values", "bounds", "goal", "outcome"),
    [
        ((1.0, 5.0), {}, "-", "-"),
        ((1.0, 5.0), {"most": 5.0}, "at most 5", "met"),
        ((1.0, 5.0, 6.0), {"most": 4.0}, "at most 4", "met in 1 of 3, **missed in 2**"),
        ((1.0, 2.0, 9.0), {"most": 3.0, "of_median": True}, "at most 3, median", "met"),
        ((1.0, 7.0, 9.0), {"most": 3.0, "of_median": True}, "at most 3, median", "**missed**"),
        ((0.8,), {"least": 1.0}, "at least 1", "**missed**"),
    ],
)
def test_a_goal_is_met_or_missed(
    report: Any, values: tuple[float, ...], bounds: dict[str, Any], goal: str, outcome: str
) -> None:
    figure = importlib.import_module("reporting.figures").Figure("x", values, lambda value: f"{value:.0f}", **bounds)
    assert (figure.goal, figure.outcome) == (goal, outcome)


@pytest.mark.parametrize("name", [name for name in RESULTS if name.startswith("predictor_accuracy")])
def test_the_mean_error_is_that_of_the_networks(report: Any, name: str) -> None:
    rows = report.rows(name)
    (facts,) = (row for row in rows if row["kind"] == "figures")
    held_out = [row for row in rows if row["kind"] == "held_out"]
    errors = report.REPORTS[name].script.errors_of(held_out, facts["session_scale"])
    assert len(errors) == facts["held_out_networks"]
    assert np.abs(errors).mean() == pytest.approx(facts["mape"])


def test_accuracies_of_l_c_and_direct_are_those_of_the_images(report: Any) -> None:
    tested = report.lc_against_direct.TESTED
    runs = [row for row in report.rows("lc_against_direct") if row["kind"] == "run"]
    assert runs
    for row in runs:
        assert row["test"] == pytest.approx(1 - len(row["wrong"]) / tested, abs=1e-5)


def test_a_way_without_its_counterpart_is_not_compared(report: Any) -> None:
    rows = report.rows("lc_against_direct")
    with pytest.raises(ValueError, match="each way must run once with each seed"):
        report.lc_against_direct.compared([row for row in rows if row["scheme"] == "filters 60%"][:-1])


def test_a_job_without_figures_is_a_miss_in_the_table(report: Any) -> None:
    *rows, last = report.rows("resnet20_rest")[:4]
    failed = {key: value if key in ("name", "at", "wall_s") else None for key, value in last.items()}
    _, counts, kinds, jobs = report.REPORTS["resnet20_rest"].blocks([*rows, {**failed, "state": "failed"}])
    assert counts == "3 of 4 jobs ended `met`; 3 reached all goals and **1 did not**."
    assert [line.split(" | ")[1] for line in kinds.splitlines() if "prediction off by" in line] == ["1", "1", "1"]
    assert jobs.splitlines()[-1].endswith("| prune | failed | - | - | - | - | - | **missed** |")


def test_what_is_called_measured_says_where() -> None:
    files = [path for folder in PRODUCT for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > len(PRODUCT)
    texts = {path: path.read_text() for path in files}
    assert [path for path, text in texts.items() if re.search(r"(?<!\w)\(measured( \d[^)]*)?\)", text)] == []
    named = {name for text in texts.values() for name in re.findall(r"benchmarks/\w+\.py", text)}
    assert named
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []

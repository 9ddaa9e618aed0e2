"""Figures on timing and on predicted latencies."""

from __future__ import annotations

from collections.abc import Iterator

import burst_protocol
import predict_candidates
import predictor_accuracy
import student_budgets

from reporting.figures import Figure, Row, Rows, figures, percent, table, taken, unit


def predictor(rows: Rows) -> Iterator[str]:
    """Report predictions for networks that were never timed."""
    facts = next(row for row in rows if row["kind"] == "figures")
    held_out = [row for row in rows if row["kind"] == "held_out"]
    errors = [abs(each) for each in predictor_accuracy.errors_of(held_out, facts["session_scale"])]
    device = facts["device"]
    yield taken([facts])
    runtime = f"{device['runtime']} {device['runtime_version']}, threads: {device['threads']}"
    yield f"{facts['held_out_networks']} networks, {facts['processor']}, {runtime}."
    spreads = predictor_accuracy.class_spreads([row for row in rows if row["kind"] == "row"], facts["classes"])
    yield figures([Figure("one network: prediction off by", errors, percent)], "networks")
    yield figures([Figure("standard deviation within one kernel class", spreads, percent)], "classes")
    yield figures(_predictor(facts))


def _predictor(facts: Row) -> Iterator[Figure]:
    bare = facts["without_anchors"]
    yield Figure("mean error", [facts["mape"]], percent, most=predictor_accuracy.MAX_MAPE)
    yield Figure("Kendall's tau", [facts["kendall_tau"]], unit("", 3), least=predictor_accuracy.MIN_TAU)
    yield Figure("share of networks within 5 %", [facts["within_5"]], percent)
    yield Figure("share of networks within 10 %", [facts["within_10"]], percent)
    yield Figure("standard deviation of the errors", [facts["spread"]], percent)
    yield Figure("common factor of the session", [facts["session_scale"]], unit("", 3))
    yield Figure("mean error without anchors", [bare["mape"]], percent)
    yield Figure("largest error without anchors", [bare["max_error"]], percent)
    yield Figure("share of networks within their 95 % interval", [facts["interval_coverage"]], percent)
    yield Figure("mean half width of the interval", [facts["interval_half_width"]], percent)
    yield Figure("mean difference between two halves of one timing", [facts["noise_floor_mape"]], percent)
    yield Figure("factor of the kernel sum", [facts["calibration"]["b"]], unit("", 3))
    yield Figure("time to fill the table", [facts["fill_s"]], unit("s", 0))


def bursts(rows: Rows) -> Iterator[str]:
    """Compare two ways of timing by the differences between passes."""
    ways = [row for row in rows if row["kind"] == "figures"]
    yield taken(ways)
    head = ("way", "models", "passes", "median", "90th percentile", "median, scaled", "90th, scaled", "seconds a pass")
    yield table(head, [_way(way, rows) for way in ways])


def _way(way: Row, rows: Rows) -> tuple[str, ...]:
    own = [row for row in rows if row["kind"] == "pass" and row["way"] == way["way"]]
    apart = burst_protocol.repeatability([row["us"] for row in own])
    shown = [percent(apart[name]) for name in ("median", "p90", "median_scaled", "p90_scaled")]
    spent = [row["seconds"] for row in own]
    return way["way"], str(way["models"]), str(len(own)), *shown, f"{min(spent):.2f} to {max(spent):.2f}"


def candidates(rows: Rows) -> Iterator[str]:
    """Report the time to predict many candidates."""
    yield taken(rows)
    for row in rows:
        what = f"{row['problem']}, {row['candidates']:,} candidates of {row['knobs']} knobs and {row['terms']} terms"
        forms = {name: row[name] for name in row if name.startswith(("from_", "estimate_"))}
        yield figures(
            Figure(
                f"{what}: {name.removesuffix('_ms').replace('_', ' ')}", [ms], unit("ms", 2), predict_candidates.GOAL_MS
            )
            for name, ms in forms.items()
        )


def budgets(rows: Rows) -> Iterator[str]:
    """Report the time to find the students for many budgets, and by how much they may miss the best."""
    yield taken(rows)
    found = []
    for row in rows:
        what = f"{row['problem']}, {row['knobs']} knobs, {row['budgets']} budgets"
        found.append(Figure(f"{what}: processor time", [row["processor_s"]], unit("s", 2), student_budgets.GOAL_S))
        found.append(Figure(f"{what}: loss above the best at most", [row["gap"]], percent))
    yield figures(found)

"""Figures on whole jobs, and on the service and the workers."""

from __future__ import annotations

from collections.abc import Iterator

import event_streams
import f2_cost
import f2_overhead
import ray_dispatch
import resnet20_rest
import statistics_time
import takeover

from reporting.figures import NONE, Figure, Row, Rows, Shown, figures, percent, points, table, taken, unit

MS, SECONDS, NUMBER = unit("ms", 2), unit("s", 1), unit("", 0)


def rest(rows: Rows) -> Iterator[str]:
    """Report each kind of job against its goals, then every job."""
    met, good = (sum(map(test, rows)) for test in (lambda row: row["verdict"] == "met", resnet20_rest.good))
    yield taken(rows)
    yield f"{met} of {len(rows)} jobs ended `met`; {good} reached all goals and **{len(rows) - good} did not**."
    yield figures([each for name in resnet20_rest.WANTED for each in _kind(name, rows)], "jobs")
    head = ("end (UTC)", "job", "verdict", "original", "measured", "predicted", "off by", "accuracy lost", "all goals")
    yield table(head, [_job(row) for row in rows])


def _kind(name: str, rows: Rows) -> Iterator[Figure]:
    own = [row for row in rows if row["name"] == name]
    timed = [row for row in own if row["prediction_error"] is not None]
    trained = [row for row in own if row["accuracy_drop"] is not None]
    if timed:
        errors = [abs(row["prediction_error"]) for row in timed]
        yield Figure(f"{name}: prediction off by", errors, percent, most=resnet20_rest.MAX_ERROR)
        shares, ratio = [row["measured_ms"] / row["original_ms"] for row in timed], resnet20_rest.WANTED[name].ratio
        yield Figure(f"{name}: share of the original's latency", shares, percent, most=ratio)
    if trained:
        lost = [row["accuracy_drop"]["mean"] for row in trained]
        yield Figure(f"{name}: accuracy lost against the control", lost, points, most=resnet20_rest.MAX_DROP)
        lost = [row["original_test_accuracy"] - row["test_accuracy"] for row in trained]
        yield Figure(f"{name}: accuracy lost on test against the original", lost, points)
    if own:
        yield Figure(f"{name}: wall time", [row["wall_s"] for row in own], unit("s", 0))


def _job(row: Row) -> tuple[str, ...]:
    drop = None if row["accuracy_drop"] is None else row["accuracy_drop"]["mean"]
    return (
        str(row["at"])[:16].replace("T", " "),
        row["name"],
        row["verdict"] or row["state"],
        *(_or_dash(row[name], unit("ms", 3)) for name in ("original_ms", "measured_ms", "predicted_ms")),
        _or_dash(row["prediction_error"], lambda error: f"{100 * error:+.2f} %"),
        _or_dash(drop, points),
        "met" if resnet20_rest.good(row) else "**missed**",
    )


def _or_dash(value: float | None, shown: Shown) -> str:
    return "-" if value is None else shown(value)


def streams(rows: Rows) -> Iterator[str]:
    """Report the time of GETs while many listeners stream events, and the events that listeners missed."""
    yield taken(rows)
    yield figures(
        [
            Figure("GET, 99th percentile", [row["get_ms"]["p99"] for row in rows], MS, most=event_streams.MAX_P99_MS),
            Figure("GET, median", [row["get_ms"]["p50"] for row in rows], MS),
            *(
                Figure(f"events {fault}", [row[fault] for row in rows], NUMBER, most=event_streams.MAX_FAULTS)
                for fault in event_streams.FAULTS
            ),
            Figure("frames sent", [row["frames"] for row in rows], NUMBER),
            Figure("listeners", [row["clients"] for row in rows], NUMBER),
            Figure("delay of an event, 99th percentile", [row["lag_ms"]["p99"] for row in rows], MS),
            Figure("cores that the server uses", [row["server_cores"] for row in rows], unit("", 3)),
            Figure("memory of the server", [row["server_mib"] for row in rows], unit("MiB", 0)),
        ]
    )


def takeovers(rows: Rows) -> Iterator[str]:
    """Report how long a job stands still after its conductor was killed."""
    yield taken(rows)
    held = [row["held_s"] for row in rows]
    yield figures(
        [
            Figure("time until another conductor holds the job", held, SECONDS, most=takeover.GOAL_S),
            Figure("time until its first new evaluation", [row["evaluated_s"] for row in rows], SECONDS),
        ],
        "kills",
    )


def dispatch(rows: Rows) -> Iterator[str]:
    """Report the overhead of Ray per evaluation."""
    (stored,) = (row for row in rows if row["kind"] == "stored")
    (found,) = (row for row in rows if row["kind"] == "throughput")
    pools = {row["pool"]: row for row in rows if row["kind"] == "dispatch"}
    shares = [bare_s / ray_s for bare_s, ray_s in zip(found["seconds"]["bare"], found["seconds"]["ray"], strict=True)]
    most, least = ray_dispatch.MAX_DISPATCH_MS, ray_dispatch.MIN_SHARE_OF_BARE
    yield taken([row for row in rows if row["kind"] == "facts"])
    yield f"The first four are medians, or 95th percentiles, of {pools['ray']['n']} evaluations that do nothing."
    yield figures(
        [
            Figure("through Ray, median", [pools["ray"]["p50_ms"]], MS, most=most),
            Figure("through Ray, 95th percentile", [pools["ray"]["p95_ms"]], MS),
            Figure("in one process, median", [pools["in process"]["p50_ms"]], MS),
            Figure("the two transactions alone, median", [stored["p50_ms"]], MS),
            Figure("throughput, share of bare processes", shares, percent, least=least, of_median=True),
        ]
    )


def overhead(rows: Rows) -> Iterator[str]:
    """Report for each set of widths how much more time F2 takes than the bare forward passes."""
    yield taken([row for row in rows if row["kind"] == "facts"])
    yield figures([each for row in rows if row["kind"] == "widths" for each in _overheads(row)], "pairs")


def _overheads(row: Row) -> Iterator[Figure]:
    pairs = list(zip(row["seconds"]["f2"], row["seconds"]["bare"], strict=True))
    for at, clock in enumerate(("processor", "wall")):
        shares = [whole[at] / passes[at] - 1 for whole, passes in pairs]
        name = f"{row['name']}: more {clock} time"
        yield Figure(name, shares, percent, most=f2_overhead.MAX_OVERHEAD, of_median=True)


def cost(rows: Rows) -> Iterator[str]:
    """Report the processor time of F2 as a multiple of a plain evaluation's, and how F2 ranks, by images for norms."""
    if not rows:
        yield NONE
        return
    yield taken(rows)
    if costs := [each for row in rows if row["kind"] == "cost" for each in _costs(row)]:
        yield figures(costs, "rounds")
    ranked = [row for row in rows if row["kind"] == "rank"]
    if ranked:
        yield f"Kendall's tau over {len(ranked)} random candidates of ResNet-20; `plain` leaves the norms as they were:"
        most = f2_cost.MOST_IMAGES
        yield table(
            ("scored by", f"tau with F2 on {most} images"),
            ((name, f"{f2_cost.tau(ranked, name, most):.3f}") for name in ("plain", *map(str, f2_cost.IMAGES))),
        )


def _costs(row: Row) -> Iterator[Figure]:
    for count in f2_cost.IMAGES:
        chosen = count == f2_cost.NORM_IMAGES
        name = f"{row['network']}, {row['precision']}: F2 with {count} images for norms over plain"
        most = f2_cost.MAX_COST if chosen else None
        yield Figure(name, f2_cost.ratios(row, str(count)), unit("times", 2), most=most, of_median=True)


def phase(rows: Rows) -> Iterator[str]:
    """Report the processor seconds of the statistics phase."""
    if not rows:
        yield NONE
        return
    yield taken(rows)
    yield figures(
        (
            Figure("making the network trainable", [row["prepare_s"] for row in rows], SECONDS),
            Figure("evidence and layer errors", [row["gather_s"] for row in rows], SECONDS),
            Figure("one look", [each for row in rows for each in row["look_s"]], SECONDS),
            Figure("looks", [row["looks"] for row in rows], NUMBER),
            Figure("looks without layer errors", [row["places"] for row in rows], NUMBER),
            Figure("the phase", [statistics_time.phase_s(row) for row in rows], SECONDS, most=statistics_time.MAX_S),
        )
    )

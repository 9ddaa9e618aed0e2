"""The report: one JSON document with every number, and a small HTML page made only from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from search.metric import Metric
from search.metrics import COUNTED, METRICS
from workers.reporting.plot import Dot, plot

_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { text-align: right; padding: .25rem .75rem; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { text-align: left }
.met { color: #16803c } .missed { color: #b42318 }
svg { max-width: 100%; height: auto }
"""
_SLOTS = ("original", "control", "best", "nearest")


def html_report(report: Mapping[str, Any]) -> str:
    """Return a self-contained page: it has no script and loads nothing from elsewhere."""
    verdict = str(report["verdict"])
    parts = [
        f"<h1>{escape(str(report['name']))}: <span class='{escape(verdict)}'>{escape(verdict)}</span></h1>",
        f"<p>{escape(str(report['reason']))}</p>",
        *(f"<p class='missed'>{escape(warning)}</p>" for warning in report["warnings"]),
        _results(report),
        _devices(report),
        *(f"<h2>{escape(target['device_name'])}</h2>{_plot(report, target)}" for target in report["targets"]),
        _finalists(report),
        _layers(report),
        _facts(report),
    ]
    title = escape(str(report["name"]))
    head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{title}</title>"
    return (
        f"<!doctype html><html lang='en'><head>{head}<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _results(report: Mapping[str, Any]) -> str:
    names = {target["device_id"]: target["device_name"] for target in report["targets"]}
    metric = METRICS[report["metric"]]
    head = ["", metric.heading, metric.on_test.heading, *(f"{name}: predicted / measured" for name in names.values())]
    head += [metric.label for metric in COUNTED]
    rows = []
    for slot in _SLOTS:
        row = report["summaries"].get(slot)
        if row is None:
            continue
        cells = [f"{slot}{_weights(row)}", _score(metric, row), _shown(metric.on_test.name, row[metric.on_test.name])]
        cells += [_latency(row["latency_ms"].get(device)) for device in names]
        cells += [_shown(metric.name, row.get(metric.name)) for metric in COUNTED]
        rows.append(cells)
    return _table(head, rows)


def _devices(report: Mapping[str, Any]) -> str:
    """Return the table of each device's own result, if the job has several devices: the best network within the limits
    of this device alone, or the nearest to them.
    """
    if not report["devices"]:
        return ""
    targets = {target["device_id"]: target for target in report["targets"]}
    metric = METRICS[report["metric"]]
    head = ["device", "limits", "network", "strategy", metric.heading, "predicted / measured", "limit", "file"]
    rows = []
    for each in report["devices"]:
        target, row = targets[each["device"]], each["network"]
        rows.append(
            [
                target["device_name"],
                each["verdict"],
                row["evaluation_id"].removesuffix("-timed"),
                row["strategy"] or "",
                _score(metric, row),
                _latency(row["latency_ms"].get(each["device"])),
                _milliseconds(target["limit_ms"]),
                each["file"],
            ]
        )
    return f"<h2>Each device by its own limits</h2>{_table(head, rows)}"


def _finalists(report: Mapping[str, Any]) -> str:
    """The table of the finalists: the predicted latency (before timing, and at the session's speed) beside the measured
    quiet latency and p50, and the score against the control with its interval.
    """
    if not report["finalists"]:
        return ""
    metric = METRICS[report["metric"]]
    head = ["finalist", "strategy", metric.heading, "drop [95 %], n", "device", "predicted", "at this session's speed"]
    head += ["quiet", "p50", "97.5 %", "limit", ""]
    rows = []
    for each in report["finalists"]:
        lost = each["drop"]
        mean, low, high = (metric.lost(lost[name]) for name in ("mean", "low", "high"))
        shared = [f"{each['name']}{_weights(each)}", each["strategy"] or "", _shown(metric.name, each[metric.name])]
        shared.append(f"{mean} [{low}, {high}], {lost['count']}")
        for timed in each["timed"] or [None]:
            cells = ["", "", "", "", "", "", ""]
            if timed is not None:
                keys = ("predicted_in_session_ms", "quiet_ms", "p50_ms", "measured_high_ms", "limit_ms")
                interval = f"[{timed['low_ms']:.3f}, {timed['high_ms']:.3f}] at {timed['level']:.0%}"
                predicted = f"{_milliseconds(timed['predicted_ms'])} {interval}"
                cells = [timed["device_id"], predicted, *(_milliseconds(timed[key]) for key in keys)]
            rows.append([*shared, *cells, "met" if each["met"] else "; ".join(each["broken"])])
    return f"<h2>Finalists</h2>{_table(head, rows)}"


def _layers(report: Mapping[str, Any]) -> str:
    """Return the tables of the layers of the result and of the devices' networks, which are among the finalists, or of
    the nearest network if none was judged.
    """
    names = {target["device_id"]: target["device_name"] for target in report["targets"]}
    results = [row for slot in ("best", "nearest") if (row := report["summaries"].get(slot)) is not None]
    results += [each["network"] for each in report["devices"]]
    shown = {row["evaluation_id"] for row in results}
    found = [each for each in report["finalists"] if f"{each['candidate']}-timed" in shown]
    tables = [f"<h2>Layers of {escape(each['name'])}</h2>{_layer_table(each, names)}" for each in found]
    if report["untrained"] is not None:
        tables.append(f"<h2>Layers of the nearest network</h2>{_layer_table(report['untrained'], names)}")
    return "".join(tables)


def _layer_table(finalist: Mapping[str, Any], names: Mapping[str, str]) -> str:
    head = ["layer", "cut with", "before", "after", *(f"{name}: before / after" for name in names.values())]
    rows = []
    for each in finalist["layers"]:
        latency = [each["latency_ms"].get(device) for device in names]
        times = ["" if pair is None else " / ".join(map(_milliseconds, pair)) for pair in latency]
        share = "" if each["share"] is None else f"{each['share']:.1%}"
        sizes = ("" if each[name] is None else str(each[name]) for name in ("before", "after"))
        rows.append([each["layer"], each["group"] or "", *sizes, *times, share, each["reason"]])
    return _table([*head, "share of the original's time", "why"], rows)


def _facts(report: Mapping[str, Any]) -> str:
    rows = [[key, str(value)] for key, value in report["facts"].items()]
    return f"<h2>How</h2>{_table(['', ''], rows)}"


def _plot(report: Mapping[str, Any], target: Mapping[str, Any]) -> str:
    device, metric = target["device_id"], METRICS[report["metric"]]
    dots = [
        Dot(each["metrics"][f"latency_ms@{device}"], each["metrics"][metric.name], "candidate", each["id"])
        for each in report["evaluations"]
        if each["status"] == "completed" and f"latency_ms@{device}" in each["metrics"]
    ]
    for slot in _SLOTS:
        row = report["summaries"].get(slot)
        measured = row["latency_ms"].get(device, {}).get("measured") if row else None
        if row and measured is not None and row[metric.name] is not None:
            dots.append(Dot(measured, row[metric.name], slot, slot))
    return plot(dots, target["limit_ms"], metric)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _shown(metric: str, value: float | None) -> str:
    return "" if value is None else METRICS[metric].show(value)


def _score(metric: Metric, row: Mapping[str, Any]) -> str:
    """Format the score. A score that was computed on the file gets its 95 % interval and its number of images. If these
    images served to choose the file among several finalists, the number of finalists is added, because the best of
    several looks better than it is.
    """
    shown, known = _shown(metric.name, row[metric.name]), row.get(f"{metric.name}_interval")
    finalists = row.get("finalists", 1)
    if known is None:
        return shown
    chosen = f", chosen among {finalists} finalists on these very images" if finalists > 1 else ""
    return f"{shown} [{metric.told(known['low'])}, {metric.told(known['high'])}], {known['n']} images{chosen}"


def _weights(row: Mapping[str, Any]) -> str:
    """Say which weights were judged of a network that was trained."""
    if not row.get("epochs"):
        return ""
    return ", untrained" if row["untrained"] else f", after epoch {row['epoch']} of {row['epochs']}"


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f} ms"


def _latency(row: Mapping[str, float | None] | None) -> str:
    if row is None:
        return ""
    return f"{_milliseconds(row['predicted']) or '-'} / {_milliseconds(row['measured']) or '-'}"

"""Checks before a job is queued: can its original network do the task, and can its limits be met?

With a wrong scale or channel order, even a good network only guesses. A limit that even the smallest widths cannot
reach can never be met. In both cases a search would waste hours, so such a job is refused now, and the message gives
the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.devices import asked_forms
from service.errors import InvalidInput
from service.files.blobs import Blobs
from service.jobs import catalogue
from service.jobs.body import JobCreate
from service.jobs.submission import Resolved, resolve
from service.jobs.warnings import JobWarning, lasting
from service.store.devices import devices, latency
from service.store.engine import Store
from service.uploads.checking import in_turn
from service.uploads.intake import TRUSTED_COVERAGE, preflight
from service.uploads.sandbox import QUICK, run
from service.uploads.scoring import score


def check_before_queueing(store: Store, blobs: Blobs, body: JobCreate) -> list[JobWarning]:
    """Check a job and return its warnings if it is accepted.

    Raises:
        InvalidInput: a check of the body fails, no method finds anything to change, the original network only guesses
            and `force` is not set, or a limit is too low to be met according to the device's table.
    """
    with store.read() as tx:
        resolved = resolve(tx, body)
    _check_changes(blobs, resolved)
    warnings = lasting(_check_chance(store, blobs, resolved, body))
    methods = [item["name"] for item in resolved.request["methods"]]
    for index, target in enumerate(resolved.request["targets"]):
        try:
            warnings += _check_floor(store, blobs, resolved, index, target)
        except BelowFloor as error:
            if methods == ["filter_prune"]:
                raise
            # The table does not say what other methods can reach, so a limit below the floor of pruning causes only a
            # warning.
            text = f"{error}; only measuring will show whether {' and '.join(methods)} can meet it"
            warnings.append(JobWarning(text, until_verdict=True))
    return warnings


class BelowFloor(InvalidInput):
    """A limit that pruning alone cannot meet."""


def _check_changes(blobs: Blobs, resolved: Resolved) -> None:
    """Raise InvalidInput if no method finds anything to change.

    A prunable channel belongs to a floating-point layer. Each method can change such a layer unless the method's
    settings forbid it. The exception is fp16, which cannot change weights that were uploaded as float16.
    """
    methods = [(item["name"], item["settings"]) for item in resolved.request["methods"]]
    model = resolved.model
    unsure = any(given.get("keep_float") for _, given in methods) or all(name == "fp16" for name, _ in methods)
    if any(group["prunable"] for group in model.groups) and not unsure:
        return
    request = {"path": str(blobs.path(model.sha256).absolute()), "name": model.name, "methods": methods}
    in_turn(lambda: run("changes", request, QUICK, field="model"))


def _check_chance(store: Store, blobs: Blobs, resolved: Resolved, body: JobCreate) -> list[str]:
    scored = score(store, blobs, resolved.model, resolved.dataset, body.seed, body.task)
    if not scored.at_chance:
        return []
    does = catalogue.task(body.task).told(scored.mean, scored.count, scored.chance)
    found = f"the original {does}; preprocessing used: {_shown(resolved.model.preprocessing)}"
    if not body.force:
        raise InvalidInput("dataset", scored.mean, f"{found}; set `force` to submit the job anyway", code="at_chance")
    return [found]


def _shown(preprocessing: Mapping[str, Any]) -> str:
    """Format the settings in effect; the default scale depends on the type of the pixels."""
    known = {name: value for name, value in preprocessing.items() if value is not None}
    return str({"scale": "1/255 for uint8 pixels, 1 for float32 pixels", **known})


def _check_floor(
    store: Store, blobs: Blobs, resolved: Resolved, index: int, target: Mapping[str, Any]
) -> list[JobWarning]:
    """Compare a target with the predicted latency of the smallest widths, if the device's table covers enough of it.

    Raises:
        InvalidInput: the limit is below the floor's lower bound.
    """
    with store.read() as tx:
        device = devices.get(tx, target["device"])
        empty = not latency.measured(tx, device)
        table = None if empty else latency.table(tx, device.id)
    text = f"device {device.name}: too little was measured there to say whether the limit can be met"
    unknown = JobWarning(text, until_verdict=True)
    if table is None:
        return [unknown]
    path = blobs.path(resolved.model.sha256)
    methods = {item["name"]: item["settings"] for item in resolved.request["methods"]}
    told = asked_forms.told(store, blobs, resolved.model.sha256, device.id)
    fused = {wiring: each.sets for wiring, each in told.items() if each.sets}
    found = in_turn(lambda: preflight(path, table, QUICK, methods.get("filter_prune", {}), fused))
    if "untold" in found or min(found["coverage"], found["floor_coverage"]) < TRUSTED_COVERAGE:
        return [unknown]
    field = "max_latency_ms" if target["max_latency_ms"] is not None else "max_latency_ratio"
    unit_ms = 1.0 if field == "max_latency_ms" else found["latency_ms"]
    if target[field] * unit_ms < found["floor_low_ms"]:
        nearest = found["floor_ms"] / unit_ms
        message = f"is below what pruning can reach on {device.name}; the nearest possible is {nearest:.4g}"
        raise BelowFloor(f"targets.{index}.{field}", target[field], message, code="below_floor")
    return []

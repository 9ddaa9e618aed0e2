"""Preflight: estimate how much pruning can reduce a network's latency on a device, before a job is submitted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from compress.counting.cost import CostModel
from compress.counting.op_templates import OpTemplate, op_templates
from compress.graph.groups import groups, prunable_blocks
from compress.importing.normalise import load_network
from compress.methods.filter_prune import Settings
from compress.network import Network
from compress.pruning.importance import fallback
from compress.scheme import Scheme
from hw_profiles import runtimes
from hw_profiles.errors import ExtraMissing
from hw_profiles.errors import InvalidInput as UnknownRuntime
from hw_profiles.tables.table import LatencyTable, Prediction
from hw_profiles.wiring import wiring
from search.space import check_settings
from service.uploads.checks.model import describe
from service.uploads.intake import TRUSTED_COVERAGE, not_asked_yet
from workers.problem.timed_form import cut_forms, timed_form
from workers.problem.widths import searched_widths

_Told: TypeAlias = "Mapping[str, tuple[frozenset[str], ...]]"
NEVER_MEASURED = (
    "no part of this network has been measured on this device yet: POST .../predict with fill, or measure it"
)


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Map `{path, table, settings, fused}` to the answer of GET /api/v1/models/{id}/preflight, or to `{untold: why}`.

    `fused` maps each wiring to the sets of node names that the device reported. If it is empty, the engine on this
    machine is asked; if it has none of the device's version, the device must report first.

    Latencies and layers belong to the network as uploaded; ratios refer to this network, and `predict` describes the
    same network. `floor_ms` is predicted for the smallest widths that a job searches on this device with these
    `settings` of filter_prune, in the form of the network that a job prunes. Pruning alone cannot meet a limit below
    `floor_ms`. All values in milliseconds are null if the table covers no part of the network.

    Raises:
        InvalidInput: the network cannot be read.
    """
    try:
        return _found(request)
    except _Untold as error:
        return {"untold": str(error)}


def _found(request: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: tuple(map(frozenset, sets)) for name, sets in request["fused"].items()}
    network = timed_form(load_network(Path(request["path"])))
    table = LatencyTable.from_json(json.loads(Path(request["table"]).read_text()))
    scheme = Scheme.of([("filter_prune", request["settings"])])
    templates = op_templates(network, _fused(network, table, told), runtimes.layout_of(table.device.runtime))
    blocks = prunable_blocks(network)
    settings = check_settings(Settings, request["settings"])
    smallest = _smallest(network, scheme, table)
    (now,) = table.predict([[template.at() for template in templates]])
    floor = _floor(network, scheme, table, told)
    known = now.coverage > 0
    return {
        "prunable_share": _prunable_shares(network, smallest),
        "frozen": [describe(group) for group in groups(network) if group.reason],
        "latency_ms": _ms(now.latency_us, known),
        "low_ms": _ms(now.low_us, known),
        "high_ms": _ms(now.high_us, known),
        "floor_ms": _ms(floor.latency_us, known),
        "floor_low_ms": _ms(floor.low_us, known),
        "coverage": now.coverage,
        "floor_coverage": floor.coverage,
        "missing": len(now.missing),
        "layers": _layers(templates, {block.name for block in blocks}, now, known),
        "warnings": [*_warnings(table, now, bool(blocks), bool(told)), *fallback(network, blocks, settings.importance)],
    }


def _smallest(network: Network, scheme: Scheme, table: LatencyTable) -> dict[str, int]:
    return {name: widths[0] for name, widths in searched_widths(network, scheme, [table.classes]).items()}


def _floor(network: Network, scheme: Scheme, table: LatencyTable, told: _Told) -> Prediction:
    """Predict the latency of the smallest network, in the form that the table covers best, because jobs measure the
    kernels of the form that they keep. If two forms are covered equally well, take the faster form.
    """
    found: list[Prediction] = []
    for form in cut_forms(network):
        smallest = _smallest(form, scheme, table)
        templates = op_templates(form, _fused(form, table, told), runtimes.layout_of(table.device.runtime))
        found += table.predict([[template.at(_own(template, smallest)) for template in templates]])
    return min(found, key=lambda floor: (-floor.coverage, floor.latency_us))


class _Untold(Exception):
    """Raised if the device must first report which nodes it runs as one kernel."""


def _fused(network: Network, table: LatencyTable, told: _Told) -> tuple[frozenset[str], ...]:
    model = network.save()
    known = told.get(wiring(model)) if told else None
    if known is not None:
        return known
    device = table.device
    try:
        runtime = runtimes.load(device.runtime)
        here = runtime.version()
        if here != device.runtime_version:
            why = f"it runs {device.runtime} {device.runtime_version}, this server has {here}"
            raise _Untold(f"{device.name} has not reported yet which nodes it fuses ({why})")
        return runtime.fused(model)
    except (ExtraMissing, UnknownRuntime) as error:
        raise _Untold(f"{table.device.name} has not reported yet which nodes it fuses ({error})") from error


def _own(template: OpTemplate, widths: Mapping[str, int]) -> dict[str, int]:
    return {name: width for name, width in widths.items() if name in template.blocks}


def _prunable_shares(network: Network, smallest: Mapping[str, int]) -> dict[str, float]:
    """Return the share of each count that the smallest widths save."""
    blocks = [block for block in prunable_blocks(network) if block.name in smallest]
    if not blocks:
        return {"parameters": 0.0, "macs": 0.0}
    widths = np.array([[block.width for block in blocks], [smallest[block.name] for block in blocks]])
    counts = CostModel(network, blocks).counts(widths)
    return {name: 1.0 - float(counts[name][1] / counts[name][0]) for name in ("parameters", "macs")}


def _layers(templates: Sequence[OpTemplate], prunable: Set[str], now: Prediction, known: bool) -> list[dict[str, Any]]:
    total_us = sum(entry.latency_us for entry in now.blocks)
    return [
        {
            "layers": list(template.layers),
            "prunable": not prunable.isdisjoint(template.blocks),
            "latency_ms": _ms(entry.latency_us, known),
            "share": entry.latency_us / total_us if known and total_us > 0 else None,
            "source": entry.source,
        }
        for template, entry in zip(templates, now.blocks, strict=True)
    ]


def _ms(latency_us: float, known: bool) -> float | None:
    return latency_us / 1000 if known and math.isfinite(latency_us) else None


def _warnings(table: LatencyTable, now: Prediction, prunable: bool, told: bool) -> list[str]:
    warnings = []
    if now.coverage == 0:
        warnings.append(NEVER_MEASURED)
    elif now.coverage < TRUSTED_COVERAGE:
        warnings.append(f"only {now.coverage:.0%} of the time comes from measured rows: the rest is estimated")
    if not told:
        warnings.append(not_asked_yet(table.device))
    if assumed := runtimes.assumed(table.device.runtime):
        warnings.append(f"{table.device.name}: {assumed}")
    if not prunable:
        warnings.append("no channels of this network can be pruned")
    return warnings

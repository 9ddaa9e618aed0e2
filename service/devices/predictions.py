"""Predictions: the latency of a stored model, summed over its fused blocks with the rows of a device's table."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import metadata
from typing import Any

from pydantic import BaseModel

import hw_profiles.errors
from hw_profiles import runtimes
from hw_profiles.device import DeviceConfig
from hw_profiles.ops import Op
from hw_profiles.tables.table import Entry, LatencyTable, Prediction, Source
from service.errors import Conflict
from service.files.blobs import Blobs
from service.store.devices.fusions import Sets, Told
from service.uploads import checking, sandbox
from service.uploads.sandbox import QUICK

HELD = 32
"""Number of models whose blocks stay in memory."""


class BlockPrediction(BaseModel):
    """One fused block. `source` is `missing` if the table has no basis for a prediction."""

    layers: list[str]
    latency_ms: float | None
    source: Source


class PredictionPublic(BaseModel):
    """Predicted latency of a model on a device; null at coverage 0. `missing` counts the unmeasured blocks."""

    latency_ms: float | None
    low_ms: float | None
    high_ms: float | None
    coverage: float
    missing: int
    blocks: list[BlockPrediction]
    warnings: list[str]


Blocks = tuple[tuple[tuple[str, ...], Op], ...]
"""Pairs (names of the layers, op), one for each block of a network, in the order of execution."""


class Untold(Conflict):
    """The device has not reported what it fuses, and the server lacks its runtime in its version."""


def blocks_of(blobs: Blobs, sha256: str, device: DeviceConfig, told: Iterable[Told] = ()) -> Blocks:
    """Return the blocks of a stored model on a device. The sandbox finds them once; then they are kept beside the blob.

    Args:
        told: the device's answers, beginning with the form that is timed first; if it is empty, this machine's engine
            is asked instead if it is of the same version.

    Raises:
        Untold: the device must be asked first.
        Conflict: the device reported that it cannot load the model.
        InvalidInput: the network cannot be read any more.
    """
    answer = next(iter(told), None)
    if answer is None:
        return _blocks(blobs, sha256, device.runtime, device.runtime_version)
    if answer.failure:
        raise Conflict(f"{device.name} cannot load this model: {answer.failure}", code="runtime_refused")
    return _told_blocks(blobs, sha256, device.runtime, answer.sets)


@lru_cache(maxsize=HELD)
def _blocks(blobs: Blobs, sha256: str, runtime: str, wanted: str) -> Blocks:
    try:
        version = runtimes.load(runtime).version()
    except (hw_profiles.errors.ExtraMissing, hw_profiles.errors.InvalidInput) as error:
        raise _unable(runtime, str(error)) from error
    if version != wanted:
        raise _unable(runtime, f"the device runs version {wanted}, the server has {version}")
    # The fusions depend on the runtime's version, and the keys of blocks depend on Netlathe's version.
    kept = f"blocks-{runtime}-{version}-{metadata.version('netlathe')}.json"
    return _kept(blobs, sha256, kept, {"runtime": runtime})


@lru_cache(maxsize=HELD)
def _told_blocks(blobs: Blobs, sha256: str, runtime: str, sets: Sets) -> Blocks:
    fused = sorted(sorted(names) for names in sets)
    digest = hashlib.sha256(json.dumps(fused).encode()).hexdigest()
    kept = f"blocks-told-{digest[:16]}-{metadata.version('netlathe')}.json"
    return _kept(blobs, sha256, kept, {"runtime": runtime, "fused": fused})


def _kept(blobs: Blobs, sha256: str, kept: str, how: Mapping[str, Any]) -> Blocks:
    content = blobs.beside(sha256, kept)
    if content is None:
        request = {"path": str(blobs.path(sha256).absolute()), **how}
        found = checking.in_turn(lambda: sandbox.run("blocks", request, QUICK, field="model"))
        if "missing" in found:
            raise _unable(how["runtime"], found["missing"])
        content = json.dumps(found).encode()
        blobs.keep_beside(sha256, kept, content)
    return tuple((tuple(each["layers"]), Op.from_json(each["op"])) for each in json.loads(content)["blocks"])


def _unable(runtime: str, why: str) -> Untold:
    return Untold(f"the server cannot find out what {runtime} fuses: {why}", code="runtime_missing")


def unknown(device: DeviceConfig, asked: bool) -> PredictionPublic:
    """Return the prediction for a network whose blocks are unknown because the device has not reported its fusions."""
    what = "the device is being asked now" if asked else "set fill to ask the device"
    warning = f"{device.name} has not reported yet which nodes it fuses: {what}"
    nothing = dict.fromkeys(("latency_ms", "low_ms", "high_ms"))
    return PredictionPublic(**nothing, coverage=0.0, missing=1, blocks=[], warnings=[warning])


def predict(table: LatencyTable, blocks: Blocks) -> tuple[Prediction, PredictionPublic]:
    """Predict one network; return the prediction and its public form."""
    (found,) = table.predict([[op for _, op in blocks]])
    known = found.coverage > 0
    warnings = []
    if table.calibration.networks == 0:
        warnings.append("no whole network was measured on this device yet: the interval is a prior")
    if found.missing:
        warnings.append(f"{len(found.missing)} blocks are not measured; use fill to have them measured")
    if table.device.emulated:
        warnings.append("this device is emulated: its figures say nothing about speed")
    if assumed := runtimes.assumed(table.device.runtime):
        warnings.append(f"{table.device.name}: {assumed}")
    shown = PredictionPublic(
        latency_ms=_ms(found.latency_us) if known else None,
        low_ms=_ms(found.low_us) if known else None,
        high_ms=_ms(found.high_us) if known else None,
        coverage=found.coverage,
        missing=len(found.missing),
        blocks=[_block(layers, entry) for (layers, _), entry in zip(blocks, found.blocks, strict=True)],
        warnings=warnings,
    )
    return found, shown


def _block(layers: tuple[str, ...], entry: Entry) -> BlockPrediction:
    return BlockPrediction(layers=list(layers), latency_ms=_ms(entry.latency_us), source=entry.source)


def _ms(latency_us: float) -> float | None:
    return latency_us / 1000.0 if math.isfinite(latency_us) else None

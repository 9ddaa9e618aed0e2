"""Intake: check uploads in the sandbox before any other part of the service reads them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from compress.data.dataset import cache_beside
from hw_profiles.device import DeviceConfig
from hw_profiles.tables.table import LatencyTable
from service.errors import InvalidInput
from service.uploads.not_onnx import refuse_foreign
from service.uploads.sandbox import Limits, run

TRUSTED_COVERAGE = 0.8
"""A prediction can get a job refused only if at least this share of the predicted time comes from measured rows."""
Fused: TypeAlias = tuple[frozenset[str], ...]
"""Sets of node names, each of which a device runs as one kernel."""


def check_model(
    path: Path, file_name: str, preprocessing: Mapping[str, Any], limits: Limits, output: str | None = None
) -> dict[str, Any]:
    """Check an uploaded network; `output` is the name of its scored output, if the user gave it.

    Returns:
        parameters, macs, size_bytes, input_shape, inputs, outputs, groups and warnings, as the contract shows them.

    Raises:
        InvalidInput: the network has a fault, or its check crashed or exceeded a limit.
    """
    refuse_foreign(path, file_name)
    request = {"path": str(path.absolute()), "preprocessing": dict(preprocessing), "output": output}
    return run("model", request, limits)


def check_dataset(
    path: Path, digest: str, layout: str | None, classes: int | None, limits: Limits, file_name: str | None = None
) -> dict[str, Any]:
    """Check an uploaded data set and store a decoded copy beside it; errors about the whole file show `file_name`.

    Returns:
        counts, classes, class_names, image_shape, target_shape and warnings.

    Raises:
        InvalidInput: the data set has a fault, or its check crashed or exceeded a limit.
    """
    request = {
        "path": str(path.absolute()),
        "digest": digest,
        "layout": layout,
        "classes": classes,
        "cache": str(cache_beside(path.absolute())),
    }
    try:
        return run("dataset", request, limits)
    except InvalidInput as error:
        if error.field != "file" or error.value is not None:
            raise
        raise InvalidInput("file", file_name, error.message, code=error.code) from error


def preflight(
    path: Path, table: LatencyTable, limits: Limits, settings: Mapping[str, Any], fused: Mapping[str, Fused]
) -> dict[str, Any]:
    """Find what pruning with these settings of filter_prune can gain on a device, from its latency table.

    Returns:
        The fields of `service.uploads.checks.preflight`, or `untold`, the reason why the device must first report its
        fusions.

    Raises:
        InvalidInput: the network has a fault, or its check crashed or exceeded a limit.
    """
    with tempfile.TemporaryDirectory(prefix="netlathe-table-") as folder:
        stored = Path(folder) / "table.json"
        stored.write_text(json.dumps(table.to_json()))
        told = {wiring: [sorted(names) for names in sets] for wiring, sets in fused.items()}
        request = {"path": str(path.absolute()), "table": str(stored), "settings": dict(settings), "fused": told}
        return run("preflight", request, limits, field="model")


def not_asked_yet(device: DeviceConfig) -> str:
    """Say that kernels are those of this server's runtime, because the device has not reported its own."""
    return (
        f"kernels are as this server's {device.runtime} {device.runtime_version} fuses them; {device.name} has not"
        " been asked yet"
    )

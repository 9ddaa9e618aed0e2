"""Devices' answers about the kernels of a stored model's forms, and requests for such answers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from service.files.blobs import Blobs
from service.store.devices import devices, fusions
from service.store.devices.fusions import Told
from service.store.engine import Store
from service.uploads import checking, sandbox

HELD = 256
"""Number of models whose wirings stay in memory."""


def told(store: Store, blobs: Blobs, sha256: str, device_id: str) -> Mapping[str, Told]:
    """Return the device's answers about a model's forms by wiring, beginning with the form that is timed first."""
    with store.read() as tx:
        if not fusions.has_told(tx, devices.get(tx, device_id)):
            return {}
    wirings = _wirings(blobs, sha256)
    with store.read() as tx:
        found = fusions.told(tx, devices.get(tx, device_id), wirings)
    return {wiring: found[wiring] for wiring in wirings if wiring in found}


def ask(store: Store, blobs: Blobs, sha256: str, device_id: str) -> None:
    """Ask the device which nodes of a model's forms it fuses."""
    with tempfile.TemporaryDirectory(prefix="netlathe-forms-") as folder:
        wirings = _written(blobs, sha256, Path(folder))
        files = {wiring: blobs.put_file(Path(folder) / f"{wiring}.onnx") for wiring in wirings}
    with store.begin() as tx:
        for blob in files.values():
            blobs.record(tx, blob)
        fusions.ask(tx, device_id, {wiring: blob.sha256 for wiring, blob in files.items()})


@lru_cache(maxsize=HELD)
def _wirings(blobs: Blobs, sha256: str) -> tuple[str, ...]:
    kept = f"wirings-{metadata.version('netlathe')}.json"
    content = blobs.beside(sha256, kept)
    if content is not None:
        return tuple(json.loads(content))
    with tempfile.TemporaryDirectory(prefix="netlathe-forms-") as folder:
        found = _written(blobs, sha256, Path(folder))
    blobs.keep_beside(sha256, kept, json.dumps(found).encode())
    return found


def _written(blobs: Blobs, sha256: str, folder: Path) -> tuple[str, ...]:
    request = {"path": str(blobs.path(sha256).absolute()), "folder": str(folder)}
    found = checking.in_turn(lambda: sandbox.run("forms", request, sandbox.QUICK, field="model"))
    return tuple(found["wirings"])

"""A third party's runtime for tests: the simulated one, but some models crash it and some hang it.

Installed for a test by `install`, as a distribution with an entry point, so that child processes find it too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest

from hw_profiles.device import DeviceConfig
from hw_profiles.runtimes import Arrays, Progress, Runtime
from hw_profiles.runtimes.simulated.engine import SimulatedRuntime
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample

CRASHES, HANGS, REFUSED = 13, 17, 19
"""Output channels of the convolutions that do so."""


class FragileRuntime(Runtime):
    """Delegates to the simulated runtime, after looking for poison."""

    name = "fragile"

    def __init__(self) -> None:
        self._inner = SimulatedRuntime()

    def version(self) -> str:
        return "1"

    def configs(self, machine: str) -> list[DeviceConfig]:
        return [DeviceConfig(machine, "simulated", self.name, self.version())]

    def time(
        self,
        files: Mapping[str, bytes],
        device: DeviceConfig,
        protocol: BurstProtocol,
        progress: Progress | None = None,
    ) -> Mapping[str, Sample | Failure]:
        print("engines print to stdout")  # noqa: T201 - and must not disturb the agent
        refused = {}
        for key, model in files.items():
            widths = _widths(model)
            if CRASHES in widths:
                sys.stderr.write("about to crash\n")
                sys.stderr.flush()
                os.kill(os.getpid(), signal.SIGSEGV)
            if HANGS in widths:
                threading.Event().wait()
            if REFUSED in widths:
                refused[key] = Failure(key, "no such kernel", "load")
        good = {key: model for key, model in files.items() if key not in refused}
        return {**self._inner.time(good, device, protocol, progress), **refused}

    def run(self, file: bytes, inputs: Arrays, device: DeviceConfig) -> Arrays:
        outputs = self._inner.run(file, inputs, device)
        if HANGS in _widths(file):
            threading.Event().wait()
        return outputs

    def fused(self, model: bytes) -> tuple[frozenset[str], ...]:
        return self._inner.fused(model)


def _widths(model: bytes) -> set[int]:
    return {dims[0] for tensor in onnx.load_model_from_string(model).graph.initializer if (dims := tensor.dims)}


RUNTIME = FragileRuntime()


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the runtime known to this process and to its children as a distribution in `folder`."""
    info = folder / "fragile-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fragile\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[netlathe.runtimes]\nfragile = fragile_runtime:RUNTIME\n")
    path = [str(folder), str(Path(__file__).parent)]
    for entry in path:
        monkeypatch.syspath_prepend(entry)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))

"""Runtimes, discovered by file: each module here offers RUNTIME; third parties use the entry point group."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Protocol, TypeAlias, runtime_checkable

from hw_profiles.device import DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.timing import BurstProtocol, Failure, Sample

ENTRY_POINTS = "netlathe.runtimes"

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (models done, models in all) after each round."""


@runtime_checkable
class Runtime(Protocol):
    """An engine that runs ONNX models on this machine. `hw_profiles.testing.RuntimeContract` tests one."""

    @property
    def name(self) -> str:
        """Lower-case word that stands in device names: `onnxruntime`."""
        ...

    def version(self) -> str:
        """The engine's version. Raises ExtraMissing where the engine is not installed."""
        ...

    def configs(self, machine: str) -> list[DeviceConfig]:
        """What an agent on `machine` offers by default: one thread, and all big cores."""
        ...

    def time(
        self,
        models: Mapping[str, bytes],
        device: DeviceConfig,
        protocol: BurstProtocol,
        progress: Progress | None = None,
    ) -> Mapping[str, Sample | Failure]:
        """Times all models interleaved. One answer per key: a bad model is a Failure, never an exception.

        A timing model of an op that does not run as one kernel keeps its Sample, with `suspect` set to
        `fusion_mismatch` in its extra.
        """
        ...

    def fused(self, model: bytes) -> tuple[frozenset[str], ...]:
        """The sets of node names of `model` that run as one kernel, in topological order of their results.

        Each node is in exactly one set. Nodes that the runtime folds away (dropout, constant chains,
        quantise-dequantise pairs) are in the set of the kernel that absorbs their result.
        Raises InvalidInput where node names are missing or repeated, or the runtime cannot load the model.
        """
        ...


def names() -> list[str]:
    """Names of all runtimes that can be loaded, installed or not, sorted."""
    files = {module.name for module in pkgutil.iter_modules(__path__)}
    return sorted(files | {point.name for point in entry_points(group=ENTRY_POINTS)})


def load(name: str) -> Runtime:
    """The runtime called `name`. Raises InvalidInput for an unknown one."""
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name in points:
        found = points[name].load()
    elif name in {module.name for module in pkgutil.iter_modules(__path__)}:
        found = importlib.import_module(f"{__name__}.{name}").RUNTIME
    else:
        raise InvalidInput("runtime", name, f"one of {', '.join(names())}")
    if not isinstance(found, Runtime):
        raise InvalidInput("runtime", name, "does not offer what hw_profiles.runtimes.Runtime asks for")
    return found

"""Runtimes, discovered by file: each module here offers RUNTIME; third parties use the entry point group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias, runtime_checkable

from hw_profiles.device import DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample
from search.discovery import Discovery

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


_RUNTIMES = Discovery(__name__, "RUNTIME", Runtime)  # type: ignore[type-abstract]  # a Protocol that can be checked
names = _RUNTIMES.names


def load(name: str) -> Runtime:
    """The runtime called `name`, installed or not. Raises InvalidInput for an unknown one."""
    if name not in names():
        raise InvalidInput("runtime", name, f"one of {', '.join(names())}")
    try:
        return _RUNTIMES.load(name)
    except TypeError as error:
        raise InvalidInput("runtime", name, "does not offer what hw_profiles.runtimes.Runtime asks for") from error

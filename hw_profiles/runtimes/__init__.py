"""Runtimes, discovered by file: each module here offers RUNTIME; third parties use the entry point group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from hw_profiles.device import DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.tables import probe
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.tables.probe import Curves
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample
from search.discovery import Discovery

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (models done, models in all) after each round."""
Arrays: TypeAlias = "Mapping[str, np.ndarray[Any, np.dtype[Any]]]"
"""Tensors by name."""


@runtime_checkable
class Runtime(Protocol):
    """An engine that runs networks on this machine; a class of one is derived from this class.

    An engine with a file format of its own names it in the `suffix` of its devices and overrides `convert`.
    `hw_profiles.testing.RuntimeContract` tests a runtime.
    """

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

    def convert(self, model: bytes, device: DeviceConfig) -> bytes:
        """The engine's own file of an ONNX file: what is timed, and handed over to users beside the ONNX file.

        Raises InvalidInput if the engine cannot make one.
        """
        return model

    def run(self, file: bytes, inputs: Arrays, device: DeviceConfig) -> Arrays:
        """The outputs of one run of the engine's file, by the names that the ONNX file has for them.

        `inputs` hold one sample: symbolic sizes of the ONNX file are 1. Raises InvalidInput if the engine cannot load
        the file.
        """
        ...

    def time(
        self,
        files: Mapping[str, bytes],
        device: DeviceConfig,
        protocol: BurstProtocol,
        progress: Progress | None = None,
    ) -> Mapping[str, Sample | Failure]:
        """Times the engine's files interleaved. One answer per key: a bad file is a Failure, never an exception."""
        ...

    def fused(self, model: bytes) -> tuple[frozenset[str], ...]:
        """The sets of node names of `model` that run as one kernel, in topological order of their results.

        Each node is in exactly one set. Nodes that the runtime folds away (dropout, constant chains,
        quantise-dequantise pairs) are in the set of the kernel that absorbs their result.
        Raises InvalidInput where node names are missing or repeated, or the runtime cannot load the model.
        """
        ...

    def learn(self, curves: Curves) -> KernelClasses:
        """Which channel counts run the same kernel work, as latencies against channel counts show it."""
        return probe.learn(curves.out_us, curves.in_us)


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


def learned(name: str, curves: Curves) -> KernelClasses:
    """The kernel classes that the curves of a device show, as its runtime reads them; if it is not installed here, by
    the rule that runtimes have by default.
    """
    if name in names():
        return load(name).learn(curves)
    return probe.learn(curves.out_us, curves.in_us)

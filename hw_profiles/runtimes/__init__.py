"""Runtimes, discovered by file: each module here defines RUNTIME; third parties use the entry point group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from hw_profiles.device import DeviceConfig
from hw_profiles.errors import InvalidInput
from hw_profiles.ops import Layout, TensorSpec
from hw_profiles.tables import probe
from hw_profiles.tables.kernel_classes import KernelClasses
from hw_profiles.tables.probe import Curves
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample
from search.discovery import Discovery

Progress: TypeAlias = Callable[[int, int], None]
"""Function that is called after each round with the number of models done and the number of all models."""
Arrays: TypeAlias = "Mapping[str, np.ndarray[Any, np.dtype[Any]]]"
"""Tensors by name."""


@runtime_checkable
class Runtime(Protocol):
    """An engine that runs networks on this machine; every runtime derives from this class.

    An engine with its own file format names it in the `suffix` of its devices and overrides `convert`.
    `hw_profiles.testing.RuntimeContract` tests a runtime.
    """

    @property
    def name(self) -> str:
        """Lower-case word for device names, such as `onnxruntime`."""
        ...

    def version(self) -> str:
        """Return the engine's version. Raises ExtraMissing if the engine is not installed."""
        ...

    def configs(self, machine: str) -> list[DeviceConfig]:
        """Return the configurations that an agent on `machine` offers by default: one thread, and all big cores."""
        ...

    def convert(self, model: bytes, device: DeviceConfig) -> bytes:
        """Convert an ONNX file to the engine's own file, which is timed and given to users beside the ONNX file.

        Raises InvalidInput if the engine cannot convert the file.
        """
        return model

    def run(self, file: bytes, inputs: Arrays, device: DeviceConfig) -> Arrays:
        """Run the engine's file once; return the outputs by their names in the ONNX file.

        `inputs` holds one sample: symbolic sizes of the ONNX file are 1. Raises InvalidInput if the engine cannot load
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
        """Time the engine's files, interleaved; return one answer per key. A bad file gives a Failure, not an
        exception.
        """
        ...

    def fused(self, model: bytes) -> tuple[frozenset[str], ...]:
        """Return the sets of node names of `model` that run as one kernel, in topological order of their results.

        Each node is in exactly one set. Nodes that the runtime folds away (dropout, constant chains,
        quantise-dequantise pairs) are in the set of the kernel that absorbs their result. Raises InvalidInput if node
        names are missing or repeated, or the runtime cannot load the model.
        """
        ...

    def layout(self, spec: TensorSpec, made_by: str) -> str:
        """Return the word of `hw_profiles.ops.PRODUCERS` for a tensor made by a block of these op types. The default is
        the rule of onnxruntime.
        """
        return _default_layout(spec, made_by)

    def learn(self, curves: Curves) -> KernelClasses:
        """Learn from the curves which channel counts run the same kernel work."""
        return probe.learn(curves.out_us, curves.in_us)


_RUNTIMES = Discovery(__name__, "RUNTIME", Runtime)  # type: ignore[type-abstract]  # a Protocol that can be checked
names = _RUNTIMES.names


def load(name: str) -> Runtime:
    """Return the runtime called `name`, installed or not. Raises InvalidInput for an unknown runtime."""
    if name not in names():
        raise InvalidInput("runtime", name, f"must be one of {', '.join(names())}")
    try:
        return _RUNTIMES.load(name)
    except TypeError as error:
        raise InvalidInput("runtime", name, "does not implement hw_profiles.runtimes.Runtime") from error


def assumed(name: str) -> str:
    """Return a sentence that says which rules stand in for those of a runtime that is not installed here; it is empty
    for a runtime that is installed. Callers of `layout_of` and `learned` tell users this sentence.
    """
    if name in names():
        return ""
    return (
        f"the runtime {name} is not installed on the server, so memory layouts and channel alignment follow common"
        " rules instead of its own; timings are measured all the same, but predictions may be less accurate"
    )


def layout_of(name: str) -> Layout:
    """Return the layout rule of the runtime `name`, or the default rule if the runtime is not installed here (see
    `assumed`).
    """
    return load(name).layout if name in names() else _default_layout


def _default_layout(spec: TensorSpec, made_by: str) -> str:
    from hw_profiles.runtimes.onnxruntime import layouts

    return layouts.layout(spec, made_by)


def learned(name: str, curves: Curves) -> KernelClasses:
    """Learn kernel classes from a device's curves by the rule of its runtime, or by the default rule if the runtime is
    not installed here (see `assumed`).
    """
    if name in names():
        return load(name).learn(curves)
    return probe.learn(curves.out_us, curves.in_us)

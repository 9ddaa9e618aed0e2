"""Conversion: turns an ONNX file into an engine's own file, and runs this file on real samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_profiles.device import DeviceConfig
from hw_profiles.runtimes import Arrays, Runtime


@dataclass(frozen=True)
class Conversion:
    """The engine's own file of a network, and its outputs on the given samples, by name."""

    file: bytes
    outputs: Arrays


def conversion(runtime: Runtime, model: bytes, samples: Arrays, device: DeviceConfig) -> Conversion:
    """Convert an ONNX file and run the result. Raises whatever the engine raises."""
    file = runtime.convert(model, device)
    return Conversion(file, each_alone(lambda sample: runtime.run(file, sample, device), samples))


def each_alone(run: Callable[[Arrays], Arrays], samples: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Run each sample alone and join the outputs along the first axis, because an engine's file may not support
    batches.
    """
    count = len(next(iter(samples.values())))
    runs = [run({name: value[i : i + 1] for name, value in samples.items()}) for i in range(count)]
    return {name: np.concatenate([np.atleast_1d(each[name]) for each in runs]) for name in runs[0]}

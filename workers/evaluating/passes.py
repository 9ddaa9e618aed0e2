"""Passes: the fastest way to run the forward passes of a job's candidates, measured once per job.

The choice is stored with the material, so that all workers, also after a restart, score all candidates alike. The ways
differ only in the rounding of their sums.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypeAlias, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from compress.graph.module import TorchNetwork
from compress.graph.onnxruntime import session
from compress.network import Network
from workers.errors import InvalidInput

T = TypeVar("T")
Runtime: TypeAlias = Literal["onnxruntime", "torch"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
IMAGES = 32
"""Number of images in a timed pass."""
ROUNDS = 3
"""Number of passes in each way; the first is not timed, and the shortest of the others counts."""
CLEARLY = 0.8
"""Share of the time of the usual way that another way may take to be chosen. It keeps two runs of one job from choosing
differently if both ways take about the same time.
"""


@dataclass(frozen=True)
class Passes:
    """The runtime that scores a network without int8, and whether torch holds images (N, C, H, W) channels last."""

    runtime: Runtime = "torch"
    channels_last: bool = False

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise InvalidInput("passes.runtime", self.runtime, f"must be one of {', '.join(RUNTIMES)}")

    def to_json(self) -> dict[str, Any]:
        """Return a dict for JSON; `from_json` turns it back into equal passes."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """Return the passes of a dict that `to_json` made."""
        return cls(**given)


def fastest(network: Network, images: NDArray[np.float32]) -> Passes:
    """Return the way that takes the least processor time for this network.

    Args:
        images: (N, *input_shape) float32, at least one; only the first IMAGES are used.
    """
    module, few = TorchNetwork(network), np.ascontiguousarray(images[:IMAGES])
    layouts = (False, True) if few.ndim == 4 and not module.opaque else (False,)
    runner = session(network.save(), threads=torch.get_num_threads())
    training_s = _shortest_s({last: _in_torch(module, few, last, training=True) for last in layouts})
    last = _chosen(training_s, usual=False)
    ways: Mapping[Runtime, Callable[[], object]] = {
        "onnxruntime": lambda: runner.run([network.output_name], {network.input_name: few}),
        "torch": _in_torch(module, few, last, training=False),
    }
    return Passes(_chosen(_shortest_s(ways), usual="onnxruntime"), last)


def _in_torch(
    module: TorchNetwork, images: NDArray[np.float32], channels_last: bool, training: bool
) -> Callable[[], object]:
    held = torch.from_numpy(images)
    held = held.contiguous(memory_format=torch.channels_last) if channels_last else held

    def run() -> object:
        module.train(training)
        with torch.inference_mode():
            return module(held)

    return run


def _shortest_s(calls: Mapping[T, Callable[[], object]]) -> dict[T, float]:
    taken: dict[T, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            begun_s = time.process_time()
            call()
            taken[name].append(time.process_time() - begun_s)
    return {name: min(each[1:]) for name, each in taken.items()}


def _chosen(taken_s: Mapping[T, float], usual: T) -> T:
    best = min(taken_s, key=lambda name: taken_s[name])
    return best if taken_s[best] < CLEARLY * taken_s[usual] else usual

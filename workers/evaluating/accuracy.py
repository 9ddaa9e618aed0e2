"""Accuracy: which images a network gets right, in torch while it trains and in onnxruntime as a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from compress.graph.module import TorchNetwork
from compress.graph.onnxruntime import session
from compress.graph.outputs import scored_of
from workers.errors import Diverged
from workers.evaluating.images import BATCH, Preprocessed
from workers.evaluating.intervals import tango, wilson

Images = NDArray[np.float32]
Labels = NDArray[np.int64]
Source: TypeAlias = Images | Preprocessed
"""Images (N, *input_shape), in memory or made as they are read."""
Right = NDArray[np.bool_]
"""(N,): whether each image was classified as its label says; what paired differences are made of."""


@dataclass(frozen=True)
class Drop:
    """Accuracy lost against the control on the same images: the mean difference and its 95 % interval."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:+z.2%} [{self.low:+z.2%}, {self.high:+z.2%}] against the control on {self.count} images"


def right_in_torch(module: TorchNetwork, images: Source, labels: Labels, batch: int = BATCH) -> Right:
    """Images (N, *input_shape), labels (N,) -> (N,). The module is left in eval mode.

    Raises:
        Diverged: a logit is not finite.
    """
    module.eval()

    def logits(part: Images) -> NDArray[np.float32]:
        with torch.inference_mode():
            made: NDArray[np.float32] = module(torch.from_numpy(part)).numpy()
        return made

    return _right(logits, images, labels, batch)


def right_in_file(model: bytes, images: Source, labels: Labels, batch: int = BATCH) -> Right:
    """The same of an ONNX file, run by onnxruntime with as many threads as torch has.

    Raises:
        Diverged: a logit is not finite.
    """
    running = session(model, threads=torch.get_num_threads())
    name = running.get_inputs()[0].name
    output = scored_of(running)

    def logits(part: Images) -> NDArray[np.float32]:
        return np.asarray(running.run([output], {name: part})[0])

    return _right(logits, images, labels, batch)


def drop(control: Right, candidate: Right) -> Drop:
    """Paired over the same images; the interval is Tango's score interval, see `workers.evaluating.intervals`."""
    control_only, candidate_only = int((control & ~candidate).sum()), int((candidate & ~control).sum())
    count = len(control)
    return Drop((control_only - candidate_only) / count, *tango(control_only, candidate_only, count), count)


def interval(right: Right) -> dict[str, float]:
    """The 95 % interval (Wilson 1927) of the accuracy that (n,) images show: low, high, n."""
    low, high = wilson(int(right.sum()), len(right))
    return {"low": low, "high": high, "n": len(right)}


def _right(logits: Callable[[Images], NDArray[np.float32]], images: Source, labels: Labels, batch: int) -> Right:
    found = []
    for start in range(0, len(images), batch):
        made = logits(np.ascontiguousarray(images[start : start + batch]))
        if not np.isfinite(made).all():
            raise Diverged("the network puts out numbers that are not finite")
        found.append(made.reshape(len(made), -1).argmax(axis=1) == labels[start : start + batch])
    return np.concatenate(found)

"""Scores: rates a network's outputs image by image, in torch during training and in onnxruntime once the network is a
file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from compress.graph.module import TorchNetwork
from compress.graph.onnxruntime import session
from compress.graph.outputs import scored_of
from compress.scoring.difference import Scores
from compress.task import Task
from workers.errors import Diverged
from workers.evaluating.images import BATCH, Preprocessed

Images = NDArray[np.float32]
Labels = NDArray[Any]
Source: TypeAlias = Images | Preprocessed
"""Images (N, *input_shape), either in memory or computed as they are read."""


def scores_in_torch(
    task: Task,
    module: TorchNetwork,
    images: Source,
    labels: Labels,
    batch: int = BATCH,
    channels_last: bool = False,
) -> Scores:
    """Return a module's (N,) scores on images (N, *input_shape) with labels (N, ...). The module is left in eval mode.

    Args:
        channels_last: True if torch should hold the images (N, C, H, W) channels last, which only affects rounding.

    Raises:
        Diverged: an output is not finite.
    """
    module.eval()

    def run(part: Images) -> NDArray[np.float32]:
        held = torch.from_numpy(part)
        held = held.contiguous(memory_format=torch.channels_last) if channels_last else held
        with torch.inference_mode():
            made: NDArray[np.float32] = module(held).numpy()
        return made

    return _scores(task, run, images, labels, batch)


def scores_in_file(task: Task, model: bytes, images: Source, labels: Labels, batch: int = BATCH) -> Scores:
    """Return an ONNX file's scores, as `scores_in_torch` does for a module. onnxruntime gets as many threads as torch
    has.

    Raises:
        Diverged: an output is not finite.
    """
    running = session(model, threads=torch.get_num_threads())
    name = running.get_inputs()[0].name
    output = scored_of(running)

    def run(part: Images) -> NDArray[np.float32]:
        return np.asarray(running.run([output], {name: part})[0])

    return _scores(task, run, images, labels, batch)


def _scores(
    task: Task, run: Callable[[Images], NDArray[np.float32]], images: Source, labels: Labels, batch: int
) -> Scores:
    found = []
    for start in range(0, len(images), batch):
        made = run(np.ascontiguousarray(images[start : start + batch]))
        if not np.isfinite(made).all():
            raise Diverged("the network's outputs are not finite")
        found.append(task.score(made, labels[start : start + batch]))
    return np.concatenate(found)

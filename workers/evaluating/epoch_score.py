"""Epoch score: rates a network between two epochs of its training, on so few images that it takes little time."""

from __future__ import annotations

import math

from compress.graph.module import TorchNetwork
from compress.network import Network
from compress.task import Task
from workers.errors import Diverged
from workers.evaluating.scores import Labels, Source, scores_in_torch

SHARE = 0.03
"""Largest share of an epoch's work that its score may take."""
PASSES = 4
"""Work of training on one image, in forward passes: the network's own, its backward pass, which is as much as two
more, and the teacher's.
"""


def images_rated(ranking: int, trained: int) -> int:
    """Return on how many of `ranking` validation images each epoch is rated, if an epoch trains on `trained` images."""
    return max(1, min(ranking, int(SHARE * PASSES * trained)))


def epoch_score(task: Task, network: Network, images: Source, labels: Labels) -> float:
    """Return the network's mean score on images (N, *input_shape) with labels (N, ...), computed in torch; NaN if an
    output is not finite.
    """
    try:
        return float(scores_in_torch(task, TorchNetwork(network), images, labels).mean())
    except Diverged:
        return math.nan

"""Attention transfer (Zagoruyko and Komodakis, arXiv 1612.03928): the student looks where the teacher looks.

An attention map is the mean over channels of the squared activations, flattened and normalised to length 1. It has no
channels, so student and teacher may have different widths. Maps are compared just before each step down in resolution
and before the activations are pooled or flattened at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from compress.network import Network, Node

_STEP = 0.5  # largest share of its input's pixels that the output of a step down has; an unpadded layer has more


def taps(network: Network) -> dict[tuple[int, int], str]:
    """Return for each resolution (height, width) of the network its last tensor that a step down reads."""
    found: dict[tuple[int, int], str] = {}
    for node in network.nodes:
        name = node.inputs[0] if node.inputs else ""
        if name in network.types and name != network.input_name and _steps_down(node, network):
            height, width = network.shape(name)[2:]
            found[height, width] = name
    return found


def attended(student: Network, teacher: Network) -> list[tuple[str, str]]:
    """Return the pairs of tensors (student's, teacher's) whose attention maps are compared: one per resolution that
    both have.
    """
    wanted = taps(teacher)
    return [(name, wanted[size]) for size, name in taps(student).items() if size in wanted]


def transfer(pairs: Iterable[tuple[str, str]], made: Mapping[str, Tensor], shown: Mapping[str, Tensor]) -> Tensor:
    """Return the mean squared difference of the attention maps, summed over the pairs."""
    total = torch.zeros(())
    for own, wanted in pairs:
        total = total + (attention(made[own]) - attention(shown[wanted])).square().mean()
    return total


def attention(activation: Tensor) -> Tensor:
    """Return the attention map (N, height * width) of an activation (N, channels, height, width)."""
    return normalize(activation.square().mean(1).flatten(1))


def _steps_down(node: Node, network: Network) -> bool:
    before = network.shape(node.inputs[0])
    if len(before) != 4 or _pixels(before) == 1 or node.outputs[0] not in network.types:
        return False
    after = network.shape(node.outputs[0])
    return len(after) <= 2 or (len(after) == 4 and _pixels(after) <= _STEP * _pixels(before))


def _pixels(shape: Sequence[int]) -> int:
    return shape[2] * shape[3]

"""Statistics: second moments of every layer's input, gathered once per network from real images.

Let x be a layer's input patch, z = (x, 1) and G = E[z z']. Any least-squares refit of the layer solves a part of G and
needs no images. Its targets need no further moments, because the original output is W x. Positions are sampled as in He
et al., AMC, arXiv 1802.03494; the intercept is added here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.graph.groups import Block
from compress.network import Network, Node
from compress.ops.row import Slot
from compress.pruning.unfold_patches import Patches
from compress.quantising.activations import activations

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
# A Gram matrix of this many features takes 46 MB; a 3x3 convolution of 256 channels still gets one.
MAX_FEATURES = 2400
ROWS_PER_FEATURE = 24
MIN_ROWS = 8192


@dataclass(frozen=True)
class Moments:
    """The moments of one layer's input.

    Attributes:
        mean: (C * taps,), the mean of a patch, channel by channel; taps is the number of positions of the kernel.
        variance: (C * taps,), the variance of a patch.
        gram: (C * taps + 1, C * taps + 1) E[z z'], the intercept last; None, and thus only means, if the matrix would
            be too large, the layer is grouped or its weight is tied.
    """

    mean: Vector
    variance: Vector
    gram: Matrix | None


@dataclass(frozen=True)
class Statistics:
    """Moments by reader. A reader is a pair of names: the layer's weight and the activation that the layer reads."""

    moments: Mapping[tuple[str, str], Moments]

    @classmethod
    def gather(
        cls,
        network: Network,
        blocks: Sequence[Block],
        images: NDArray[np.float32],
        seed: int = 0,
        batch: int = 64,
        max_features: int = MAX_FEATURES,
    ) -> Self:
        """Gather the statistics in one pass over the images in onnxruntime.

        Args:
            blocks: the blocks whose readers need moments.
            images: (N, *input_shape) float32, real data; a few hundred to 2,000.
            seed: seed of the positions sampled in each batch.
            max_features: layers with larger patches get only means; this bounds the memory.

        Raises:
            InvalidInput: there are no images.
        """
        sums = _sums(network, blocks, max_features)
        rng = np.random.default_rng(seed)
        tensors = list(dict.fromkeys(tensor for _, tensor in sums))
        for values in activations(network, tensors, images, batch):
            for (_, tensor), total in sums.items():
                total.add(torch.from_numpy(values[tensor]), len(images), rng)
        return cls({reader: total.moments() for reader, total in sums.items()})

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return flat arrays for a file; `from_arrays` reads them back."""
        arrays: dict[str, NDArray[np.float64]] = {}
        for (weight, tensor), moments in self.moments.items():
            for role in ("mean", "variance", "gram"):
                value = getattr(moments, role)
                if value is not None:
                    arrays[f"{weight}\n{tensor}\n{role}"] = value
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> Self:
        """Return the statistics that `to_arrays` stored in these arrays."""
        parts: dict[tuple[str, str], dict[str, NDArray[np.float64]]] = {}
        for key, value in arrays.items():
            weight, tensor, role = key.split("\n")
            parts.setdefault((weight, tensor), {})[role] = value
        return cls(
            {reader: Moments(roles["mean"], roles["variance"], roles.get("gram")) for reader, roles in parts.items()}
        )


def readers(network: Network, blocks: Sequence[Block]) -> dict[tuple[Slot, str], tuple[Node, ...]]:
    """Return (weight axis, activation) -> the layers that read the activation with this weight, for all blocks."""
    found: dict[tuple[Slot, str], tuple[Node, ...]] = {}
    for block in blocks:
        for slot, tensor in block.readers:
            nodes = tuple(node for node in network.consumers(slot[0]) if node.input(0) == tensor)
            if nodes:
                found[slot, tensor] = nodes
    return found


class _Sum:
    """Running sums of one reader, relative to the mean of its first batch.

    Without this shift, the float32 squares of a large number that hardly varies would lose the variation.
    """

    def __init__(self, patches: Patches, has_gram: bool) -> None:
        self.patches = patches
        self.features = patches.features
        self.has_gram = has_gram
        self.count = 0
        self.shift: Tensor | None = None
        self.total = torch.zeros(self.features, dtype=torch.float64)
        self.squares = torch.zeros(self.features, self.features if has_gram else 1, dtype=torch.float64)

    def add(self, value: Tensor, images: int, rng: np.random.Generator) -> None:
        wanted = max(MIN_ROWS, ROWS_PER_FEATURE * (self.features + 1) if self.has_gram else 0)
        rows = self.patches.sample(value, -(-wanted // images), rng)
        if self.shift is None:
            self.shift = rows.mean(0, dtype=torch.float64).to(rows.dtype)
        rows = rows - self.shift
        self.count += len(rows)
        self.total += rows.sum(0, dtype=torch.float64)
        self.squares += rows.T @ rows if self.has_gram else rows.square().sum(0)[:, None]

    def moments(self) -> Moments:
        assert self.shift is not None
        shift, rest = self.shift.double().numpy(), (self.total / self.count).numpy()
        squares, mean = (self.squares / self.count).numpy(), shift + rest
        power = squares.diagonal() if self.has_gram else squares[:, 0]
        variance = np.maximum(power - rest**2, 0.0)
        return Moments(mean, variance, _gram(squares - np.outer(rest, rest), mean) if self.has_gram else None)


def _gram(covariance: Matrix, mean: Vector) -> Matrix:
    """Return E[z z'] of z = (x, 1)."""
    z = np.append(mean, 1.0)
    gram: Matrix = np.outer(z, z)
    gram[:-1, :-1] += covariance
    return gram


def _sums(network: Network, blocks: Sequence[Block], max_features: int) -> dict[tuple[str, str], _Sum]:
    sums: dict[tuple[str, str], _Sum] = {}
    for ((weight, axis), tensor), nodes in readers(network, blocks).items():
        if axis == 0 and nodes[0].op_type == "Conv":
            continue  # depthwise: only one filter reads each channel, so no other channel can replace it
        patches = Patches.of(network, nodes[0])
        # A tied weight serves several inputs, so a refit for one input would be wrong for the others.
        own = nodes[0].get("group", 1) == 1 and len(network.consumers(weight)) == 1
        sums[weight, tensor] = _Sum(patches, own and patches.features < max_features)
    return sums

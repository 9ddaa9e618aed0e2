"""Patches: the inputs that a layer reads for one value of its output, as rows of a matrix."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compress.network import Network, Node
from compress.ops.conv import spatial_pads, torch_pads


@dataclass(frozen=True)
class Patches:
    """The way a layer's input is cut into patches. A linear layer's patch is the last axis, for Gemm the only axis."""

    channels: int
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()

    @classmethod
    def of(cls, network: Network, node: Node) -> Self:
        """Return the patches of a Conv, Gemm or MatMul with constant weight."""
        shape = network.shape(node.input(0))
        if node.op_type != "Conv":
            return cls(shape[-1])
        kernel = network.shape(node.input(1))[2:]
        strides = tuple(node.get("strides", (1,) * len(kernel)))
        dilations = tuple(node.get("dilations", (1,) * len(kernel)))
        pads = spatial_pads(node, network, kernel, strides, dilations)
        return cls(shape[1], kernel, strides, dilations, pads)

    @property
    def taps(self) -> int:
        """Number of positions of the kernel; 1 for a linear layer."""
        return prod(self.kernel)

    @property
    def features(self) -> int:
        """Length of a patch: channels x taps."""
        return self.channels * self.taps

    def sample(self, value: Tensor, positions: int, rng: np.random.Generator) -> Tensor:
        """Return patches at random output positions, at the same positions for every image of the batch.

        Args:
            value: (N, C, *spatial), or (N, ..., C) for a linear layer.
            positions: number of positions per image; all positions if there are fewer.

        Returns:
            (N * positions, features), channel by channel, in the order of a weight (O, C, *kernel).
        """
        if not self.kernel:
            rows = value.reshape(len(value), -1, self.channels)
            return rows[:, self._drawn(rows.shape[1], positions, rng)].reshape(-1, self.channels)
        windows = self._windows(F.pad(value, torch_pads(self.pads)))
        spatial = windows.shape[2 : 2 + len(self.kernel)]
        drawn = np.unravel_index(self._drawn(prod(spatial), positions, rng).numpy(), spatial)
        index: tuple[Any, ...] = (slice(None), slice(None), *(torch.from_numpy(axis) for axis in drawn))
        return windows[index].transpose(1, 2).reshape(-1, self.features)

    def _windows(self, padded: Tensor) -> Tensor:
        """Return (N, C, *output positions, *kernel), a view."""
        count = len(self.kernel)
        out = [
            (size - (k - 1) * d - 1) // s + 1
            for size, k, s, d in zip(padded.shape[2:], self.kernel, self.strides, self.dilations, strict=True)
        ]
        padded = padded.contiguous()
        own = padded.stride()
        steps = [own[2 + i] * self.strides[i] for i in range(count)]
        taps = [own[2 + i] * self.dilations[i] for i in range(count)]
        shape = (*padded.shape[:2], *out, *self.kernel)
        return padded.as_strided(shape, (*own[:2], *steps, *taps))

    @staticmethod
    def _drawn(total: int, positions: int, rng: np.random.Generator) -> Tensor:
        chosen = np.arange(total) if positions >= total else rng.choice(total, positions, replace=False)
        return torch.from_numpy(np.sort(chosen))

"""A row of the table of built-in networks: a torch factory, the input shape and the number of classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Builtin:
    """A built-in network: `build()` makes the untrained module; `input_shape` is (channels, height, width)."""

    name: str
    summary: str
    source: str
    input_shape: tuple[int, int, int]
    classes: int
    build: Callable[[], nn.Module]

    def factory(self, seed: int) -> nn.Module:
        """Return the module in eval mode with the initial weights of `seed`; torch's global generator is untouched."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build().eval()

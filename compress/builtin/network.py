"""A network of the built-in table: a torch factory, what it takes in and what it tells apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Builtin:
    """`build()` makes the untrained module; `input_shape` is (channels, height, width) of one image."""

    name: str
    summary: str
    source: str
    input_shape: tuple[int, int, int]
    classes: int
    build: Callable[[], nn.Module]

    def factory(self, seed: int) -> nn.Module:
        """The module with the initial weights of `seed`, in eval mode; torch's global generator is left alone."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build().eval()

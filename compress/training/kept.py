"""Kept outputs: outputs that are not scored, but are trained to stay close to the teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from compress.network import Network

SMALLEST = 1e-12  # stands in for the variance of an output that is the same for all images


def kept_outputs(network: Network) -> tuple[str, ...]:
    """Return the outputs that are not scored but can be trained by gradients."""
    return tuple(
        name
        for name, kind in network.outputs.items()
        if name != network.output_name and kind.dtype.startswith("float") and kind.batch_axis is not None
    )


def drift(names: Sequence[str], made: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    """Return the summed squared error of the outputs, relative to the variance of the teacher's outputs."""
    total = torch.zeros(())
    for name in names:
        total = total + (made[name] - wanted[name]).square().mean() / wanted[name].var().clamp_min(SMALLEST)
    return total

"""Re-estimate the running statistics of batch norms after channels or weights have changed."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from compress.graph.module import TorchNetwork


def reestimate(
    module: TorchNetwork, images: NDArray[np.float32], batch: int = 128, channels_last: bool = False
) -> None:
    """Run all images forward in train mode to set running means and variances to averages over all batches, in place.

    Args:
        module: the module, which keeps its mode (train or eval). If it has no batch norms, nothing is run.
        images: (N, *input_shape) float32, real data; 1,024 images are enough.
        batch: images per step; the last step takes the rest, at least 2 images.
        channels_last: True if torch should hold the images (N, C, H, W) channels last, which only affects rounding.
    """
    if not any(node.op_type == "BatchNormalization" for node in module.network.nodes):
        return
    was_training, momentum = module.training, module.momentum
    module.train()
    seen = 0
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            part = torch.from_numpy(images[start : start + batch])
            if len(part) < 2:  # a variance needs two images
                continue
            seen += len(part)
            part = part.contiguous(memory_format=torch.channels_last) if channels_last else part
            module.momentum = len(part) / seen
            module(part)
    module.momentum = momentum
    module.train(was_training)

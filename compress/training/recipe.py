"""Recipe: the settings of a training run. All finalists and the control get the same recipe."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import cos, pi
from typing import Annotated, Literal, TypeAlias

from search.space import Bounds, Doc

MOST_ATTENTION = 1e6
Augment: TypeAlias = Literal["none", "crop", "crop_flip"]


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum, a cosine schedule after a short warm-up, and distillation.

    Distillation follows Hinton et al., arXiv 1503.02531: (1 - alpha) * cross-entropy + alpha * T^2 * KL(teacher |
    student), with KL averaged over the batch. Attention transfer follows Zagoruyko and Komodakis, arXiv 1612.03928: it
    adds `attention` times the differences of the attention maps (see `compress.training.attention`).
    """

    epochs: Annotated[int, Doc("passes over the training images"), Bounds(0, 10_000)] = 5
    batch: Annotated[int, Doc("images per step"), Bounds(2, 65_536)] = 128
    lr: Annotated[float, Doc("highest learning rate"), Bounds(1e-8, 100.0)] = 0.01
    momentum: Annotated[float, Doc("Nesterov momentum"), Bounds(0.0, 0.9999)] = 0.9
    weight_decay: Annotated[float, Doc("weight decay; biases and batch norms have none"), Bounds(0.0, 1.0)] = 1e-4
    warm_up: Annotated[float, Doc("share of all steps in which the learning rate rises from 0"), Bounds(0.0, 1.0)] = (
        0.05
    )
    temperature: Annotated[float, Doc("temperature of the distillation"), Bounds(0.1, 100.0)] = 4.0
    alpha: Annotated[float, Doc("share of distillation in the loss, if there is a teacher"), Bounds(0.0, 1.0)] = 0.7
    attention: Annotated[
        float,
        Doc("weight of attention transfer, if there is a teacher; 0 is off, the paper has 1000"),
        Bounds(0.0, MOST_ATTENTION),
    ] = 0.0
    augment: Annotated[Augment, Doc("shift images by up to an eighth of their side, and mirror half of them")] = "crop"
    seed: Annotated[int, Doc("seed for batches, shifts and mirroring"), Bounds(0, 2**63 - 1)] = 0

    def to_json(self) -> str:
        """Return canonical JSON: equal recipes give the same text."""
        values = asdict(self)
        if not self.attention:
            del values["attention"]  # checkpoints from before there was attention transfer stay usable
        return json.dumps(values, sort_keys=True)

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate of one of `steps` steps: it rises linearly, then falls along half a cosine to 0."""
        rising = self.warm_up * steps
        if step < rising:
            return self.lr * (step + 1) / (rising + 1)
        share = (step - rising) / max(steps - rising, 1.0)
        return self.lr * 0.5 * (1.0 + cos(pi * share))

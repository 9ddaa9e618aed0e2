"""Direct training: compress once, then train with the removed weights held at zero. It is the baseline for `lc`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing
from compress.network import Array, Network
from compress.pruning.effective_weights import effective_weights
from compress.scheme import BoundScheme
from compress.task import Task
from compress.training.fit import Step, Training, fit
from compress.training.recipe import Recipe


def direct(
    network: Network,
    part: Part,
    preprocessing: Preprocessing,
    recipe: Recipe,
    bound: BoundScheme,
    teacher: Network | None = None,
    checkpoint: bytes | None = None,
    task: Task | None = None,
) -> Iterator[Step]:
    """Project once, then train; `Step.network` keeps the projection's zeros.

    Arguments, steps, checkpoints and errors are the same as for `compress.training.fit.fit`. The scheme `bound`
    determines the projection.
    """
    training = Compression(network, part, preprocessing, recipe, teacher, bound, task)
    training.hold(bound.project(network, effective_weights(network)))
    yield from training.run(checkpoint)


def fine_tune(
    network: Network,
    part: Part,
    preprocessing: Preprocessing,
    recipe: Recipe,
    bound: BoundScheme,
    teacher: Network | None = None,
    checkpoint: bytes | None = None,
    task: Task | None = None,
) -> Iterator[Step]:
    """Train like `fit`, but from the first step on, hold at zero the single weights that the scheme removes.

    If they were removed only after training, nothing would compensate for the loss. Quantisation comes after training.
    """
    sparse = BoundScheme(bound.steps("sparsity"))
    if not sparse.projected(network):
        return fit(network, part, preprocessing, recipe, teacher, checkpoint, task)
    return direct(network, part, preprocessing, recipe, sparse, teacher, checkpoint, task)


class Compression(Training):
    """A training run of `fit` in which weights can be held at zero."""

    def __init__(
        self,
        network: Network,
        part: Part,
        preprocessing: Preprocessing,
        recipe: Recipe,
        teacher: Network | None,
        bound: BoundScheme,
        task: Task | None = None,
    ) -> None:
        super().__init__(network, part, preprocessing, recipe, teacher, task)
        self.bound = bound
        self.names = bound.projected(network)
        self._masks: list[tuple[Tensor, Tensor]] = []

    def hold(self, weights: Mapping[str, Array]) -> None:
        """From now on, hold every weight of the network at zero that is zero in these arrays."""
        held = self.module.weights()
        self._masks = [(held[name], torch.from_numpy(weights[name] != 0)) for name in self.names]
        self._zero()

    def stepped(self) -> None:
        """Set held weights back to zero after a step."""
        self._zero()

    def _zero(self) -> None:
        for weight, mask in self._masks:
            weight.data *= mask

    def identity(self) -> tuple[str, ...]:
        """Return the texts of the base class, plus the constraints."""
        return (*super().identity(), type(self).__name__, repr(self.bound))

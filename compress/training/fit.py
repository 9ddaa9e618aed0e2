"""Fit: training as a resumable generator of steps. The caller handles progress, checkpoints and stopping.

for step in fit(network, part, preprocessing, Recipe(epochs=5), teacher=original):
    if step.last_of_epoch:
        save(step.checkpoint())
trained = step.network()
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from compress.data.augment import augmented
from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing, preprocess
from compress.errors import InvalidInput, TrainingDiverged
from compress.graph.fold import fold_norms
from compress.graph.module import TorchNetwork
from compress.importing.input_layout import input_layout
from compress.network import Array, Network
from compress.pruning.reach import trains
from compress.task import Task, Taught
from compress.tasks import DEFAULT, load
from compress.training.attention import attended, transfer
from compress.training.checkpoint import Checkpoint
from compress.training.kept import drift, kept_outputs
from compress.training.recipe import Recipe


@dataclass(frozen=True)
class Step:
    """One step, just completed.

    Attributes:
        epoch: index of the epoch, from 0, out of `epochs`; step: index of the step over all epochs, from 0, out of
            `steps`.
        loss: the task's loss on this batch, without the share of outputs that are not scored; lr: learning rate of
            this step.
        blank: returns the loss that a network whose outputs are all zero has on the same batch.
        last_of_epoch: True if this is the last step of an epoch.
        network: returns the current network; call it before you ask for the next step.
        checkpoint: returns bytes from which `fit` can resume, see `compress.training.checkpoint`; this too must be
            called before you ask for the next step. Arrays given to it are kept as `Checkpoint.beside`.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    lr: float
    last_of_epoch: bool
    network: Callable[[], Network]
    checkpoint: Callable[..., bytes]
    blank: Callable[[], float] = lambda: math.inf


def fit(
    network: Network,
    part: Part,
    preprocessing: Preprocessing,
    recipe: Recipe,
    teacher: Network | None = None,
    checkpoint: bytes | None = None,
    task: Task | None = None,
) -> Iterator[Step]:
    """Train a network; every random draw depends only on the recipe's seed, the epoch and the step.

    Args:
        network: the network to train, with batch norms (see `compress.training.renormalise`).
        part: the training images, as stored; they are augmented, then preprocessed.
        teacher: network whose outputs are imitated, all of them; it has the same input and classes.
        checkpoint: bytes from an earlier call with the same arguments, which was interrupted. The final weights are the
            same as after an uninterrupted run.
        task: the task whose loss is minimised; None takes the default task.

    Yields:
        One Step after each training step. There are no steps if the recipe has no epochs, the checkpoint is from the
        last step, or no weight can be trained (see `compress.pruning.reach.untrained`).

    Raises:
        TrainingDiverged: the loss is not finite.
        InvalidInput: the checkpoint is from another network or recipe, or there are fewer than two images.
    """
    yield from Training(network, part, preprocessing, recipe, teacher, task).run(checkpoint)


class Training:
    """One training run and its state.

    Subclasses override `rate`, `penalty`, `stepped` and `result`. Their `state` returns everything that they keep
    besides weights.
    """

    def __init__(
        self,
        network: Network,
        part: Part,
        preprocessing: Preprocessing,
        recipe: Recipe,
        teacher: Network | None,
        task: Task | None = None,
    ) -> None:
        if len(part) < 2:
            raise InvalidInput("train", len(part), "training needs at least two images")
        self.network = network
        self.part = part
        self.preprocessing = preprocessing
        self.layout = input_layout(network)
        self.kept = () if teacher is None else kept_outputs(network)
        self.recipe = recipe
        self.task = task or load(DEFAULT)
        self.teacher = None if teacher is None else TorchNetwork(fold_norms(teacher)).eval().requires_grad_(False)
        self.attended = attended(network, self.teacher.network) if self.teacher and recipe.attention else []
        self.module = TorchNetwork(network).train()
        self.batch = min(recipe.batch, len(part))
        self.steps_per_epoch = len(part) // self.batch  # the images left over are used in other epochs
        self.steps = recipe.epochs * self.steps_per_epoch if trains(network) else 0
        self.optimiser = _optimiser(self.module, recipe)
        self.done = 0
        self._order: tuple[int, np.ndarray] | None = None

    def run(self, checkpoint: bytes | None = None) -> Iterator[Step]:
        """Do the remaining steps (see `fit`)."""
        if checkpoint is not None:
            self.restore(checkpoint)
        while self.done < self.steps:
            yield self.advance()

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        return self.recipe.lr_at(step, self.steps)

    def penalty(self) -> Tensor | None:
        """Return a term to add to the loss, or None."""
        return None

    def stepped(self) -> None:
        """Do what must follow a step. `done` already includes this step."""

    def result(self) -> Network:
        """Return the current network."""
        return self.module.to_network()

    def state(self) -> Mapping[str, Array]:
        """Return everything that the next step depends on, except weights, momentum and the step number."""
        return {}

    def resume(self, state: Mapping[str, Array]) -> None:
        """Restore the arrays of `state`; weights and momentum are already restored."""

    def identity(self) -> tuple[str, ...]:
        """Return texts that change whenever something that the steps depend on changes."""
        teacher = "" if self.teacher is None else self.teacher.network.digest
        # The task is not part of the identity, because a checkpoint is resumed within one job, which has one task.
        return (self.network.digest, self.recipe.to_json(), teacher, str(self.part.images.shape))

    def advance(self) -> Step:
        """Do the next step."""
        step, epoch = self.done, self.done // self.steps_per_epoch
        lr = self.rate(step)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        images, targets = self._draw(epoch, step % self.steps_per_epoch)
        own, others, blank = self._loss(images, targets)
        loss = own + others
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingDiverged(epoch, step, value)
        penalty = self.penalty()
        self.optimiser.zero_grad()
        (loss if penalty is None else loss + penalty).backward()  # type: ignore[no-untyped-call]  # torch's
        self.optimiser.step()
        self.done += 1
        self.stepped()
        last = self.done % self.steps_per_epoch == 0
        told = (epoch, self.recipe.epochs, step, self.steps, float(own.detach()), lr, last)
        return Step(*told, self.result, self.save, blank)

    def _draw(self, epoch: int, position: int) -> tuple[Tensor, Tensor]:
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.recipe.seed, epoch]).permutation(len(self.part))
        # The indices are sorted: the order within a batch does not matter, and reading a memory map in order is faster.
        chosen = np.sort(self._order[1][position * self.batch : (position + 1) * self.batch])
        rng = np.random.default_rng([self.recipe.seed, epoch, position])
        images = augmented(self.part.images[chosen], self.recipe.augment, rng)
        pixels = torch.from_numpy(preprocess(images, self.preprocessing, self.layout))
        return pixels, torch.from_numpy(self.part.labels[chosen])

    def _loss(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | float, Callable[[], float]]:
        """Return the task's loss, what kept outputs and attention transfer add to it, and a function for the loss if
        all outputs are zero.
        """
        made, learned = self._run(self.module, images, [own for own, _ in self.attended])
        taught: Taught | None = None
        others: Tensor | float = 0.0
        if self.teacher is not None and (self.recipe.alpha or self.kept or self.attended):
            with torch.no_grad():
                shown, wanted = self._run(self.teacher, images, [theirs for _, theirs in self.attended])
            taught = Taught(wanted, self.recipe.alpha, self.recipe.temperature)
            others = drift(self.kept, made, shown) + self.recipe.attention * transfer(self.attended, made, shown)
        silent = torch.zeros_like(learned)
        return self.task.loss(learned, targets, taught), others, lambda: float(self.task.loss(silent, targets, taught))

    def _run(self, module: TorchNetwork, images: Tensor, taps: Sequence[str] = ()) -> tuple[dict[str, Tensor], Tensor]:
        """Return the kept outputs and the taps by name, and the tensor that the task's loss takes as its input."""
        name = self.task.learned(module.network)
        made = module.run(images, (name, *self.kept, *taps))
        return made, made[name]

    def save(self, beside: Mapping[str, Array] | None = None) -> bytes:
        """Return the state of the training run, and the arrays `beside` it, as the bytes of a Checkpoint."""
        momentum = {
            name: self.optimiser.state[weight]["momentum_buffer"].numpy()
            for name, weight in self.module.weights().items()
            if "momentum_buffer" in self.optimiser.state[weight]
        }
        weights = self.module.write_back()
        return Checkpoint(self.done, self._fingerprint(), weights, momentum, self.state(), beside or {}).to_bytes()

    def restore(self, data: bytes) -> None:
        """Resume from the bytes of `save`.

        Raises:
            InvalidInput: the bytes belong to another training run.
        """
        checkpoint = Checkpoint.from_bytes(data)
        if checkpoint.fingerprint != self._fingerprint():
            raise InvalidInput("checkpoint", None, "the checkpoint belongs to another network, recipe or data")
        self.done = checkpoint.step
        for name, value in checkpoint.weights.items():
            self.module.held(name).data.copy_(torch.from_numpy(value))
        for name, weight in self.module.weights().items():
            if name in checkpoint.momentum:
                self.optimiser.state[weight]["momentum_buffer"] = torch.from_numpy(checkpoint.momentum[name])
        self.resume(checkpoint.state)

    def _fingerprint(self) -> str:
        return hashlib.sha256("\n".join(self.identity()).encode()).hexdigest()


def _optimiser(module: TorchNetwork, recipe: Recipe) -> torch.optim.Optimizer:
    weights = list(module.weights().values()) or [nn.Parameter(torch.zeros(1))]  # torch requires one
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        fused=True,
    )

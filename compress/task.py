"""The contract of tasks: a task is the purpose of a network, and defines its targets, its score and its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compress.data.formats.source import Labels
from compress.scoring.difference import Difference, Scores, mean_interval, paired

if TYPE_CHECKING:  # data sets are checked in a process without enough memory to load torch
    from torch import Tensor

    from compress.network import Network
    from compress.training.recipe import Augment

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Output name -> its shape without the batch, in the order of the file."""
Reduction: TypeAlias = Literal["mean", "sum"]


@dataclass(frozen=True)
class TargetKind:
    """The form of one target of a data set: a class number below `classes` or, if that is 0, an array of `shape`."""

    classes: int
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.classes} classes" if self.classes else f"targets of shape {list(self.shape)}"


@dataclass(frozen=True)
class Taught:
    """The outputs of a teacher for a batch, and their weight in the loss (`compress.training.recipe`)."""

    outputs: Tensor
    alpha: float
    temperature: float


class Task(ABC):
    """The purpose of a network. Each file of compress/tasks offers one as `TASK`; `TaskContract` in compress.testing
    tests it against this contract.

        targets = task.targets(Labels(y, "y_train"), len(x), "train")
        output = task.check(shapes, None, TargetKind(10))      "logits"
        task.score(outputs, targets)                           array([1., 0., 1.])
        task.compare(scores, others)                           Difference(mean=0.01, low=-0.002, high=0.022, count=500)

    Attributes:
        name: the task's name in jobs.
        summary: one line for the user.
        metric: the name of the mean score in the table of metrics, which defines its display and its limits. The best
            score is 1; more is better.
        augments: the augmentations of images that leave targets true; `none` is always one of them.
    """

    name: str
    summary: str
    metric: str
    augments: frozenset[Augment] = frozenset({"none"})

    @abstractmethod
    def targets(self, labels: Labels, images: int, part: str) -> NDArray[Any]:
        """Return the labels of one part of a file as targets: int64 or float32, with the images along the first axis.

        Args:
            images: number of images in the part.
            part: the name of the part, for errors.

        Raises:
            InvalidInput: the labels cannot be targets of this task; the field is `labels.where`.
        """

    def kind(
        self,
        targets: Mapping[str, NDArray[Any]],
        labels: Mapping[str, Labels],
        classes: int | None,
        class_names: Sequence[str],
    ) -> tuple[TargetKind, tuple[str, ...]]:
        """Return the form of the targets of all parts, and warnings for the user.

        Args:
            targets, labels: the targets and labels of each part; `train` is one of the parts.
            classes: the number of classes that the user gave, if any.
            class_names: class names in the file, if any.

        Raises:
            InvalidInput: no network can learn from these targets.
        """
        return TargetKind(0, targets["train"].shape[1:]), ()

    @abstractmethod
    def check(self, outputs: Shapes, scored: str | None, targets: TargetKind, model: str | None = None) -> str:
        """Return the name of the output that is scored against these targets.

        Args:
            scored: the output that the user or the file names, if any.
            model: the network's name, for errors.

        Raises:
            InvalidInput: no output fits the targets, or more than one; the field is `output`, `model` or `dataset`.
        """

    @abstractmethod
    def score(self, outputs: NDArray[np.float32], targets: NDArray[Any]) -> Scores:
        """Return the score (n,) of outputs (n, ...) against targets (n, ...), in 0..1; 1 is the best possible."""

    def interval(self, scores: Scores) -> tuple[float, float]:
        """Return the 95 % interval of the mean score, within 0..1."""
        low, high = mean_interval(scores)
        return max(low, 0.0), min(high, 1.0)

    def guesses(self, scores: Scores, chance: float) -> bool:
        """Return True if the mean of these scores may be that of guessing, `chance`, or is below it."""
        return self.interval(scores)[0] <= chance

    def compare(self, first: Scores, second: Scores) -> Difference:
        """Return the score that the second network loses against the first on the same samples."""
        return paired(first, second)

    def learned(self, network: Network) -> str:
        """Return the name of the tensor that the loss takes: the scored output or a tensor before it."""
        return network.output_name

    @abstractmethod
    def loss(
        self, outputs: Tensor, targets: Tensor, taught: Taught | None = None, reduction: Reduction = "mean"
    ) -> Tensor:
        """Return the loss of the learned tensor (n, ...) as a scalar, the mean or the sum over the samples.

        Args:
            taught: a teacher's outputs for the same samples; `taught.weight` decides the share of each part of the
                loss.
        """

    def predicted(self, outputs: Tensor) -> Tensor:
        """Return the targets that a network predicts with its learned tensor."""
        return outputs.detach()

    @abstractmethod
    def chance(self, targets: TargetKind, seen: NDArray[Any]) -> float:
        """Return the mean score of guessing without the images.

        Args:
            seen: (n, ...) the targets that guesses are scored on.
        """

    def told(self, score: float, count: int, chance: float) -> str:
        """Return the rest of a sentence that begins with the network's name and states its mean score and chance."""
        return f"scores {score:.3g} on {count} validation samples; guessing scores {chance:.3g}"


@dataclass(frozen=True, eq=False)
class Targets:
    """The targets of some samples (n, ...), and the task that defines what they mean."""

    task: Task
    values: NDArray[Any]

    def __getitem__(self, rows: slice) -> Targets:
        """Return the targets of some of the samples."""
        return Targets(self.task, self.values[rows])

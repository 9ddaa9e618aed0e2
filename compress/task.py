"""The contract of tasks: a task says what a network is for, and so what its targets, its score and its loss are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compress.data.formats.source import Labels
from compress.scoring.difference import Difference, Scores, mean_interval, paired

if TYPE_CHECKING:  # the process that checks data sets has no memory for torch
    from torch import Tensor

    from compress.network import Network

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Output name -> its shape without the batch, in the order of the file."""
Reduction: TypeAlias = Literal["mean", "sum"]


@dataclass(frozen=True)
class TargetKind:
    """The form of a data set's targets: class numbers below `classes`, or, if that is 0, arrays of `shape`."""

    classes: int
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.classes} classes" if self.classes else f"targets of shape {list(self.shape)}"


@dataclass(frozen=True)
class Taught:
    """A teacher's outputs for a batch, and their weight in the loss (see `compress.training.recipe`)."""

    outputs: Tensor
    alpha: float
    temperature: float


class Task(ABC):
    """Base of all tasks. Each file of compress/tasks offers one as `TASK`; compress.testing.TaskContract checks it.

        targets = task.targets(Labels(y, "y_train"), len(x), "train")
        output = task.check(shapes, None, TargetKind(10))      "logits"
        task.score(outputs, targets)                           array([1., 0., 1.])
        task.compare(scores, others)                           Difference(mean=0.01, low=-0.002, high=0.022, count=500)

    Attributes:
        name: the name that jobs use.
        summary: one line for people.
        metric: the name of the mean score: that of a scored row in the table of metrics, which says how it is shown and
            from which its limits follow. The best score is 1, so more of it is better.
    """

    name: str
    summary: str
    metric: str

    @abstractmethod
    def targets(self, labels: Labels, images: int, part: str) -> NDArray[Any]:
        """Return the labels of one part of a file as targets: int64 or float32, one for each image.

        Args:
            images: number of images in the part.
            part: name of the part, for errors.

        Raises:
            InvalidInput: they cannot be targets of this task; the field is `labels.where`.
        """

    def kind(
        self,
        targets: Mapping[str, NDArray[Any]],
        labels: Mapping[str, Labels],
        classes: int | None,
        class_names: Sequence[str],
    ) -> tuple[TargetKind, tuple[str, ...]]:
        """Return the form of the targets, and warnings for the user.

        Args:
            targets, labels: by part, `train` among them.
            classes: number of classes that the user gave, if any.
            class_names: names of classes in the file, if any.

        Raises:
            InvalidInput: no network can learn from them.
        """
        return TargetKind(0, targets["train"].shape[1:]), ()

    @abstractmethod
    def check(self, outputs: Shapes, scored: str | None, targets: TargetKind, model: str | None = None) -> str:
        """Return the name of the output that is scored against these targets.

        Args:
            scored: the output that the user or the file names, if any.
            model: name of the network, for errors.

        Raises:
            InvalidInput: no output fits the targets, or more than one; the field is `output`, `model` or `dataset`.
        """

    @abstractmethod
    def score(self, outputs: NDArray[np.float32], targets: NDArray[Any]) -> Scores:
        """Return the score of each sample, (n,) in 0..1, for outputs (n, ...) and targets (n, ...); 1 is best."""

    def interval(self, scores: Scores) -> tuple[float, float]:
        """Return the 95 % interval of the mean score, within 0..1."""
        low, high = mean_interval(scores)
        return max(low, 0.0), min(high, 1.0)

    def compare(self, first: Scores, second: Scores) -> Difference:
        """Return what the second network loses against the first on the same samples."""
        return paired(first, second)

    def learned(self, network: Network) -> str:
        """Return the name of the tensor that the loss takes: the scored output, or one it is computed from."""
        return network.output_name

    @abstractmethod
    def loss(
        self, outputs: Tensor, targets: Tensor, taught: Taught | None = None, reduction: Reduction = "mean"
    ) -> Tensor:
        """Return the loss of the learned tensor (n, ...): a scalar, the mean or the sum over the samples.

        Args:
            taught: a teacher's outputs for the same samples; the loss then has a part for each.
        """

    def predicted(self, outputs: Tensor) -> Tensor:
        """Return the targets that the network itself predicts, from its learned tensor."""
        return outputs.detach()

    @abstractmethod
    def chance(self, targets: TargetKind, seen: NDArray[Any]) -> float:
        """Return the mean score of guessing without looking at the images.

        Args:
            seen: (n, ...) the targets that guesses are scored on.
        """

    def told(self, score: float, count: int, chance: float) -> str:
        """Return what a network with this mean score does, beside what guessing reaches: the end of a sentence that
        begins with the network.
        """
        return f"scores {score:.3g} on {count} validation samples, guessing scores {chance:.3g}"


@dataclass(frozen=True, eq=False)
class Targets:
    """Targets of some samples, (n, ...), with the task that scores outputs against them."""

    task: Task
    values: NDArray[Any]

    def __getitem__(self, rows: slice) -> Targets:
        """Return the targets of some of the samples."""
        return Targets(self.task, self.values[rows])

"""The contract every task keeps: what a network is for, and with that what its targets, its score and its loss are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compress.data.formats.source import Labels
from compress.scoring.difference import Difference, Scores, mean_interval, paired

if TYPE_CHECKING:  # data sets are checked where torch has no room
    from torch import Tensor

    from compress.network import Network

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Output -> its shape without the batch, in the order of the file."""
Reduction: TypeAlias = Literal["mean", "sum"]


@dataclass(frozen=True)
class TargetKind:
    """What one target of a data set is: a class number below `classes`, or, if that is 0, an array of `shape`."""

    classes: int
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.classes} classes" if self.classes else f"targets of shape {list(self.shape)}"


@dataclass(frozen=True)
class Taught:
    """What a teacher puts out for a batch, and how much it counts in the loss (`compress.training.recipe`)."""

    outputs: Tensor
    alpha: float
    temperature: float


class Task(ABC):
    """What a network is for. Each file of compress/tasks offers one as `TASK`; `TaskContract` in compress.testing holds
    it against this.

        targets = task.targets(Labels(y, "y_train"), len(x), "train")
        output = task.check(shapes, None, TargetKind(10))      "logits"
        task.score(outputs, targets)                           array([1., 0., 1.])
        task.compare(scores, others)                           Difference(mean=0.01, low=-0.002, high=0.022, count=500)

    Attributes:
        name: as jobs name it.
        summary: one line for people.
        metric: the name of the mean score: a row of the table of metrics, which says how it is shown and from which its
            limits follow; the best score is 1, so that more of it is better.
    """

    name: str
    summary: str
    metric: str

    @abstractmethod
    def targets(self, labels: Labels, images: int, part: str) -> NDArray[Any]:
        """The labels of one part, as a file has them, as targets: int64 or float32, the first axis that of the images.

        Args:
            images: how many images the part has.
            part: its name, for errors.

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
        """What the targets of all parts are, and warnings for the user.

        Args:
            targets, labels: by part, `train` among them.
            classes: how many the user says there are, if any.
            class_names: names in the file, if any.

        Raises:
            InvalidInput: no network can learn from them.
        """
        return TargetKind(0, targets["train"].shape[1:]), ()

    @abstractmethod
    def check(self, outputs: Shapes, scored: str | None, targets: TargetKind, model: str | None = None) -> str:
        """The output that is scored against these targets.

        Args:
            scored: the one that the user, or the file, names.
            model: the network's name, for errors.

        Raises:
            InvalidInput: no output fits the targets, or more than one; the field is `output`, `model` or `dataset`.
        """

    @abstractmethod
    def score(self, outputs: NDArray[np.float32], targets: NDArray[Any]) -> Scores:
        """Scored outputs (n, ...) and targets (n, ...) -> (n,) in 0..1, 1 for the best there is."""

    def interval(self, scores: Scores) -> tuple[float, float]:
        """The 95 % interval of the mean score, within 0..1."""
        low, high = mean_interval(scores)
        return max(low, 0.0), min(high, 1.0)

    def compare(self, first: Scores, second: Scores) -> Difference:
        """What the second network loses against the first on the same samples."""
        return paired(first, second)

    def learned(self, network: Network) -> str:
        """The tensor that the loss is of: the scored output, or what it is computed from."""
        return network.output_name

    @abstractmethod
    def loss(
        self, outputs: Tensor, targets: Tensor, taught: Taught | None = None, reduction: Reduction = "mean"
    ) -> Tensor:
        """The loss of the learned tensor (n, ...): a scalar, its mean or its sum over the samples.

        Args:
            taught: what a teacher puts out for the same samples; the loss is then one part of the whole.
        """

    def predicted(self, outputs: Tensor) -> Tensor:
        """The targets that a network predicts by its learned tensor."""
        return outputs.detach()

    @abstractmethod
    def chance(self, targets: TargetKind, seen: NDArray[Any]) -> float:
        """The mean score of guessing without a look at the images.

        Args:
            seen: (n, ...) targets that the guesses are scored on.
        """

    def told(self, score: float, count: int, chance: float) -> str:
        """What a network does that has this mean score on so many validation samples, beside what guessing reaches: the
        end of a sentence that begins with the network.
        """
        return f"scores {score:.3g} on {count} validation samples, guessing scores {chance:.3g}"


@dataclass(frozen=True, eq=False)
class Targets:
    """What a network is to put out for some samples (n, ...), and the task that knows what that means."""

    task: Task
    values: NDArray[Any]

    def __getitem__(self, rows: slice) -> Targets:
        """Those of some of the samples."""
        return Targets(self.task, self.values[rows])

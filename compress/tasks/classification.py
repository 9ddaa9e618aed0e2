"""Classification: each image has one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compress.data.checks import check_classes, check_labels
from compress.data.formats.source import Labels
from compress.errors import InvalidInput
from compress.graph.outputs import check_output, scored_for
from compress.scoring.difference import Difference, Scores
from compress.scoring.intervals import tango, wilson
from compress.task import Reduction, Shapes, TargetKind, Task, Taught

if TYPE_CHECKING:
    from torch import Tensor

    from compress.network import Network


class Classification(Task):
    """Classification: the output has one number per class; a sample scores 1 if its labelled class has the largest
    number, else 0.

    Distillation follows Hinton et al., arXiv 1503.02531: (1 - alpha) * cross-entropy + alpha * T^2 * KL(teacher |
    student), with KL averaged over the batch.
    """

    name = "classification"
    summary = "Tell the class of an image."
    metric = "accuracy"
    augments = frozenset({"none", "crop", "crop_flip"})

    def targets(self, labels: Labels, images: int, part: str) -> NDArray[np.int64]:
        """Return class numbers (N,)."""
        return check_labels(labels, images, part)

    def kind(
        self,
        targets: Mapping[str, NDArray[Any]],
        labels: Mapping[str, Labels],
        classes: int | None,
        class_names: Sequence[str],
    ) -> tuple[TargetKind, tuple[str, ...]]:
        """Return the kind. Its `classes` is the number that the user gave, else the number of names, else the largest
        label + 1.
        """
        seen = np.unique(targets["train"])
        if len(seen) == 1:
            raise InvalidInput(labels["train"].where, int(seen[0]), "all training images are of one class")
        count = classes or len(class_names) or int(seen[-1]) + 1
        for part, values in targets.items():
            check_classes(values, count, part, labels[part].where)
        missing = np.setdiff1d(np.arange(count), seen)
        rare = f"classes without a training image: {len(missing)}, e.g. class {missing[0]}" if len(missing) else ""
        return TargetKind(count), (rare,) if rare else ()

    def check(self, outputs: Shapes, scored: str | None, targets: TargetKind, model: str | None = None) -> str:
        """Return the output with one score per class and at least as many classes as the data."""
        if not targets.classes:
            raise InvalidInput("dataset", list(targets.shape), "labels of train must be one class number per image")
        if scored is not None:
            check_output(outputs, scored)
        name = scored or scored_for(outputs, targets.classes, model)
        most = outputs[name][0]
        if targets.classes > most:
            said = f"labels go up to {targets.classes - 1} and the model scores {most} classes (0..{most - 1})"
            said += "; if your labels begin at 1, subtract 1" if targets.classes == most + 1 else ""
            raise InvalidInput("dataset", targets.classes, said)
        return name

    def score(self, outputs: NDArray[np.float32], targets: NDArray[Any]) -> Scores:
        """Return 1 for samples that are classified as labelled, else 0."""
        return np.asarray(outputs.reshape(len(outputs), -1).argmax(axis=1) == targets, np.float64)

    def interval(self, scores: Scores) -> tuple[float, float]:
        """Return Wilson's score interval (1927), which is valid even near 0 and 1."""
        return wilson(int(scores.sum()), len(scores))

    def guesses(self, scores: Scores, chance: float) -> bool:
        """Return True if the accuracy is within two standard errors of chance, those of a share of samples."""
        return bool(scores.mean() <= chance + 2.0 * (chance * (1.0 - chance) / len(scores)) ** 0.5)

    def compare(self, first: Scores, second: Scores) -> Difference:
        """Return the difference with Tango's score interval for paired shares (see `compress.scoring.intervals`)."""
        first_only, second_only, count = int((first > second).sum()), int((second > first).sum()), len(first)
        return Difference((first_only - second_only) / count, *tango(first_only, second_only, count), count)

    def learned(self, network: Network) -> str:
        """Return the name of the logits, because the loss applies the softmax itself."""
        from compress.training.logits import logits_name

        return logits_name(network)

    def loss(
        self, outputs: Tensor, targets: Tensor, taught: Taught | None = None, reduction: Reduction = "mean"
    ) -> Tensor:
        """Return the cross-entropy of logits (n, classes), combined with their divergence from the teacher's logits."""
        import torch.nn.functional as F

        made = outputs.flatten(1)
        loss = F.cross_entropy(made, targets, reduction=reduction)
        if taught is None:
            return loss
        divergence = F.kl_div(
            F.log_softmax(made / taught.temperature, 1),
            F.log_softmax(taught.outputs.flatten(1) / taught.temperature, 1),
            reduction="batchmean" if reduction == "mean" else "sum",
            log_target=True,
        )
        return (1 - taught.alpha) * loss + taught.alpha * taught.temperature**2 * divergence

    def predicted(self, outputs: Tensor) -> Tensor:
        """Return the classes of the largest logits."""
        return outputs.flatten(1).argmax(1)

    def chance(self, targets: TargetKind, seen: NDArray[Any]) -> float:
        """Return the accuracy of guessing a class at random."""
        return 1.0 / targets.classes

    def told(self, score: float, count: int, chance: float) -> str:
        """Return the rest of the sentence, with the score and chance as shares of samples."""
        return f"classifies {score:.1%} of {count} validation samples as labelled; chance is {chance:.1%}"


TASK = Classification()

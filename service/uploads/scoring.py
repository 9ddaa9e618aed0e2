"""Scores of originals: computed in the sandbox, kept in the store, compared with chance."""

from __future__ import annotations

from dataclasses import dataclass

from compress.data.dataset import cache_beside
from service.files.blobs import Blobs
from service.store.engine import Store
from service.store.uploads import scores
from service.store.uploads.datasets import Dataset
from service.store.uploads.models import Model
from service.uploads.checking import in_turn
from service.uploads.sandbox import QUICK, run


@dataclass(frozen=True)
class Scored:
    """The number of samples classified as labelled: `right` of `count`, with labels of `classes` classes."""

    right: int
    count: int
    classes: int

    @property
    def accuracy(self) -> float:
        """Share of samples classified as labelled."""
        return self.right / self.count

    @property
    def chance(self) -> float:
        """Accuracy of guessing among all classes."""
        return 1 / self.classes

    @property
    def at_chance(self) -> bool:
        """True if the accuracy is below chance or within two standard errors of it."""
        error: float = (self.chance * (1 - self.chance) / self.count) ** 0.5
        return self.accuracy <= self.chance + 2 * error


def score(store: Store, blobs: Blobs, model: Model, dataset: Dataset, seed: int) -> Scored:
    """Return the score of a model on its data set, from the store if it is known.

    Raises:
        InvalidInput: the data do not fit the network, or it cannot be run within the limits.
    """
    with store.read() as tx:
        known = scores.find(tx, model.id, dataset.id, seed)
    if known is not None:
        return Scored(known.right, known.count, known.classes)
    path = blobs.path(dataset.sha256)
    request = {
        "model": str(blobs.path(model.sha256).absolute()),
        "preprocessing": model.preprocessing,
        "output": model.output,
        "dataset": str(path.absolute()),
        "digest": dataset.sha256,
        "layout": dataset.layout,
        "classes": dataset.class_count,
        "cache": str(cache_beside(path.absolute())),
        "seed": seed,
    }
    found = in_turn(lambda: run("score", request, QUICK, field="model"))
    with store.begin() as tx:
        scores.keep(tx, scores.Score(model_id=model.id, dataset_id=dataset.id, seed=seed, **found))
    return Scored(**found)

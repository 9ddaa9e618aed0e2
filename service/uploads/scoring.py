"""Scores of originals: found in the sandbox, kept in the store, judged against chance."""

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
    """`right` of `count` samples with labels of `classes` classes."""

    right: int
    count: int
    classes: int

    @property
    def accuracy(self) -> float:
        """Share of samples classified as labelled."""
        return self.right / self.count

    @property
    def chance(self) -> float:
        """What guessing among all classes would reach."""
        return 1 / self.classes

    @property
    def at_chance(self) -> bool:
        """Within two standard errors of chance, or below it."""
        error: float = (self.chance * (1 - self.chance) / self.count) ** 0.5
        return self.accuracy <= self.chance + 2 * error


def score(store: Store, blobs: Blobs, model: Model, dataset: Dataset, seed: int) -> Scored:
    """How well a model does on its data set; looked up, else found out.

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

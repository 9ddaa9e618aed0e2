"""Scores of originals: computed in the sandbox, kept in the store, compared with chance."""

from __future__ import annotations

from dataclasses import dataclass

from compress.data.dataset import cache_beside
from search.ranking.nearness import guesses
from service.files.blobs import Blobs
from service.store.engine import Store
from service.store.uploads import scores
from service.store.uploads.datasets import Dataset
from service.store.uploads.models import Model
from service.uploads.checking import in_turn
from service.uploads.sandbox import QUICK, run


@dataclass(frozen=True)
class Scored:
    """A network's mean score on `count` samples. `chance` is the mean score of guessing."""

    mean: float
    count: int
    chance: float

    @classmethod
    def of(cls, row: scores.Score) -> Scored:
        """Return the score of a stored row."""
        return cls(row.right / row.count, row.count, 1 / row.classes if row.chance is None else row.chance)

    @property
    def at_chance(self) -> bool:
        """True if the mean score is below chance or within two standard errors of it."""
        return guesses(self.mean, self.chance, self.count)


def score(store: Store, blobs: Blobs, model: Model, dataset: Dataset, seed: int, task: str) -> Scored:
    """Return the score of a model on its data set; a score that is already in the store is not computed again.

    Raises:
        InvalidInput: the data do not fit the network, or the network cannot be run within the limits.
    """
    with store.read() as tx:
        known = scores.find(tx, model.id, dataset.id, seed)
    if known is not None and known.task == task:
        return Scored.of(known)
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
        "task": task,
    }
    found = in_turn(lambda: run("score", request, QUICK, field="model"))
    row = scores.Score(model_id=model.id, dataset_id=dataset.id, seed=seed, **found)
    scored = Scored.of(row)
    with store.begin() as tx:
        scores.keep(tx, row)
    return scored

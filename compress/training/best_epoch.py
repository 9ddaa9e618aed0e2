"""BestEpoch: the score of each epoch of a training run, and the weights of the epoch that scored highest.

It is kept in the run's own checkpoint, so that one file has everything that an interrupted run needs.

best = BestEpoch.of(saved)
for step in fit(network, part, preprocessing, recipe, checkpoint=saved):
    if step.last_of_epoch:
        best = best.after(step.epoch, score(step.network()), step.network())
        saved = step.checkpoint(best.arrays)
chosen = best.network(network)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from compress.network import Array, Network
from compress.training.checkpoint import Checkpoint

_SCORES = "scores"
_WEIGHTS = "weights/"


@dataclass(frozen=True, eq=False)
class BestEpoch:
    """The epochs that are finished so far; an epoch whose score is not known has NaN and is never the best.

    Attributes:
        scores: score of each epoch, more is better.
        weights: constant name -> value after the best epoch.
    """

    scores: tuple[float, ...] = ()
    weights: Mapping[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, checkpoint: bytes | None) -> Self:
        """Read what `arrays` added to a checkpoint; a checkpoint of an earlier version has no scores.

        Raises:
            InvalidInput: see `Checkpoint.from_bytes`.
        """
        if checkpoint is None:
            return cls()
        known = Checkpoint.from_bytes(checkpoint)
        if _SCORES not in known.beside:
            return cls()
        scores = tuple(float(score) for score in known.beside[_SCORES])
        own = {name.removeprefix(_WEIGHTS): value for name, value in known.beside.items() if name.startswith(_WEIGHTS)}
        return cls(scores, own or known.weights)

    @property
    def epoch(self) -> int:
        """The number of the best epoch, from 1, or 0 if no score is known. Of equal scores, the last one counts."""
        known = [(score, number) for number, score in enumerate(self.scores, 1) if not math.isnan(score)]
        return max(known)[1] if known else 0

    @property
    def is_last(self) -> bool:
        """True if no earlier epoch is better than the last one."""
        return self.epoch in (0, len(self.scores))

    @property
    def arrays(self) -> Mapping[str, Array]:
        """The arrays to keep in the checkpoint of the last epoch; its own weights are not repeated."""
        own = {} if self.is_last else {f"{_WEIGHTS}{name}": value for name, value in self.weights.items()}
        return {_SCORES: np.array(self.scores), **own}

    def after(self, epoch: int, score: float, network: Network) -> BestEpoch:
        """Return this with one more epoch.

        Args:
            epoch: index of the epoch, from 0; epochs that were skipped count as not known.
            network: the network after this epoch.
        """
        skipped = (math.nan,) * (epoch - len(self.scores))
        longer = replace(self, scores=(*self.scores, *skipped, score))
        return replace(longer, weights=_trainable(network)) if longer.epoch == epoch + 1 else longer

    def network(self, source: Network) -> Network:
        """Return the network after the best epoch, given the network that training started from."""
        return source.with_constants(self.weights)


def _trainable(network: Network) -> dict[str, Array]:
    """Return all constants that training may change."""
    return {name: value for name, value in network.constants.items() if value.dtype.kind == "f"}

"""Evidence: facts about the uncut network and its data, gathered once and shared by all candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compress.pruning.statistics import Statistics


@dataclass(frozen=True, eq=False)
class Evidence:
    """The data about the uncut network that rewriting may use.

    Attributes:
        images: (N, *input_shape) float32, preprocessed real images, for calibration.
        importance: block name -> (width,) scores, see `compress.pruning.importance`.
        masks: block name -> (width,) bool, True for the units that stay; a mask overrides the choice.
        statistics: statistics for the refit of the remaining weights; None leaves these weights as they are.
        known: other results that are computed once and that strategies read by name; name -> block or knob -> array.
        notes: sentences for the user, one for each fact that was not gathered as the settings ask.
    """

    images: NDArray[np.float32] | None = None
    importance: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    statistics: Statistics | None = None
    notes: tuple[str, ...] = ()
    known: Mapping[str, Mapping[str, NDArray[np.float64]]] = field(default_factory=dict)

    def joined(self, other: Evidence) -> Evidence:
        """Return this evidence joined with another, whose values win; the larger set of images stays."""
        parts = [part for part in (self.images, other.images) if part is not None]
        return Evidence(
            max(parts, key=len, default=None),
            {**self.importance, **other.importance},
            {**self.masks, **other.masks},
            other.statistics or self.statistics,
            (*self.notes, *other.notes),
            {name: {**self.known.get(name, {}), **other.known.get(name, {})} for name in (*self.known, *other.known)},
        )

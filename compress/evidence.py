"""Evidence: what methods know of the uncut network and its data, gathered once and shared by all candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compress.pruning.statistics import Statistics


@dataclass(frozen=True, eq=False)
class Evidence:
    """What rewriting may look at besides the network itself. All of it belongs to the uncut network.

    Attributes:
        images: (N, *input_shape) float32, preprocessed real images, for calibration.
        importance: block name -> (width,) scores, see `compress.pruning.importance`.
        masks: block name -> (width,) bool, True for the units that stay; a mask overrides the choice.
        statistics: what survivors are refitted with; None leaves their weights as they are.
        known: name -> block or knob -> array: what else was worked out once, offered to strategies by this name.
        notes: what was gathered otherwise than the settings say, a sentence each, for a person.
    """

    images: NDArray[np.float32] | None = None
    importance: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    statistics: Statistics | None = None
    notes: tuple[str, ...] = ()
    known: Mapping[str, Mapping[str, NDArray[np.float64]]] = field(default_factory=dict)

    def joined(self, other: Evidence) -> Evidence:
        """Both: where both know something, the other's holds; the larger number of images stays."""
        parts = [part for part in (self.images, other.images) if part is not None]
        return Evidence(
            max(parts, key=len, default=None),
            {**self.importance, **other.importance},
            {**self.masks, **other.masks},
            other.statistics or self.statistics,
            (*self.notes, *other.notes),
            {name: {**self.known.get(name, {}), **other.known.get(name, {})} for name in (*self.known, *other.known)},
        )

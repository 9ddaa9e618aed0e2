"""Layer losses (F1): the loss from turning a single knob to each of its levels, from statistics and without a forward
pass.

For each knob, the first available of three sources is used: the error after a least-squares refit (He et al., AMC,
arXiv 1802.03494); the contribution p'Gp of the removed units to the layers that read them; the Fisher scores of the
removed units (Theis et al., arXiv 1801.05787). All three are shares of the whole, so that the losses of knobs add up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from search.space import Levelled, Space

Vector = NDArray[np.float64]
Known = Mapping[str, Mapping[str, Vector]]


def layer_losses(space: Space, known: Known) -> dict[str, Vector]:
    """Return knob -> (levels,) loss, which is 0 if nothing is removed; knobs without a source are missing."""
    found: dict[str, Vector] = {}
    for knob in space.levelled:
        sources = _SOURCES if knob.role == "width" else {"ls_error": _refitted}  # only a width has units
        source = next((make for name, make in sources.items() if knob.name in known.get(name, {})), None)
        if source is not None:
            found[knob.name] = source(knob, known)
    return found


def _refitted(knob: Levelled, known: Known) -> Vector:
    return known["ls_error"][knob.name]


def _contributed(knob: Levelled, known: Known) -> Vector:
    """Return p'Gp for the removed units p. The least important units are removed first and, of equally important units,
    the last.
    """
    gram = known["gram"][knob.name]
    ranks = known.get("importance", {}).get(knob.name, np.diag(gram))
    order = np.argsort(-ranks, kind="stable")[::-1]
    gone = np.append(0.0, np.cumsum(np.cumsum(gram[np.ix_(order, order)], axis=0), axis=1).diagonal())
    return _at_levels(knob, gone)


def _scored(knob: Levelled, known: Known) -> Vector:
    """Return the share of the summed scores that is lost when the units with the lowest scores are removed."""
    scores = np.sort(known["fisher"][knob.name])
    return _at_levels(knob, np.append(0.0, np.cumsum(scores)) / max(float(scores.sum()), np.finfo(float).tiny))


def _at_levels(knob: Levelled, gone: Vector) -> Vector:
    """Return the loss (levels,) at each level, given the loss (width + 1,) for each number of removed units."""
    kept = np.array([int(knob.value(level)) for level in range(knob.level_count)])
    return np.asarray(gone[len(gone) - 1 - kept])


_SOURCES: Mapping[str, Callable[[Levelled, Known], Vector]] = {
    "ls_error": _refitted,
    "gram": _contributed,
    "fisher": _scored,
}

"""The counts of the built-in metrics."""

from __future__ import annotations

import numpy as np

from compress.counting.cost import Counts, sparse_share
from compress.counting.count import Count


def _fewer(density: Counts, weights: Counts, weight_bytes: Counts) -> Counts:
    return (density - 1.0) * weights


def _smaller(density: Counts, weights: Counts, weight_bytes: Counts) -> Counts:
    """Return the change in bytes (negative) at a density, assuming that zeros are spread at random over all layers.

    This is an upper estimate: a threshold over the whole network leaves more weights in some layers than in others, and
    an uneven distribution takes fewer bytes.
    """
    itemsize = weight_bytes / np.maximum(weights, 1.0)
    return weights * (sparse_share(density, itemsize) - itemsize)


MACS = Count(lambda form: form.cost.macs, lambda node, network, cost: cost.macs)
PARAMETERS = Count(lambda form: form.cost.parameters, lambda node, network, cost: cost.parameters)
SIZE_BYTES = Count(lambda form: form.file_cost.size_bytes, lambda node, network, cost: cost.size_bytes)
NONZEROS = Count(lambda form: form.cost.nonzeros, thinned=_fewer)
STORED_BYTES = Count(lambda form: form.file_cost.stored_bytes, thinned=_smaller)

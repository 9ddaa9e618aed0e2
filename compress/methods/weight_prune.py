"""weight_prune: single weights become zero, those that matter least to their layers first. Smaller to store, no faster.

One threshold over all layers on the score of LAMP (Lee et al., ICLR 2021, arXiv 2010.07611); biases and norms are free.
Condensa's threshold is on the magnitudes themselves (arXiv 1911.02497), which a norm scales as it likes: with norms
folded in, 5 % of ResNet-20's weights by magnitude leave two layers empty and a third all but empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from compress.errors import InvalidInput
from compress.evidence import Evidence
from compress.method import MethodFamily, Stage, Widths
from compress.network import Array, Network
from compress.pruning.effective_weights import Weights, effective, layer_weights
from compress.task import Targets
from search.space import Bounds, Doc, Float, Knob, Values

KNOB = "weight_prune"


@dataclass(frozen=True)
class Settings:
    """Settings of weight_prune."""

    min_density: Annotated[float, Doc("smallest share of the weights that is kept"), Bounds(1e-4, 0.99)] = 0.005


@dataclass(frozen=True)
class LampOperator:
    """Keeps this share of all layer weights, the largest by `lamp` of effective ones, and makes the others zero."""

    density: float
    stage: Stage = "sparsity"

    def rewrite(self, network: Network, evidence: Evidence) -> Network:
        """The network with zeros; what stays keeps its bits.

        Raises:
            InvalidInput: the network has no float32 layer weights.
        """
        names = self.projected(network)
        if not names:
            return network
        kept = self.project(network, effective(network, names))
        zeroed = {name: np.where(kept[name] != 0, network.constants[name], np.float32(0)) for name in names}
        return network.with_constants(zeroed)

    def project(self, network: Network, weights: Weights) -> dict[str, Array]:
        """That share of the weights, the others zero; in each layer the nearest with as many zeros. Of equals the first
        stay.
        """
        names = self.projected(network)
        if not names:
            return dict(weights)
        masks = largest([lamp(weights[name]) for name in names], self.density)
        kept = {name: np.where(mask, weights[name], 0.0) for name, mask in zip(names, masks, strict=True)}
        return {**weights, **kept}

    def projected(self, network: Network) -> tuple[str, ...]:
        """The weights that take part: all layer weights, none where everything stays."""
        if self.density == 1.0:
            return ()
        names = layer_weights(network)
        if not names:
            raise InvalidInput(KNOB, self.density, "the network has no float32 layer weights to prune")
        return names


def lamp(weights: Array) -> Array:
    """Each weight's square, as a share of the squares of its layer that are no smaller, itself among them (LAMP,
    equation 2; of equals the later ones count as smaller). The largest of a layer has 1, whatever the layer's scale.
    """
    squares = np.square(weights, dtype=np.float64).reshape(-1)
    falling = np.argsort(-squares, kind="stable")
    ordered = squares[falling]
    scores = np.empty_like(squares)
    scores[falling] = ordered / np.maximum(np.cumsum(ordered), np.finfo(np.float64).tiny)
    return scores.reshape(weights.shape)


def largest(arrays: Sequence[Array], density: float) -> list[NDArray[np.bool_]]:
    """For each array the mask of what stays when the `density` largest scores of all together stay.

    At least one value stays; among equals the first ones do.
    """
    scores = np.concatenate([array.reshape(-1) for array in arrays])
    count = max(1, round(density * scores.size))
    threshold = np.partition(scores, scores.size - count)[scores.size - count]
    mask = scores > threshold
    mask[np.flatnonzero(scores == threshold)[: count - int(mask.sum())]] = True
    parts = np.split(mask, np.cumsum([array.size for array in arrays])[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]


@dataclass(frozen=True)
class WeightPrune:
    """One knob: the share of all layer weights that stays."""

    settings: Settings

    def knobs(self, network: Network, widths: Widths) -> tuple[Knob, ...]:
        """One number up to 1.0, which keeps everything; none where the network has no layer weights."""
        return (Float(KNOB, self.settings.min_density, 1.0),) if layer_weights(network) else ()

    def gather(self, network: Network, images: NDArray[np.float32], targets: Targets | None, seed: int) -> Evidence:
        """The weights are all that it looks at."""
        return Evidence()

    def bind(self, values: Values) -> LampOperator:
        """Where the knob has no value, everything stays."""
        density = values.get(KNOB, 1.0)
        low = self.settings.min_density
        if type(density) not in (int, float) or not low <= density <= 1.0:  # type: ignore[operator]  # a number by then
            raise InvalidInput(KNOB, density, f"density must be a number in [{low:g}, 1]")
        return LampOperator(float(density))  # type: ignore[arg-type]  # checked


METHOD = MethodFamily(
    "weight_prune",
    "Make single weights zero, by one threshold (LAMP) over the whole network; smaller to store, not faster.",
    "arXiv 2010.07611",
    Settings,
    WeightPrune,
    lowers=("nonzeros", "stored_bytes"),
    sparse=True,
)

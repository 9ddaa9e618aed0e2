"""weight_prune: set single weights to zero, the least important first. This gives a smaller file, not a faster one.

All layers share one threshold on the score of LAMP (Lee et al., ICLR 2021, arXiv 2010.07611); biases and norms stay.
Condensa's threshold is on the magnitudes (arXiv 1911.02497), but norms scale magnitudes arbitrarily. With norms folded
in, keeping the largest 5 % of ResNet-20's weights leaves two layers empty and a third layer nearly empty.
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
    """Operator that keeps this share of all layer weights, by `lamp` of the effective weights, and zeroes the rest."""

    density: float
    stage: Stage = "sparsity"

    def rewrite(self, network: Network, evidence: Evidence) -> Network:
        """Return the network with zeros; the weights that stay do not change.

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
        """Return the weights with all except the kept share set to zero. Of weights with equal scores, the first stay.

        In each layer, no other weights with as many zeros are nearer to the given weights.
        """
        names = self.projected(network)
        if not names:
            return dict(weights)
        masks = largest([lamp(weights[name]) for name in names], self.density)
        kept = {name: np.where(mask, weights[name], 0.0) for name, mask in zip(names, masks, strict=True)}
        return {**weights, **kept}

    def projected(self, network: Network) -> tuple[str, ...]:
        """Return the weights that can become zero: all layer weights, or none if everything stays."""
        if self.density == 1.0:
            return ()
        names = layer_weights(network)
        if not names:
            raise InvalidInput(KNOB, self.density, "the network has no float32 layer weights to prune")
        return names


def lamp(weights: Array) -> Array:
    """Return each weight's square, divided by the sum of the squares in its layer that are at least as large (LAMP).

    This is equation 2 of the paper. The sum includes the weight itself; of equal weights, the later ones count as
    smaller. The largest weight of a layer scores 1, whatever the layer's scale.
    """
    squares = np.square(weights, dtype=np.float64).reshape(-1)
    falling = np.argsort(-squares, kind="stable")
    ordered = squares[falling]
    scores = np.empty_like(squares)
    scores[falling] = ordered / np.maximum(np.cumsum(ordered), np.finfo(np.float64).tiny)
    return scores.reshape(weights.shape)


def largest(arrays: Sequence[Array], density: float) -> list[NDArray[np.bool_]]:
    """Return for each array the mask of the scores that stay: the largest share `density` of all arrays together.

    At least one value stays. Of equal values, the first ones stay.
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
    """Method with one knob: the share of all layer weights that stays."""

    settings: Settings

    def knobs(self, network: Network, widths: Widths) -> tuple[Knob, ...]:
        """Return one knob, a number up to 1.0 (which keeps everything), or none if the network has no layer weights."""
        return (Float(KNOB, self.settings.min_density, 1.0),) if layer_weights(network) else ()

    def gather(self, network: Network, images: NDArray[np.float32], targets: Targets | None, seed: int) -> Evidence:
        """Return no evidence, because the operator needs only the weights."""
        return Evidence()

    def bind(self, values: Values) -> LampOperator:
        """Return the operator; everything stays if the knob has no value."""
        density = values.get(KNOB, 1.0)
        low = self.settings.min_density
        if type(density) not in (int, float) or not low <= density <= 1.0:  # type: ignore[operator]  # it is a number, checked above
            raise InvalidInput(KNOB, density, f"density must be a number in [{low:g}, 1]")
        return LampOperator(float(density))  # type: ignore[arg-type]  # checked


METHOD = MethodFamily(
    "weight_prune",
    "Set single weights to zero by one threshold (LAMP) over the whole network. This saves storage, not latency.",
    "arXiv 2010.07611",
    Settings,
    WeightPrune,
    lowers=("nonzeros", "stored_bytes"),
    sparse=True,
)

"""filter_prune: remove whole channels and refit their readers by least squares. This is faster on every runtime.

Importance: Li et al., arXiv 1608.08710 (l1, l2); Liu et al., arXiv 1708.06519 (batch_norm); Molchanov et al.,
arXiv 1611.06440 (taylor); Theis et al., arXiv 1801.05787 (fisher). Refit: He et al., AMC, arXiv 1802.03494.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from compress.counting.layer_facts import LayerFacts
from compress.errors import InvalidInput
from compress.evidence import Evidence
from compress.graph.cut import cut
from compress.graph.groups import Block, prunable_blocks
from compress.method import MethodFamily, Stage, Widths
from compress.network import Array, Network
from compress.ops.row import Indices
from compress.pruning.effective_weights import Weights
from compress.pruning.importance import Kind, fallback, fisher_scores, score
from compress.pruning.layer_error import gram, idle
from compress.pruning.reconstruct import reconstructed
from compress.pruning.statistics import Statistics
from compress.task import Targets
from search.space import Bounds, Choice, Doc, Knob, Value, Values

IMPORTANCE_IMAGES = 512


@dataclass(frozen=True)
class Settings:
    """Settings of filter_prune."""

    importance: Annotated[
        Kind,
        Doc("ranking of channels: fisher and taylor use gradients on real images, the other rankings use weights"),
    ] = "fisher"
    min_keep: Annotated[float, Doc("smallest share of a block's channels that is kept"), Bounds(0.0, 1.0)] = 0.1
    refit: Annotated[bool, Doc("refit the layers that read removed channels by least squares")] = True
    ridge: Annotated[
        float, Doc("regularisation of the refit, relative to its inputs' mean square"), Bounds(0.0, 10.0)
    ] = 1e-4


@dataclass(frozen=True)
class PruneOperator:
    """Operator that cuts each block to its width. `widths` may also name other knobs; blocks not named stay whole."""

    settings: Settings
    widths: Mapping[str, Value]
    stage: Stage = "structure"

    def rewrite(self, network: Network, evidence: Evidence) -> Network:
        """Return the network with fewer channels, refitted if the evidence has statistics.

        Raises:
            InvalidInput: a block cannot have its width, or a block that loses channels has no scores.
        """
        blocks = prunable_blocks(network)
        keep = self.keep(blocks, evidence)
        smaller = cut(network, keep, blocks)
        if not keep or evidence.statistics is None or not self.settings.refit:
            return smaller
        return reconstructed(smaller, network, evidence.statistics, keep, blocks, self.settings.ridge)

    def project(self, network: Network, weights: Weights) -> dict[str, Array]:
        """Set the units with the smallest filters to zero, with their biases and norms, so that they output zero.

        Among the weights with which a cut to these widths changes no output, these are the nearest to the given
        weights.
        """
        made = dict(weights)
        for block in self._narrowed(network):
            dead = np.setdiff1d(np.arange(block.width), pick(_sizes(block, weights), self._width(block)))
            companions = [slot for slot in block.slots if slot[0] in made and made[slot[0]].ndim == 1]
            for tensor, axis in (*block.filters, *companions):
                made[tensor] = made[tensor].copy()
                np.moveaxis(made[tensor], axis, 0)[block.slots[tensor, axis][dead].reshape(-1)] = 0.0
        return made

    def projected(self, network: Network) -> tuple[str, ...]:
        """Return the filters of the blocks that lose units."""
        return tuple(dict.fromkeys(tensor for block in self._narrowed(network) for tensor, _ in block.filters))

    def _narrowed(self, network: Network) -> list[Block]:
        return [block for block in prunable_blocks(network) if self._width(block) != block.width]

    def _width(self, block: Block) -> int:
        return _checked(block, self.widths.get(block.name, block.width))

    def keep(self, blocks: Iterable[Block], evidence: Evidence) -> dict[str, Indices]:
        """Return block name -> the units that stay, for the blocks that lose units."""
        wanted = ((block, self.widths.get(block.name, block.width)) for block in blocks)
        return {block.name: _chosen(block, width, evidence) for block, width in wanted if width != block.width}


def _checked(block: Block, width: Value) -> int:
    if type(width) is not int or not block.minimum <= width <= block.width:
        raise InvalidInput(block.name, width, f"width must be a whole number in [{block.minimum}, {block.width}]")
    return width


def _sizes(block: Block, weights: Weights) -> NDArray[np.float64]:
    """Return the sum of squares (width,) of each unit's filters."""
    total = np.zeros(block.width)
    for tensor, axis in block.filters:
        rows = np.moveaxis(weights[tensor].astype(np.float64), axis, 0)
        squares = np.square(rows).reshape(len(rows), -1).sum(1)
        total += squares[block.slots[tensor, axis]].sum(1)
    return total


def _chosen(block: Block, wanted: Value, evidence: Evidence) -> Indices:
    width = _checked(block, wanted)
    mask = evidence.masks.get(block.name)
    if mask is not None:
        if mask.shape != (block.width,) or int(mask.sum()) != width:
            raise InvalidInput(block.name, int(mask.sum()), f"the mask must keep {width} of {block.width} units")
        return np.flatnonzero(mask)
    scores = evidence.importance.get(block.name)
    if scores is None or scores.shape != (block.width,):
        raise InvalidInput(
            block.name, width, f"there are no importance scores for the {block.width} units of this block"
        )
    return pick(scores, width)


def pick(scores: NDArray[np.float64], width: int) -> Indices:
    """Return the indices, ascending, of the `width` largest scores; of equal scores, the first are taken."""
    return np.sort(np.argsort(-scores, kind="stable")[:width])


@dataclass(frozen=True)
class FilterPrune:
    """Method with one knob per prunable block: the number of channels that stay."""

    settings: Settings

    def knobs(self, network: Network, widths: Widths) -> tuple[Knob, ...]:
        """Return ordered choices of widths, ascending, named after their blocks.

        Args:
            widths: the widths worth trying; a block that is not named may have any width.
        """
        facts = LayerFacts(network)
        knobs = []
        for block in prunable_blocks(network):
            least = max(block.minimum, ceil(self.settings.min_keep * block.width))
            allowed = {width for width in widths.get(block.name, range(block.width)) if least <= width <= block.width}
            options = tuple(sorted(allowed | {block.width}))
            knobs.append(Choice(block.name, options, True, facts.of_block(block), "width", block.layers))
        return tuple(knobs)

    def gather(self, network: Network, images: NDArray[np.float32], targets: Targets | None, seed: int) -> Evidence:
        """Gather scores of all units, statistics for the refit, and Fisher scores and Gram matrices for strategies."""
        blocks = prunable_blocks(network)
        few = slice(IMPORTANCE_IMAGES)
        kind = self.settings.importance
        some = None if targets is None else targets[few]
        fisher = fisher_scores(network, blocks, images[few], some)
        # If fisher is the chosen importance, Fisher scores are known already, except for blocks that another importance
        # ranks.
        left = [block for block in blocks if kind != "fisher" or block.name not in fisher]
        scores = score(network, left, kind, images[few], some) if left else {}
        scores |= fisher if kind == "fisher" else {}
        statistics = Statistics.gather(network, blocks, images, seed) if self.settings.refit else None
        if statistics is not None:
            useless = idle(network, blocks, statistics)
            scores = {name: np.where(useless[name], 0.0, values) for name, values in scores.items()}
        known = {"fisher": fisher, "gram": {} if statistics is None else gram(network, blocks, statistics)}
        return Evidence(
            importance={block.name: scores[block.name] for block in blocks},
            statistics=statistics,
            notes=fallback(network, blocks, kind),
            known=known,
        )

    def bind(self, values: Values) -> PruneOperator:
        """Return the operator; values that name no block belong to other methods."""
        return PruneOperator(self.settings, dict(values))


METHOD = MethodFamily(
    "filter_prune",
    "Remove whole channels and refit the layers that read them. The network gets faster on every runtime.",
    "arXiv 1608.08710, 1708.06519, 1611.06440, 1801.05787; refit as in arXiv 1802.03494",
    Settings,
    FilterPrune,
    lowers=("latency_ms", "macs", "parameters", "size_bytes", "nonzeros", "stored_bytes"),
    sparse=True,
)

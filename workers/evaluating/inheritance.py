"""Inheritance: F2 and F3 candidates that start from the weights of an earlier F3 evaluation.

The material stores such a network in the shapes of the original, with zeros for the removed units, and the names of the
units that are left. So widths and masks always count the original's units, and a candidate that starts from a network
can only cut it further.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compress.graph.groups import groups, prunable_blocks
from compress.methods.filter_prune import pick
from compress.network import Network
from compress.pruning.uncut import uncut
from search.candidate import Candidate
from workers.errors import InvalidInput
from workers.evaluating.evaluation_files import Material
from workers.evaluating.whole_training import fits

Units = Mapping[str, NDArray[np.int64]]
"""Block name -> units, ascending; blocks not named have all."""


@dataclass(frozen=True)
class Start:
    """The network that a candidate is cut from, in the shapes of the original, and the units that are left in it."""

    network: Network
    left: Units
    epochs: int


class Inheritance:
    """Finds what candidates start from, and stores what others may start from."""

    def __init__(self, material: Material) -> None:
        self._material = material
        self._blocks = prunable_blocks(material.network)
        self._widths = {block.name: block.width for group in groups(material.network) for block in group.blocks}

    def start(self, candidate: Candidate) -> Start:
        """Return the original, or the network that the candidate names.

        Raises:
            InvalidInput: that network is not stored, or is not of this network.
        """
        whole, digest = self._material.network, candidate.weights_from
        if digest is None:
            return Start(whole, {}, 0)
        kept = self._material.kept(digest)
        if not fits(kept, whole):
            raise InvalidInput("weights_from", digest, "must be weights of this network")
        weights = {name: kept.constants[name] for name in whole.constants}
        return Start(whole.with_constants(weights), self._material.units(digest), self._material.epochs(digest))

    def kept(self, candidate: Candidate, start: Start) -> dict[str, NDArray[np.int64]]:
        """Return the units that each narrowed block keeps: those of the candidate's mask, else the most important ones
        that are left.

        Raises:
            InvalidInput: a mask names no block, or the candidate needs a unit that the start does not have.
        """
        found = {name: self._masked(name, units) for name, units in candidate.masks.items()}
        for block in self._blocks:
            width = candidate.values.get(block.name, block.width)
            scores = self._material.evidence.importance.get(block.name)
            if block.name not in found and isinstance(width, int) and width < block.width and scores is not None:
                left = start.left.get(block.name, np.arange(block.width))
                found[block.name] = np.asarray(left[pick(scores[left], width)])
        for name, left in start.left.items():
            if len(gone := np.setdiff1d(found.get(name, np.arange(self._widths[name])), left)):
                raise InvalidInput(name, gone.tolist(), "the network to start from no longer has these units")
        return found

    def _masked(self, name: str, units: tuple[int, ...]) -> NDArray[np.int64]:
        if name not in self._widths:
            raise InvalidInput("masks", name, f"the network has no block of this name; known: {sorted(self._widths)}")
        return np.intersect1d(np.arange(self._widths[name]), np.array(units, dtype=np.int64))

    def masks(self, kept: Units) -> dict[str, NDArray[np.bool_]]:
        """Return block name -> (width,) booleans, true for kept units."""
        return {name: np.isin(np.arange(self._widths[name]), units) for name, units in kept.items()}

    def keep(self, candidate: Candidate, trained: Network, kept: Units, epochs: int) -> str | None:
        """Store a trained network for others to start from; return its digest.

        None if the network cannot be stored: the refit added a bias, or unequal picks added a layer.
        """
        whole = uncut(trained, self._material.network, kept, self._blocks)
        evidence = replace(self._material.evidence, masks=self.masks(kept), statistics=None)
        again = self._material.scheme.bind(candidate.values).rewrite(whole, evidence, "structure")
        if not _equal(again, trained):
            return None
        return self._material.keep(whole, epochs, {name: units.tolist() for name, units in kept.items()})


def _equal(one: Network, other: Network) -> bool:
    if one.constants.keys() != other.constants.keys():
        return False
    return all(np.array_equal(value, other.constants[name]) for name, value in one.constants.items())

"""Reconstruct: a least-squares refit of the layers that read cut channels, from statistics alone, in milliseconds.

For a layer with input x = (x_K, x_R), K kept and R removed, and z = (x_K, 1), the change D of its weights
minimises E |D z - W_R x_R|^2 + ridge |D|^2, so (G_zz + ridge) D' = G_zR W_R'. Shrinking the change rather than the
weights (as He et al., AMC, arXiv 1802.03494, do) leaves a layer unchanged if nothing was removed.
If only means are known, the intercept takes W_R E[x_R], the average contribution of the removed channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from compress.graph.cut import kept_slots
from compress.graph.edit import edited
from compress.graph.fold import output_axis
from compress.graph.groups import Block
from compress.graph.names import Names
from compress.network import Array, Network, Node
from compress.ops.row import Indices
from compress.pruning.statistics import Matrix, Moments, Statistics, Vector, readers

RIDGE = 1e-4
LEAST_RIDGE = 1e-6  # relative rounding error of sums of float32 products


def reconstructed(
    cut: Network,
    original: Network,
    statistics: Statistics,
    keep: Mapping[str, ArrayLike],
    blocks: Sequence[Block],
    ridge: float = RIDGE,
) -> Network:
    """Return the cut network in which each layer that lost inputs is refitted; shapes do not change.

    Args:
        cut: `compress.graph.cut.cut(original, keep)`.
        statistics: statistics of the original.
        keep: block name -> indices of the units that stayed.
        blocks: blocks of the original, at least the blocks that `keep` names.
        ridge: regularisation, relative to the mean square of the inputs.
    """
    chosen = [(block, np.unique(np.asarray(keep[block.name], np.int64))) for block in blocks if block.name in keep]
    kept = kept_slots(original, chosen)
    refit = Refit(cut, original)
    for (slot, tensor), nodes in readers(original, [block for block, _ in chosen]).items():
        weight = slot[0]
        moments = statistics.moments.get((weight, tensor))
        if moments is None or slot not in kept:
            continue
        rows = as_rows(original.constants[weight], nodes[0])
        outputs = kept.get((weight, output_axis_of(nodes[0])), np.arange(len(rows)))
        change, intercept = _solve(rows[outputs], kept[slot], moments, nodes[0].get("group", 1), ridge)
        refit.apply(nodes, change, intercept)
    return refit.result()


def output_axis_of(node: Node) -> int:
    """Return the axis of output channels in the weight of any layer."""
    return 1 if node.op_type == "MatMul" else output_axis(node)


def as_rows(weight: Array, node: Node) -> NDArray[np.float64]:
    """Return the layer's weight as (outputs, inputs, taps) float64; `inputs` of a grouped layer counts one group."""
    rows = weight.astype(np.float64) if output_axis_of(node) == 0 else weight.T.astype(np.float64)
    return rows.reshape(len(rows), rows.shape[1], -1)


def _solve(
    rows: NDArray[np.float64], kept: Indices, moments: Moments, groups: int, ridge: float
) -> tuple[NDArray[np.float64] | None, Vector]:
    """Return the change of kept weights (outputs, kept, taps), or None if only means are known, and the intercept."""
    outputs, inputs, taps = rows.shape
    gone = np.setdiff1d(np.arange(inputs), kept)
    lost = rows[:, gone].reshape(outputs, -1)
    if moments.gram is None:
        return None, _mean_of_lost(rows, gone, moments.mean, groups)
    columns = _features(gone, taps)
    z = np.append(_features(kept, taps), len(moments.gram) - 1)
    gram = moments.gram[np.ix_(z, z)]
    factor = factored(gram, len(z) - 1, ridge)
    target = torch.from_numpy(moments.gram[np.ix_(z, columns)]) @ torch.from_numpy(lost).T
    solution = torch.cholesky_solve(target, factor).numpy()
    return solution[:-1].T.reshape(outputs, len(kept), taps), solution[-1]


def factored(gram: Matrix, features: int, ridge: float) -> torch.Tensor:
    """Return the lower Cholesky factor of a Gram matrix after adding the ridge to its first features, in place.

    Dead or duplicate inputs make the matrix singular, so the ridge has a minimum that covers rounding.
    """
    diagonal = np.arange(features)
    scale = float(gram[diagonal, diagonal].mean()) if features else 0.0
    gram[diagonal, diagonal] += max(ridge, LEAST_RIDGE) * scale + np.finfo(np.float32).tiny
    # This uses torch, not scipy, because the caller bounds torch's threads and pools run many factorisations at once.
    factor: torch.Tensor = torch.linalg.cholesky(torch.from_numpy(gram))
    return factor


def _features(channels: Indices, taps: int) -> Indices:
    """Return the positions of these channels in a patch."""
    return (channels[:, None] * taps + np.arange(taps)).reshape(-1)


def _mean_of_lost(rows: NDArray[np.float64], gone: Indices, mean: Vector, groups: int) -> Vector:
    """Return the average contribution (outputs,) of the removed inputs. Grouped outputs read only their own group."""
    outputs, inputs, taps = rows.shape
    per_group = outputs // groups
    means: Matrix = mean.reshape(groups, inputs, taps)[:, gone]
    parts = [np.einsum("oit,it->o", rows[g * per_group : (g + 1) * per_group, gone], means[g]) for g in range(groups)]
    return np.concatenate(parts)


class Refit:
    """A collector of the new constants of the cut network."""

    def __init__(self, cut: Network, original: Network) -> None:
        self.cut = cut
        self.original = original
        self.constants: dict[str, Array] = {}
        self.nodes: dict[str, Node] = {}

    def apply(self, nodes: Sequence[Node], change: NDArray[np.float64] | None, intercept: Vector) -> None:
        node, name = nodes[0], nodes[0].inputs[1]
        weight = self.cut.constants[name]
        if change is not None:
            shaped = change.reshape(change.shape[0], change.shape[1], *weight.shape[2:])
            shaped = shaped if output_axis_of(node) == 0 else shaped.T
            self.constants[name] = (weight + shaped).astype(weight.dtype)
        for node in nodes:
            self._shift(node, intercept * (node.get("alpha", 1.0) / node.get("beta", 1.0)))

    def _shift(self, node: Node, intercept: Vector) -> None:
        """Add the intercept to the layer's bias, subtract it from the next norm's mean, or add a new bias."""
        bias = node.input(2)
        if bias in self.cut.constants:
            value = self.cut.constants[bias]
            self.constants[bias] = (value + intercept.reshape(value.shape)).astype(value.dtype)
            return
        norm = self.cut.sole_consumer(node.outputs[0])
        if norm is not None and norm.op_type == "BatchNormalization":
            value = self.cut.constants[norm.inputs[3]]
            self.constants[norm.inputs[3]] = (value - intercept).astype(value.dtype)
        elif node.op_type != "MatMul":
            own = self.cut.node(node.name)
            name = Names(self.cut).new(f"{node.name}/intercept")
            self.constants[name] = intercept.astype(self.cut.constants[node.inputs[1]].dtype)
            self.nodes[node.name] = replace(own, inputs=(*own.inputs[:2], name))

    def result(self) -> Network:
        if not self.nodes:
            return self.cut.with_constants(self.constants)
        nodes = [self.nodes.get(node.name, node) for node in self.cut.nodes]
        return edited(self.cut, nodes, {**self.cut.constants, **self.constants})

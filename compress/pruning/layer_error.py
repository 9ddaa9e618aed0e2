"""Layer error: the error that cutting a block causes in the layers that read it, from statistics alone (F1).

The error is the share of the variance of a reader's output that is lost after the least-squares refit, summed over
the readers of the block. One factorisation gives the error for every width: with the features ordered from kept longest
to cut first and G = L L', the error of keeping the first m features is the sum of |W L|^2 over the columns from m on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from compress.graph.groups import Block
from compress.network import Network
from compress.ops.row import Indices
from compress.pruning.reconstruct import RIDGE, as_rows, factored
from compress.pruning.statistics import Matrix, Moments, Statistics, Vector, readers

FLAT = 1e-10
"""A number with a variance below this share of its squared mean is constant. The rounding errors of float32 sums are
about as large.
"""


@dataclass(frozen=True)
class _Reader:
    """One layer that reads a block.

    Attributes:
        rows: (outputs, features), the layer's weights.
        moments: the moments of the layer's input.
        units: (width, features per unit), the features that belong to each unit of the block.
        taps: number of positions of its kernel.
        has_intercept: True if a bias can replace a constant.
    """

    rows: Matrix
    moments: Moments
    units: Indices
    taps: int
    has_intercept: bool


def ls_error(
    network: Network, blocks: Sequence[Block], statistics: Statistics, importance: Mapping[str, Vector]
) -> dict[str, Vector]:
    """Return block name -> (width + 1,), the errors of keeping the 0, 1, ... most important units; 0 at full width."""
    return {
        block.name: sum(
            (
                _errors(reader, np.argsort(-importance[block.name], kind="stable"))
                for reader in _readers(network, block, statistics)
            ),
            np.zeros(block.width + 1),
        )
        for block in blocks
    }


def gram(network: Network, blocks: Sequence[Block], statistics: Statistics) -> dict[str, Matrix]:
    """Return block name -> (width, width), the matrix G that gives the error if only the intercept is refitted.

    With p = 1 for the removed units, p'Gp is the share of the variance of the readers' outputs that is lost with these
    units, summed over the readers.
    """
    return {
        block.name: sum(
            (_contributions(reader) for reader in _readers(network, block, statistics)),
            np.zeros((block.width, block.width)),
        )
        for block in blocks
    }


def _contributions(reader: _Reader) -> Matrix:
    """Return the covariances of the units' contributions to one reader; only variances if there is no Gram matrix."""
    rows, moments, units = reader.rows, reader.moments, reader.units
    if moments.gram is None:
        powers = np.square(rows).sum(0) * moments.variance
        found, total = np.diag(powers[units].sum(1)), powers.sum()
    else:
        covariance, own = _centred(moments), units.reshape(-1)
        products = (rows[:, own].T @ rows[:, own]) * covariance[np.ix_(own, own)]
        found, total = products.reshape(*units.shape, *units.shape).sum((1, 3)), ((rows @ covariance) * rows).sum()
    return np.asarray(found / max(float(total), np.finfo(np.float64).tiny))


def idle(network: Network, blocks: Sequence[Block], statistics: Statistics) -> dict[str, NDArray[np.bool_]]:
    """Return block name -> (width,), true for each unit that carries no information.

    For all readers, such a unit is zero, or a constant that their biases or another constant can replace.
    """
    return {block.name: _idle(list(_readers(network, block, statistics)), block.width) for block in blocks}


def _idle(readers: Sequence[_Reader], width: int) -> NDArray[np.bool_]:
    found = np.full(width, bool(readers))
    for reader in readers:
        found &= _idle_for(reader, width)
    return found


def _idle_for(reader: _Reader, width: int) -> NDArray[np.bool_]:
    taps = reader.units.reshape(width, -1, reader.taps)
    mean, variance = reader.moments.mean[taps], reader.moments.variance[taps]
    power, flat = mean**2 + variance, variance <= FLAT * mean**2
    dead = _each(np.equal(power, 0.0))
    if not reader.has_intercept:
        return dead
    # At an edge, a window sees padding zeros beside a constant, which no bias can replace, but another constant can.
    constant = _each(flat)
    most = np.argmax(power, axis=2, keepdims=True)
    edged = _each(np.take_along_axis(flat, most, 2)) & ~constant
    if edged.any():
        edged[np.argmax(np.where(edged, power.sum((1, 2)), -1.0))] = False
    return dead | constant | edged


def _each(holds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return, for each unit (width,), whether `holds` (width, multiplicity, taps) is true for all of its features."""
    return np.asarray(holds.all(axis=(1, 2)))


def _readers(network: Network, block: Block, statistics: Statistics) -> Iterator[_Reader]:
    for (slot, tensor), nodes in readers(network, [block]).items():
        moments = statistics.moments.get((slot[0], tensor))
        if moments is None:
            continue
        rows = as_rows(network.constants[slot[0]], nodes[0])
        taps = rows.shape[2]
        if nodes[0].get("group", 1) > 1:
            rows = _spread(rows, nodes[0].get("group", 1))
        channels = _channels(block, tensor)
        units = (channels[:, :, None] * taps + np.arange(taps)).reshape(block.width, -1)
        yield _Reader(rows.reshape(len(rows), -1), moments, units, taps, nodes[0].op_type != "MatMul")


def _channels(block: Block, tensor: str) -> Indices:
    """Return the (width, multiplicity) indices of the block's units on the tensor that is read."""
    return next(index for (name, _), index in block.slots.items() if name == tensor)


def _spread(rows: NDArray[np.float64], groups: int) -> NDArray[np.float64]:
    """Return a grouped layer's weights as the weights of a dense layer, with zeros outside each group."""
    outputs, inputs, taps = rows.shape
    dense = np.zeros((outputs, groups * inputs, taps))
    for group, part in enumerate(np.split(np.arange(outputs), groups)):
        dense[part, group * inputs : (group + 1) * inputs] = rows[part]
    return dense


def _errors(reader: _Reader, order: Indices) -> Vector:
    rows, moments, units = reader.rows, reader.moments, reader.units
    own = units[order].reshape(-1)
    others = np.setdiff1d(np.arange(rows.shape[1]), own)
    ordered = np.concatenate([others, own])
    energy = _energy(rows, moments, ordered)
    by_unit = energy[len(others) :].reshape(len(units), -1).sum(1)
    errors = np.append(np.cumsum(by_unit[::-1])[::-1], 0.0)
    return errors / max(float(energy.sum()), np.finfo(np.float64).tiny)


def _energy(rows: Matrix, moments: Moments, ordered: Indices) -> Vector:
    """Return the output variance (features,) that each feature adds beyond the intercept and the features before it."""
    if moments.gram is None:
        weights: Vector = np.square(rows).sum(0) * moments.variance
        return weights[ordered]
    centred = _centred(moments)[np.ix_(ordered, ordered)]
    factor = factored(centred, len(ordered), RIDGE)
    energy: Vector = (torch.from_numpy(rows[:, ordered]) @ factor).square().sum(0).numpy()
    return energy


def _centred(moments: Moments) -> Matrix:
    assert moments.gram is not None
    return moments.gram[:-1, :-1] - np.outer(moments.mean, moments.mean)

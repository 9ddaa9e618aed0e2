"""One network in two forms, batch norm folded and kept: the same groups, the same outputs after any cut."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from builtin_files import each, exported

from compress import builtin
from compress.graph.cut import cut
from compress.graph.fold import fold_norms
from compress.graph.groups import groups, prunable_blocks
from compress.graph.module import TorchNetwork
from compress.graph.onnxruntime import run_onnxruntime
from compress.importing.agreement import relative_difference
from compress.importing.normalise import load_network
from compress.network import Array, Network
from compress.pruning.importance import score
from compress.testing import zeroed


@cache
def kept(name: str) -> Network:
    """A built-in network whose batch norms have statistics and affines of a trained one."""
    network = load_network(exported(name))
    rng = np.random.default_rng(3)
    updates: dict[str, Array] = {}
    for node in network.nodes:
        if node.op_type == "BatchNormalization":
            scale, bias, mean, variance = node.inputs[1:]
            width = network.shape(scale)
            updates[scale] = rng.uniform(0.5, 1.5, width).astype(np.float32)
            updates[bias] = rng.normal(0, 0.2, width).astype(np.float32)
            updates[mean] = rng.normal(0, 0.2, width).astype(np.float32)
            updates[variance] = rng.uniform(0.5, 2.0, width).astype(np.float32)
    return network.with_constants(updates)


def shape_of_groups(network: Network) -> list[tuple[str, bool, list[tuple[str, int, int]]]]:
    return [(g.name, g.prunable, [(b.name, b.width, b.minimum) for b in g.blocks]) for g in groups(network)]


def random_keep(network: Network, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        block.name: np.sort(rng.choice(block.width, rng.integers(max(block.minimum, 1), block.width + 1), False))
        for block in prunable_blocks(network)
    }


def assert_same_ranking(folded: Network, unfolded: Network) -> None:
    """Channels rank alike; scores that are equal up to rounding may swap."""
    kinds: tuple[Literal["l1", "l2"], ...] = ("l1", "l2")
    for kind in kinds:
        a, b = (score(network, prunable_blocks(network), kind) for network in (folded, unfolded))
        assert a.keys() == b.keys()
        for block in a:
            np.testing.assert_allclose(a[block], b[block], rtol=1e-4)


def check_two_forms(folded: Network, unfolded: Network, seed: int) -> None:
    assert shape_of_groups(folded) == shape_of_groups(unfolded)
    assert_same_ranking(folded, unfolded)
    keep = random_keep(folded, seed)
    images = np.random.default_rng(seed).normal(size=(4, *folded.input_shape)).astype(np.float32)
    reference = run_onnxruntime(zeroed(unfolded, keep), images)[unfolded.output_name]
    for network in (folded, unfolded):
        smaller = cut(network, keep)
        assert relative_difference(run_onnxruntime(smaller, images)[network.output_name], reference) < 1e-4
        with torch.no_grad():
            seen = TorchNetwork(smaller).eval()(torch.from_numpy(images)).numpy()
        assert relative_difference(seen, reference) < 1e-4


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", each(*builtin.names()))
def test_built_in_networks_in_two_forms(name: str, seed: int) -> None:
    check_two_forms(fold_norms(kept(name)), kept(name), seed)


@pytest.mark.shared
@pytest.mark.parametrize("seed", range(3))
def test_the_trained_resnet20_in_two_forms(shared: Callable[[str], Path], seed: int) -> None:
    folded, unfolded = (load_network(shared(f"models/resnet20-cifar10{kind}.onnx")) for kind in ("", "-bn"))
    check_two_forms(folded, unfolded, seed)

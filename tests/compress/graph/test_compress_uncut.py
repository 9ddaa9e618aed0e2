"""Uncut: the inverse of cut, on every topology."""

from __future__ import annotations

import numpy as np
import pytest
from test_compress_groups import BUILT, blocks_of, random_keep

from compress.graph.cut import cut
from compress.graph.onnxruntime import run_onnxruntime
from compress.importing.agreement import relative_difference
from compress.pruning.uncut import uncut


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", BUILT)
def test_a_cut_of_the_uncut_network_is_the_cut_network(name: str, seed: int) -> None:
    graph, network = BUILT[name]
    keep, images = random_keep(network, seed), graph.images()
    smaller = cut(network, keep)
    whole = uncut(smaller, network, keep, blocks_of(network))
    again = cut(whole, keep)
    assert again.constants.keys() == smaller.constants.keys()
    for constant, value in smaller.constants.items():
        np.testing.assert_array_equal(again.constants[constant], value)
    found, expected = (run_onnxruntime(each, images)[network.output_name] for each in (whole, smaller))
    assert relative_difference(found, expected) < 1e-4

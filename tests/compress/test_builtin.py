"""The built-in networks: what the papers publish about them, and the same road as a user's file."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from builtin_files import each, exported
from torch import nn

from compress import builtin
from compress.counting.cost import cost
from compress.errors import InvalidInput
from compress.importing.normalise import load_network

# name -> (parameters, MACs) as published: LeNet-5 in Han et al. 2015 (arXiv:1506.02626, table 1: 431 K), ResNet in He
# et al. 2016 (arXiv:1512.03385, table 6: 0.27 M, 0.46 M, 0.85 M), MACs and VGG-16 in Li et al. 2017 (arXiv:1608.08710,
# table 1: 3.13e8 and 1.5e7; 1.25e8 and 8.5e5) and ResNet-20 in He et al. 2018 (arXiv:1808.06866: 4.06e7).
PUBLISHED = {
    "lenet5": (431e3, None),
    "resnet20": (0.27e6, 4.06e7),
    "resnet32": (0.46e6, None),
    "resnet56": (0.85e6, 1.25e8),
    "vgg16": (1.5e7, 3.13e8),
}


def test_the_table_is_discovered() -> None:
    assert builtin.names() == ("digits_cnn", "lenet5", "resnet20", "resnet32", "resnet56", "vgg16")
    assert all(builtin.load(name).name == name for name in builtin.names())


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(InvalidInput, match=r"no built-in network 'resnet21', expected one of digits_cnn, .*vgg16"):
        builtin.load("resnet21")


@pytest.mark.parametrize("name", each(*PUBLISHED))
def test_sizes_are_the_published_ones(name: str) -> None:
    parameters, macs = PUBLISHED[name]
    seen = cost(load_network(exported(name)))
    assert seen.parameters == pytest.approx(parameters, rel=0.015)
    if macs is not None:
        assert seen.macs == pytest.approx(macs, rel=0.015)


@pytest.mark.parametrize("name", PUBLISHED)
def test_modules_have_as_many_parameters_as_published(name: str) -> None:
    parameters, _ = PUBLISHED[name]
    module = builtin.load(name).factory(0)
    assert sum(values.numel() for values in module.parameters()) == pytest.approx(parameters, rel=0.015)


@pytest.mark.parametrize("name", each(*builtin.names()))
def test_batch_norms_are_kept_and_shapes_are_as_said(name: str) -> None:
    row = builtin.load(name)
    norms = [module for module in row.factory(0).modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)]
    network = load_network(exported(name))
    assert [node.op_type for node in network.nodes].count("BatchNormalization") == len(norms)
    assert network.inputs["image"].shape == (1, *row.input_shape)
    assert network.outputs["logits"].shape == (1, row.classes)
    session = onnxruntime.InferenceSession(exported(name), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": np.zeros((2, *row.input_shape), np.float32)})
    assert np.asarray(logits).shape == (2, row.classes)


def test_the_digits_network_has_a_residual_add() -> None:
    kinds = [node.op_type for node in load_network(exported("digits_cnn")).nodes]
    assert kinds.count("Add") == 2


def test_shortcuts_of_option_a_slice_and_pad() -> None:
    kinds = [node.op_type for node in load_network(exported("resnet20")).nodes]
    # Two changes of shape, each a strided slice in two axes and one pad.
    assert (kinds.count("Slice"), kinds.count("Pad")) == (4, 2)


def test_the_seed_decides_the_weights_and_leaves_torch_alone() -> None:
    row = builtin.load("digits_cnn")
    state = torch.random.get_rng_state()
    first, again, other = (row.factory(seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])

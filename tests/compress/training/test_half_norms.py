"""Batch norms of a network that computes in float16 between a Cast of its input and a Cast of its output."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import InvalidInput
from compress.graph import fold
from compress.graph.onnxruntime import run_onnxruntime
from compress.importing.agreement import FLOOR, relative_difference
from compress.importing.normalise import load_network
from compress.network import Network
from compress.training import restate

IMAGES = np.random.default_rng(0).standard_normal((64, 1, 8, 8), np.float32)


class _Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (1, 8):
            layers += [nn.Conv2d(width, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.body(images.half()).float()
        return found


def _network() -> Network:
    """The network as torch exports it; its norms are far from the images."""
    torch.manual_seed(0)
    module = _Half()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 4, 9)
            nn.init.uniform_(layer.weight, 1, 20)
    module.body.half()
    file = io.BytesIO()
    axes = {"image": {0: "batch"}, "scores": {0: "batch"}}
    torch.onnx.export(
        module.eval(),
        (torch.zeros(1, 1, 8, 8),),
        file,
        dynamo=False,
        opset_version=17,
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes=axes,
    )
    return load_network(file.getvalue())


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    """The network, on a runtime whose measured noise happens to be 0, as it is if its optimiser changes nothing."""
    monkeypatch.setattr(fold, "runtime_noise", lambda model, inputs: {"scores": 0.0})
    return _network()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_norms_of_a_half_network_are_moved_within_the_rounding_of_float16(network: Network) -> None:
    moved = restate.restated(network, IMAGES)
    assert moved is not network
    outputs = [run_onnxruntime(each, IMAGES[:8])["scores"] for each in (moved, network)]
    assert outputs[1].dtype == np.float32
    assert FLOOR["float32"] < relative_difference(*outputs) < FLOOR["float16"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_wrong_norm_of_a_half_network_is_still_found(network: Network) -> None:
    name = next(name for name in network.constants if name.endswith("8.bias"))
    wrong = network.with_constants({name: network.constants[name] + np.float16(9)})
    with pytest.raises(InvalidInput, match="cannot be moved without loss"):
        fold.check_same_function(wrong, network, IMAGES[:8], "batch norms cannot be moved without loss")

"""Networks of the families that people bring are taken, cut and agree; what has no row stays, with its reason."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_networks import CLASSES, NETWORKS, made

from compress.export import export
from compress.graph.cut import cut
from compress.graph.groups import prunable_blocks
from compress.graph.module import TorchNetwork
from compress.graph.onnxruntime import run_onnxruntime
from compress.importing.agreement import relative_difference
from compress.importing.normalise import load_network
from compress.importing.verify import verify
from service.uploads.checks import model

SIZES = {"inception-v4": 32}
EXPORTED = [
    *((name, "torchscript") for name in NETWORKS),
    *((name, "dynamo") for name in ("vit", "cnn-lstm")),
    *((name, "ours") for name in ("vit", "edgenext", "cnn-gru", "levit")),
]


def shape_of(name: str) -> tuple[int, int, int]:
    return 3, SIZES.get(name, 16), SIZES.get(name, 16)


def exported(name: str, how: str) -> bytes:
    network, shape = made(name), shape_of(name)
    if how == "ours":
        return export(network, shape)
    images, file = torch.zeros(2, *shape), io.BytesIO()
    settings: dict[str, Any] = {"input_names": ["image"], "output_names": ["scores"], "verbose": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "dynamo":
            batch = torch.export.Dim("batch")
            program = torch.onnx.export(network, (images,), dynamo=True, dynamic_shapes=({0: batch},), **settings)
            assert program is not None
            return program.model_proto.SerializeToString()
        axes = {"image": {0: "batch"}, "scores": {0: "batch"}}
        torch.onnx.export(network, (images,), file, dynamo=False, opset_version=17, dynamic_axes=axes, **settings)
    return file.getvalue()


@pytest.mark.parametrize(("name", "how"), EXPORTED)
def test_a_family_is_taken_cut_and_agrees(name: str, how: str, tmp_path: Path) -> None:
    (tmp_path / "network.onnx").write_bytes(exported(name, how))
    answer = model.run({"path": str(tmp_path / "network.onnx"), "preprocessing": {}, "output": None})
    assert answer["outputs"][0]["shape"][0] == CLASSES
    assert not [text for text in answer["warnings"] if "the rule for" in text]
    assert all(group["reason"] for group in answer["groups"] if not group["prunable"])

    network = load_network(tmp_path / "network.onnx")
    images = np.random.default_rng(1).normal(size=(4, *shape_of(name))).astype(np.float32)
    with torch.no_grad():
        truth = made(name)(torch.from_numpy(images)).numpy()
    assert relative_difference(run_onnxruntime(network, images)[network.output_name], truth) < 1e-4

    smaller = cut(network, {block.name: np.arange(block.width // 2, block.width) for block in prunable_blocks(network)})
    verify(smaller, images)
    again = load_network(smaller.save())
    assert again.save() == smaller.save()
    with torch.no_grad():
        seen = TorchNetwork(again).eval()(torch.from_numpy(images)).numpy()
    assert relative_difference(seen, run_onnxruntime(smaller, images)[network.output_name]) < 1e-4


@pytest.mark.parametrize("name", ["deeplab", "cnn-lstm", "cnn-gru", "residual-attention", "levit", "inception-v4"])
def test_what_comes_before_the_unknown_can_be_cut(name: str) -> None:
    assert prunable_blocks(load_network(exported(name, "torchscript")))

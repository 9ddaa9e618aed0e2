"""Inputs with the channels last, as Keras exports have them: found from the graph, and fed as they want it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_files import write_npz
from onnx_graphs import Graph

from compress.data.dataset import Part, load_dataset
from compress.data.preprocessing import Preprocessing, preprocess
from compress.graph.module import TorchNetwork
from compress.importing.input_layout import image_shape, input_layout
from compress.network import Network
from compress.training.fit import fit
from compress.training.recipe import Recipe


def keras(channels: int = 3, *, reshape: bool = False, scaled: bool = False) -> Network:
    """(16, 8, channels): a leading Transpose to channels first, a convolution, and back for the Flatten."""
    graph = Graph(16, 8, channels)
    image = "image"
    if scaled:
        image = graph.op("Mul", image, graph.constant("scale", np.float32(2)))
    if reshape:
        turned = graph.op("Reshape", image, graph.ints("target", -1, 1, 16, 8))
    else:
        turned = graph.op("Transpose", image, perm=[0, 3, 1, 2])
    made = graph.op("Relu", graph.conv(turned, "conv", channels, 6))
    flat = graph.op("Flatten", graph.op("Transpose", graph.op("GlobalAveragePool", made), perm=[0, 2, 3, 1]))
    return graph.network(graph.gemm(flat, "head", 6, 5))


def dense(*shape: int) -> Network:
    """Nodes that say nothing about axes."""
    graph = Graph(*shape)
    return graph.network(graph.gemm(graph.op("Flatten", "image"), "head", int(np.prod(shape)), 5))


def plain(*shape: int) -> Network:
    graph = Graph(*shape)
    return graph.network(graph.head(graph.conv("image", "conv", shape[0], 6), 6))


@pytest.mark.parametrize(
    ("network", "layout", "shape"),
    [
        (keras(), "NHWC", (3, 16, 8)),
        (keras(scaled=True), "NHWC", (3, 16, 8)),
        (keras(1, reshape=True), "NHWC", (1, 16, 8)),
        (keras(4), "NHWC", (4, 16, 8)),
        (dense(16, 8, 3), "NHWC", (3, 16, 8)),
        (dense(3, 16, 8), "NCHW", (3, 16, 8)),
        (plain(3, 16, 8), "NCHW", (3, 16, 8)),
        (plain(16, 8, 3), "NCHW", (16, 8, 3)),
        (plain(1, 16, 1), "NCHW", (1, 16, 1)),
    ],
)
def test_the_graph_says_which_axis_is_which(network: Network, layout: str, shape: tuple[int, ...]) -> None:
    assert (input_layout(network), image_shape(network)) == (layout, shape)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pixels_are_the_same_in_both_layouts(dtype: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3)).astype(dtype)
    settings = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), order="BGR")
    first, last = (preprocess(images, settings, layout) for layout in ("NCHW", "NHWC"))
    assert last.shape == images.shape
    assert last.flags.c_contiguous
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), last)


def test_a_network_with_channels_last_trains_on_its_data(tmp_path: Path) -> None:
    """Green images are of one class, red ones of the other: learned only if channels are channels."""
    network = keras()
    labels = np.arange(64) % 2
    images = np.random.default_rng(0).integers(0, 60, (64, 16, 8, 3), dtype=np.uint8)
    images[np.arange(64), :, :, labels] += 150
    path = write_npz(tmp_path / "a.npz", x_train=images, y_train=labels)
    dataset = load_dataset(path, input_shape=image_shape(network))
    assert dataset.image_shape == (16, 8, 3)
    part = Part(images, labels.astype(np.int64))
    for step in fit(network, part, Preprocessing(), Recipe(epochs=20, batch=16, lr=0.1, augment="none")):
        if step.step == step.steps - 1:
            network = step.network()
    pixels = torch.from_numpy(preprocess(images, Preprocessing(), input_layout(network)))
    with torch.no_grad():
        found = TorchNetwork(network).eval()(pixels).argmax(1).numpy()
    assert (found == labels).mean() > 0.95

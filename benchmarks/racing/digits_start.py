"""A start for trying the stages out in seconds: a small network trained here on 8x8 digits, and a simulated device."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing, preprocess
from compress.importing.normalise import load_network
from compress.network import Network
from compress.training.fit import fit
from compress.training.recipe import Recipe
from hw_profiles.runtimes.simulated.engine import SimulatedRuntime
from hw_profiles.timing.protocol import BurstProtocol
from racing.start import Labelled, Start
from workers.plan import Effort

WIDTHS = (16, 32, 32)
PARTS = {"train": slice(0, 900), "val": slice(900, 1300), "test": slice(1300, None)}
RECIPE = Recipe(epochs=4, batch=32, lr=0.05, augment="none")
FEW_BURSTS = BurstProtocol(min_rounds=5, max_rounds=5, round_s=0.0)


def digits() -> Start:
    """Train the network and return the start."""
    raw = load_digits()
    images, labels = np.round(raw.images * 15).astype(np.uint8)[..., None], raw.target.astype(np.int64)

    def test() -> Labelled:
        return preprocess(images[PARTS["test"]], Preprocessing()), labels[PARTS["test"]]

    return Start(
        name="digits",
        model=_trained(Part(images[PARTS["train"]], labels[PARTS["train"]])).save(),
        data=_file(images, labels),
        data_name="digits.npz",
        runtime=SimulatedRuntime(overhead_us=1.0, contention=1.0),
        test=test,
        effort=Effort(renormalise_images=64, accuracy_images=200, calibration_networks=4, rows=60),
        kernels=FEW_BURSTS,
        whole=FEW_BURSTS,
        step=FEW_BURSTS,
        epochs=1,
        augment="none",
    )


def _file(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
    arrays = {f"x_{name}": images[rows] for name, rows in PARTS.items()}
    arrays |= {f"y_{name}": labels[rows] for name, rows in PARTS.items()}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _trained(part: Part) -> Network:
    network = _drawn()
    for step in fit(network, part, Preprocessing(), RECIPE):
        if step.step == step.steps - 1:
            network = step.network()
    return network


def _drawn() -> Network:
    """Return convolutions with batch norms on (1, 8, 8), one residual add, a pool and a linear layer."""
    rng, constants, nodes, read, inputs = np.random.default_rng(0), [], [], "image", 1
    for i, width in enumerate(WIDTHS):
        weight = rng.standard_normal((width, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
        constants.append(numpy_helper.from_array(weight.astype(np.float32), f"conv{i}.weight"))
        norm = {"gamma": 1.0, "beta": 0.0, "mean": 0.0, "variance": 1.0}
        constants += [numpy_helper.from_array(np.full(width, v, np.float32), f"norm{i}.{k}") for k, v in norm.items()]
        stride = [2, 2] if i == 1 else [1, 1]
        nodes += [
            helper.make_node("Conv", [read, f"conv{i}.weight"], [f"a{i}"], f"conv{i}", pads=[1] * 4, strides=stride),
            helper.make_node("BatchNormalization", [f"a{i}", *(f"norm{i}.{k}" for k in norm)], [f"b{i}"], f"norm{i}"),
        ]
        last = i == len(WIDTHS) - 1
        nodes += [helper.make_node("Add", [f"b{i}", read], [f"s{i}"], f"add{i}")] if last else []
        nodes += [helper.make_node("Relu", [f"s{i}" if last else f"b{i}"], [f"r{i}"], f"relu{i}")]
        read, inputs = f"r{i}", width
    head = (0.1 * rng.standard_normal((10, inputs))).astype(np.float32)
    constants += [
        numpy_helper.from_array(head, "head.weight"),
        numpy_helper.from_array(np.zeros(10, np.float32), "head.bias"),
    ]
    nodes += [
        helper.make_node("GlobalAveragePool", [read], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "head.weight", "head.bias"], ["logits"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return load_network(model.SerializeToString())

"""The trained LeNets and their digits, which several benchmarks start from.

Validation is rows 0-1,999 of the official test digits, test is rows 2,000-9,999, as for CIFAR-10, because the network
has seen all training digits. Settings are tuned on validation, and published figures come from test. The networks'
sizes and accuracies are rows of kind `original` in results/lenet_compression.jsonl.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from resnet20 import shared

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing, preprocess
from compress.importing.normalise import load_network
from compress.network import Network

NETWORKS = {"lenet5": "lenet5-mnist.onnx", "lenet300": "lenet300-mnist.onnx"}
PIXELS = Preprocessing()
SPLITS = {"validation": slice(0, 2000), "test": slice(2000, None)}


@cache
def digits() -> dict[str, NDArray[np.generic]]:
    """Return x_train, x_test (10000, 28, 28) uint8 and their labels."""
    with np.load(shared("mnist10k.npz"), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def network(name: str = "lenet5") -> Network:
    """Return the trained network with this name, which must be one of NETWORKS."""
    return load_network(shared(f"models/{NETWORKS[name]}"))


def training() -> Part:
    """Return the 10,000 training digits."""
    return Part(digits()["x_train"][..., None], digits()["y_train"].astype(np.int64))


def images(split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return preprocessed images (N, 1, 28, 28) and labels (N,) of validation or test."""
    rows = SPLITS[split]
    return preprocess(digits()["x_test"][rows][..., None], PIXELS), digits()["y_test"][rows].astype(np.int64)

"""The trained ResNet-20 and its data, which several benchmarks start from, and the spaces cut from it."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from compress.data.dataset import Dataset, load_dataset
from compress.data.preprocessing import Preprocessing, preprocess
from compress.evidence import Evidence
from compress.graph.fold import fold_norms
from compress.graph.groups import prunable_blocks
from compress.graph.rewrites import rewritten
from compress.importing.normalise import load_network
from compress.network import Network
from compress.scheme import Scheme
from hw_profiles.tables.kernel_classes import KernelClasses
from search.space import Choice, Levelled, Value
from workers.problem.builder import ProblemBuilder
from workers.problem.kernel_space import KernelSpace
from workers.problem.widths import block_widths

RUNTIME = "onnxruntime"
SPLITS = {"validation": slice(0, 2000), "test": slice(2000, None)}
PREPROCESSING = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "order": "RGB"}
Images = NDArray[np.float32]


def shared(name: str) -> Path:
    """Return a file of the folder beside the repository, or of $NETLATHE_SHARED."""
    root = Path(os.environ.get("NETLATHE_SHARED") or Path(__file__).parents[2] / "shared")
    path = root / "data" / name
    if not path.is_file():
        raise SystemExit(f"{path} is missing: set NETLATHE_SHARED to the folder that has data/{name}")
    return path


def model_path() -> Path:
    """Return the path of ResNet-20 for CIFAR-10, with its batch norms folded."""
    return shared("models/resnet20-cifar10.onnx")


def with_norms() -> Network:
    """Return the same network before its batch norms were folded."""
    return load_network(shared("models/resnet20-cifar10-bn.onnx"))


@cache
def official(split: str) -> tuple[Images, NDArray[np.int64]]:
    """Return preprocessed images (N, 3, 32, 32) and labels (N,): rows 0-1,999 of the official test images are
    validation, rows 2,000-9,999 test.
    """
    rows = SPLITS[split]
    table = pq.read_table(shared("cifar10-test.parquet"))
    pixels = [Image.open(io.BytesIO(each["bytes"])).convert("RGB") for each in table["img"].to_pylist()[rows]]
    labels = np.array(table["label"].to_pylist()[rows], dtype=np.int64)
    return preprocess(np.stack([np.asarray(each) for each in pixels]), Preprocessing.from_json(PREPROCESSING)), labels


def fast_form() -> Network:
    """Return the form whose widths are tabulated: batch norms folded, option-A shortcuts as strided convolutions."""
    return rewritten(fold_norms(load_network(model_path())))


def dataset(cache: Path) -> Dataset:
    """Return the small CIFAR-10, decoded once into `cache`."""
    return load_dataset(shared("cifar10-small.parquet"), input_shape=(3, 32, 32), cache=cache)


def images(data: Dataset, part: str, count: int, seed: int = 0) -> tuple[Images, NDArray[np.int64]]:
    """Return preprocessed images (N, 3, 32, 32) and labels (N,) of a part."""
    sample = data.sample(part, count, seed)
    return preprocess(np.asarray(sample.images), Preprocessing.from_json(PREPROCESSING)), sample.labels


def builder(methods: Sequence[str], classes: KernelClasses) -> ProblemBuilder:
    """Return a builder of the problem: these methods' knobs and all their kernels, on a device with these kernel
    classes.
    """
    network = fast_form()
    blocks = prunable_blocks(network)
    # int8 needs ranges from some images; timings do not depend on which images these are.
    noise = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    evidence = Evidence(images=noise, importance={block.name: np.ones(block.width) for block in blocks})
    scheme = Scheme.of([(name, {}) for name in methods])
    taken = {knob.name: knob.options for knob in scheme.knobs(network, {}) if isinstance(knob, Choice) and knob.ordered}
    widths = block_widths(blocks, [classes], taken=taken)
    return ProblemBuilder(KernelSpace(network, scheme, widths, evidence, [RUNTIME]))


def drawn(knobs: Sequence[Levelled], rng: np.random.Generator, lean: bool) -> dict[str, Value]:
    """Draw random widths: each knob separately, or all knobs leaning towards small or large widths, which spreads the
    sums.
    """
    towards = rng.uniform() if lean else 0.0
    share = 0.4 if lean else 1.0
    found: dict[str, Value] = {}
    for knob in knobs:
        at = (1 - share) * towards + share * rng.uniform()
        found[knob.name] = knob.value(min(int(at * knob.level_count), knob.level_count - 1))
    return found

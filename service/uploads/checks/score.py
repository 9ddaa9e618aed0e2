"""Score an original: count the validation samples that a network classifies as labelled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compress.errors import InvalidInput

if TYPE_CHECKING:
    from compress.data.dataset import Part
    from compress.data.preprocessing import Preprocessing
    from compress.network import Network

SAMPLES = 1000
"""Number of validation samples (or all, if there are fewer); the contract asks for at least 500."""
BATCH = 100
BEARABLE = 0.01
"""Accuracy that may be lost by switching batch norms from training mode to inference mode."""


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Map `{model, preprocessing, output, dataset, digest, layout, classes, cache, seed}` to `{right, count, classes}`.

    Raises:
        InvalidInput: the data cannot be read or do not fit the network, its outputs are not finite, or it is accurate
            only with the statistics of a batch.
    """
    from compress.data.dataset import load_dataset
    from compress.data.preprocessing import Preprocessing
    from compress.graph.outputs import decided
    from compress.importing.batch_statistics import has_training_norms
    from compress.importing.input_layout import image_shape
    from compress.importing.normalise import load_network
    from compress.network import parse

    # Normalised as in a job, so that repairs made at the upload apply here, too.
    path = Path(request["model"])
    network = load_network(path)
    preprocessing = Preprocessing.from_json(request["preprocessing"])
    dataset = load_dataset(
        Path(request["dataset"]),
        layout=request["layout"],
        classes=request["classes"],
        preprocessing=preprocessing,
        input_shape=image_shape(network),
        seed=request["seed"],
        cache=Path(request["cache"]),
        digest=request["digest"],
    )
    network = decided(network, request["output"], dataset.classes)
    part = dataset.sample("validation", SAMPLES, request["seed"])
    right = _right(network, part, preprocessing)
    if has_training_norms(parse(path)):
        _check_mode(
            right,
            _right(
                decided(load_network(path, as_exported=True), request["output"], dataset.classes), part, preprocessing
            ),
        )
    return {"right": int(right.sum()), "count": len(part), "classes": dataset.classes}


def _right(network: Network, part: Part, preprocessing: Preprocessing) -> NDArray[np.bool_]:
    """Return a boolean array (N,): True for each sample that is classified as labelled.

    Raises:
        InvalidInput: outputs are not finite.
    """
    from compress.data.preprocessing import preprocess
    from compress.graph.onnxruntime import session
    from compress.importing.input_layout import input_layout

    running, made, layout = session(network.save()), [], input_layout(network)
    for start in range(0, len(part), BATCH):
        images = preprocess(part.images[start : start + BATCH], preprocessing, layout)
        made.append(running.run([network.output_name], {network.input_name: images})[0].reshape(len(images), -1))
    scores = np.concatenate(made)
    broken = int((~np.isfinite(scores).all(axis=1)).sum())
    if broken:
        raise InvalidInput(
            "model",
            network.output_name,
            f"its output {network.output_name} is not finite (NaN or infinite) on {broken} of {len(part)} validation "
            "samples",
        )
    classified: NDArray[np.bool_] = scores.argmax(axis=1) == part.labels
    return classified


def _check_mode(now: NDArray[np.bool_], exported: NDArray[np.bool_]) -> None:
    """Raise InvalidInput if inference mode of the batch norms costs more accuracy than chance explains."""
    lost = (int(exported.sum()) - int(now.sum())) / len(now)
    error = float((now != exported).sum()) ** 0.5 / len(now)
    if lost > max(BEARABLE, 2 * error):
        raise InvalidInput(
            "model",
            "training_mode",
            f"its batch norms were exported in training mode: with the statistics of {min(BATCH, len(now))} samples it "
            f"classifies {exported.mean():.1%} as labelled, with its stored statistics, which inference uses, "
            f"{now.mean():.1%}; export the network in eval mode (torch: model.eval())",
        )

"""Score an original: how many validation samples a network classifies as they are labelled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SAMPLES = 1000
"""Validation samples (all, where there are fewer); the contract asks for at least 500."""
BATCH = 100


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """`{model, preprocessing, output, dataset, digest, layout, classes, cache, seed}` -> `{right, count, classes}`.

    Raises:
        InvalidInput: the data cannot be read or do not fit the network.
    """
    from compress.data import load_dataset
    from compress.input_layout import image_shape, input_layout
    from compress.network import Network
    from compress.outputs import decided
    from compress.preprocessing import Preprocessing, preprocess
    from compress.verify import session

    # As a job reads it: normalised, so that what was mended at the upload is mended here.
    network = Network.load(Path(request["model"]))
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
    running = session(network.save())
    part = dataset.sample("validation", SAMPLES, request["seed"])
    right, layout = 0, input_layout(network)
    for start in range(0, len(part), BATCH):
        images = preprocess(part.images[start : start + BATCH], preprocessing, layout)
        logits = running.run([network.output_name], {network.input_name: images})[0].reshape(len(images), -1)
        right += int((logits.argmax(axis=1) == part.labels[start : start + BATCH]).sum())
    return {"right": right, "count": len(part), "classes": dataset.classes}

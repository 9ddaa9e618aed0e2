"""Score an original: how many validation samples a network classifies as they are labelled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SAMPLES = 1000
"""Validation samples (all, where there are fewer); the contract asks for at least 500."""
BATCH = 100


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """`{model, preprocessing, dataset, digest, layout, classes, cache, seed}` -> `{right, count, classes}`.

    Raises:
        InvalidInput: the data cannot be read or do not fit the network.
    """
    import onnxruntime

    from compress.data import load_dataset
    from compress.preprocessing import Preprocessing, preprocess

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    running = onnxruntime.InferenceSession(request["model"], options, providers=["CPUExecutionProvider"])
    inputs, output = running.get_inputs()[0], running.get_outputs()[0].name
    preprocessing = Preprocessing.from_json(request["preprocessing"])
    dataset = load_dataset(
        Path(request["dataset"]),
        layout=request["layout"],
        classes=request["classes"],
        preprocessing=preprocessing,
        input_shape=[int(size) for size in inputs.shape[1:]],
        seed=request["seed"],
        cache=Path(request["cache"]),
        digest=request["digest"],
    )
    part = dataset.sample("validation", SAMPLES, request["seed"])
    fixed = inputs.shape[0] if isinstance(inputs.shape[0], int) else None
    batch = fixed or BATCH
    count = len(part) - len(part) % fixed if fixed else len(part)  # a fixed batch cannot take the rest
    right = 0
    for start in range(0, count, batch):
        images = preprocess(part.images[start : start + batch], preprocessing)
        logits = running.run([output], {inputs.name: images})[0].reshape(len(images), -1)
        right += int((logits.argmax(axis=1) == part.labels[start : start + batch]).sum())
    return {"right": right, "count": count, "classes": dataset.classes}

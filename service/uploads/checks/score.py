"""Score an original: rate a network's outputs on validation samples, as the job's task defines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.errors import InvalidInput
from search.metrics import METRICS

if TYPE_CHECKING:
    from compress.data.dataset import Part
    from compress.data.preprocessing import Preprocessing
    from compress.network import Network
    from compress.scoring.difference import Scores
    from compress.task import Task
    from search.metric import Metric

SAMPLES = 1000
"""Number of validation samples; if there are fewer, all are used. The contract asks for at least 500."""
BATCH = 100
BEARABLE = 0.01
"""Largest loss of mean score that is accepted when batch norms switch from training mode to inference mode."""


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Map `{model, preprocessing, output, dataset, digest, layout, classes, cache, seed, task}` to `{right, count,
    classes, chance, task}`.

    Raises:
        InvalidInput: the data cannot be read or do not fit the network, the network's outputs are not finite, or the
            network is accurate only with the statistics of a batch.
    """
    from compress.data.dataset import load_dataset
    from compress.data.preprocessing import Preprocessing
    from compress.graph.outputs import decided
    from compress.importing.batch_statistics import has_training_norms
    from compress.importing.input_layout import image_shape
    from compress.importing.normalise import load_network
    from compress.network import parse
    from compress.tasks import load

    # The network is normalised as in a job, so that the repairs made at the upload apply here, too.
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
        task=request["task"],
    )
    task = load(request["task"])
    network = decided(network, request["output"], task, dataset.targets)
    part = dataset.sample("validation", SAMPLES, request["seed"])
    scores = _scores(task, network, part, preprocessing)
    if has_training_norms(parse(path)):
        exported = decided(load_network(path, as_exported=True), request["output"], task, dataset.targets)
        _check_mode(METRICS[task.metric], scores, _scores(task, exported, part, preprocessing))
    chance = task.chance(dataset.targets, part.labels)
    found = {"right": float(scores.sum()), "count": len(part), "classes": dataset.classes}
    return {**found, "chance": chance, "task": task.name}


def _scores(task: Task, network: Network, part: Part, preprocessing: Preprocessing) -> Scores:
    """Return (N,) scores, one for each sample's output.

    Raises:
        InvalidInput: outputs are not finite.
    """
    from compress.data.preprocessing import preprocess
    from compress.graph.onnxruntime import session
    from compress.importing.input_layout import input_layout

    running, made, layout = session(network.save()), [], input_layout(network)
    for start in range(0, len(part), BATCH):
        images = preprocess(part.images[start : start + BATCH], preprocessing, layout)
        made.append(running.run([network.output_name], {network.input_name: images})[0])
    outputs = np.concatenate(made)
    broken = int((~np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)).sum())
    if broken:
        raise InvalidInput(
            "model",
            network.output_name,
            f"its output {network.output_name} is not finite (NaN or infinite) on {broken} of {len(part)} validation "
            "samples",
        )
    return task.score(outputs, part.labels)


def _check_mode(metric: Metric, now: Scores, exported: Scores) -> None:
    """Raise InvalidInput if the score with batch norms in inference mode is lower than chance can explain."""
    lost = float(exported.mean() - now.mean())
    error = float(np.square(now - exported).sum()) ** 0.5 / len(now)
    if lost > max(BEARABLE, 2 * error):
        raise InvalidInput(
            "model",
            "training_mode",
            f"its batch norms were exported in training mode: with the statistics of {min(BATCH, len(now))} samples "
            f"its {metric.heading} is {metric.told(exported.mean())}, but with its stored statistics, as in inference, "
            f"it is {metric.told(now.mean())}; export the network in eval mode (torch: model.eval())",
        )

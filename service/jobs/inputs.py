"""Find the model and the data set of a job, and check that they are ready and fit each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compress.tasks import DEFAULT
from service.errors import InvalidInput
from service.store.base import Tx
from service.store.uploads import datasets, models
from service.store.uploads.datasets import Dataset
from service.store.uploads.models import Model

if TYPE_CHECKING:
    from compress.task import Task


def model_of(tx: Tx, ref: str) -> Model:
    model = models.find(tx, ref)
    if model is None:
        raise InvalidInput("model", ref, "there is no such model")
    _check_ready("model", ref, model.state)
    return model


def dataset_of(tx: Tx, ref: str) -> Dataset:
    dataset = datasets.find(tx, ref)
    if dataset is None:
        raise InvalidInput("dataset", ref, "there is no such data set")
    _check_ready("dataset", ref, dataset.state)
    return dataset


def _check_ready(field: str, ref: str, state: str) -> None:
    if state == "checking":
        raise InvalidInput(field, ref, "is still being checked; submit the job when it is ready")
    if state != "ready":
        raise InvalidInput(field, ref, "was refused by its checks")


def check_fit(model: Model, dataset: Dataset, task: Task) -> list[str]:
    """Check that the data fit the model; return a note about the scored output if it was chosen only because it fits
    the data.

    Raises:
        InvalidInput: the images do not fit the model's input, or the classes do not fit its scored output.
    """
    from compress.data.checks import check_fits
    from compress.data.preprocessing import Preprocessing
    from compress.task import TargetKind

    shape = tuple(dataset.image_shape)
    image_shape = (shape[0], shape[1], shape[2]) if shape else None
    shapes = {each["name"]: tuple(each["shape"]) for each in model.outputs}
    role = next((each["name"] for each in model.outputs if each.get("role") == "scored"), None)
    known = role if task.name == DEFAULT else model.output  # an uploaded model has the output roles of the default task
    targets = TargetKind(dataset.classes, tuple(dataset.target_shape))
    scored = task.check(shapes, known, targets, model.name)  # first, because other images would not help
    check_fits(image_shape, Preprocessing.from_json(model.preprocessing), _image_shape(model))
    kept = [name for name in shapes if name != scored]
    if known or not kept:
        return []
    return [f"output {scored} is scored, because only this output fits {targets}; kept unchanged: {', '.join(kept)}"]


def _image_shape(model: Model) -> Sequence[int]:
    """Shape (C, H, W) of the images that the model takes."""
    if any(each["layout"] == "NHWC" for each in model.inputs):
        height, width, channels = model.input_shape
        return (channels, height, width)
    return model.input_shape[-3:]

"""Classification: what is right, what a data set may hold, and the same numbers as torch's own functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from compress import tasks
from compress.data.formats.source import Labels
from compress.errors import InvalidInput
from compress.scoring.intervals import tango, wilson
from compress.task import TargetKind, Taught
from compress.tasks.classification import TASK
from compress.testing import TaskContract
from search.discovery import module_names
from search.metrics import METRICS

RNG = np.random.default_rng(0)
LABELS = np.arange(40) % 4
OUTPUTS = (2.0 * np.eye(4)[LABELS] + RNG.normal(0, 1.5, (40, 4))).astype(np.float32)


class TestClassification(TaskContract):
    task = TASK
    labels = LABELS
    outputs = OUTPUTS


def test_every_task_of_ours_keeps_the_contract_and_has_a_scored_metric() -> None:
    assert tasks.names()[0] == tasks.DEFAULT == "classification"
    for name in module_names("compress.tasks"):
        assert "(TaskContract)" in (Path(__file__).parent / f"test_{name}.py").read_text()
        row = METRICS[tasks.load(name).metric]
        assert (row.scored, row.goal, row.highest) == (True, "max", 1.0)
        assert not METRICS[row.on_test.name].decides


def test_an_unknown_task_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"task: must be one of classification \(got 'poetry'\)"):
        tasks.load("poetry")


def test_a_sample_is_right_or_wrong_whatever_shape_its_scores_have() -> None:
    scores = TASK.score(np.array([[0.1, 0.9], [0.8, 0.2]], np.float32).reshape(2, 2, 1, 1), np.array([1, 1]))
    assert scores.tolist() == [1.0, 0.0]


def test_intervals_are_wilsons_and_tangos() -> None:
    first, second = np.array([1.0] * 90 + [0.0] * 10), np.array([1.0] * 85 + [0.0] * 13 + [1.0] * 2)
    assert TASK.interval(first) == wilson(90, 100)
    found = TASK.compare(first, second)
    assert (found.mean, (found.low, found.high), found.count) == (0.03, tango(5, 2, 100), 100)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_is_cross_entropy_and_the_divergence_from_the_teacher(reduction: str) -> None:
    made, wanted, shown = torch.from_numpy(OUTPUTS), torch.from_numpy(LABELS), torch.from_numpy(OUTPUTS).flip(1)
    entropy = F.cross_entropy(made, wanted, reduction=reduction)
    assert torch.equal(TASK.loss(made, wanted, reduction=reduction), entropy)  # type: ignore[arg-type]
    kept, taught = F.softmax(made / 3.0, 1), F.softmax(shown / 3.0, 1)
    apart = (taught * (taught.log() - kept.log())).sum() / (len(made) if reduction == "mean" else 1)
    found = TASK.loss(made, wanted, Taught(shown, 0.7, 3.0), reduction)  # type: ignore[arg-type]
    assert float(found) == pytest.approx(float(0.3 * entropy + 0.7 * 9.0 * apart), rel=1e-5)


def test_what_a_network_predicts_is_its_largest_logit() -> None:
    assert TASK.predicted(torch.tensor([[0.0, 2.0], [3.0, 1.0]])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 2), np.float32), r"labels of train must be one class number per image; .*\.argmax\(axis=1\)"),
        (np.array([0.0, 1.0, 2.0, 0.0]), r"integers from 0: convert them with \.astype\(\"int64\"\)"),
        (np.array([0, 1, -1, 0]), "marks images with no label: leave them out"),
        (np.array([0.0, 1.5, 2.0, 0.0]), "labels of train must be integers from 0"),
        (np.array([0, 1, -1, 0]), "1 labels of train are outside"),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        TASK.targets(Labels(values, "y_train"), 4, "train")
    assert caught.value.field == "y_train"


def test_data_whose_labels_are_arrays_are_refused_with_the_words_of_the_upload() -> None:
    with pytest.raises(InvalidInput, match="labels of train must be one class number per image") as caught:
        TASK.check({"logits": (2,)}, "logits", TargetKind(0, (2,)))
    assert (caught.value.field, caught.value.value) == ("dataset", [2])


def test_labels_above_the_scored_classes_are_refused() -> None:
    said = r"labels go up to 10 and the model scores 10 classes \(0..9\); if your labels begin at 1, subtract 1"
    with pytest.raises(InvalidInput, match=said) as caught:
        TASK.check({"logits": (10,)}, None, TargetKind(11))
    assert (caught.value.field, caught.value.value) == ("dataset", 11)


def test_classes_are_counted_unless_they_are_told() -> None:
    targets, labels = {"train": np.array([0, 2, 0])}, {"train": Labels(np.array([0, 2, 0]), "y_train")}
    assert TASK.kind(targets, labels, None, ()) == (
        TargetKind(3),
        ("classes without a training image: 1, e.g. class 1",),
    )
    assert TASK.kind(targets, labels, 5, ())[0] == TargetKind(5)
    assert TASK.kind(targets, labels, None, ("a", "b", "c", "d"))[0] == TargetKind(4)
    with pytest.raises(InvalidInput, match="all training images are of one class"):
        TASK.kind({"train": np.array([1, 1])}, labels, None, ())

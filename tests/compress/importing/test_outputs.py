"""Networks with several outputs: which one is scored, and that training keeps the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from data_files import pixels
from onnx_graphs import Graph

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing, preprocess
from compress.errors import InvalidInput
from compress.graph.onnxruntime import run_onnxruntime
from compress.graph.outputs import check_output, decided, output_shapes, scored_at_upload, scored_for
from compress.importing.agreement import relative_difference
from compress.importing.normalise import load_network
from compress.network import Network
from compress.task import TargetKind
from compress.tasks.classification import TASK
from compress.training.fit import fit
from compress.training.kept import kept_outputs
from compress.training.recipe import Recipe

EMBEDDING, SCORES, MAP = {"embedding": (12,)}, {"scores": (10,)}, {"map": (6, 8, 8)}


def two_headed() -> Network:
    """The embedding that the scores are made of comes first."""
    graph = Graph(3, 8, 6)
    made = graph.op("Relu", graph.conv("image", "conv", 3, 12))
    embedding = graph.op("Flatten", graph.op("GlobalAveragePool", made))
    return graph.network(embedding, graph.gemm(embedding, "head", 12, 3))


def test_the_only_output_that_can_be_scored_is() -> None:
    assert scored_at_upload(SCORES) == "scores"
    assert scored_at_upload(MAP | SCORES) == "scores"
    assert scored_for(MAP | SCORES, 7) == "scores"
    assert scored_at_upload(MAP) is None


def test_the_classes_of_the_data_tell_outputs_apart() -> None:
    assert scored_at_upload(EMBEDDING | SCORES) is None
    assert scored_for(EMBEDDING | SCORES, 10) == "scores"
    assert scored_for(EMBEDDING | SCORES, 12) == "embedding"
    assert scored_for(EMBEDDING | SCORES, 11) == "embedding"


@pytest.mark.parametrize("classes", [9, 13])
def test_what_the_classes_leave_open_is_asked_for(classes: int) -> None:
    with pytest.raises(InvalidInput, match=r"embedding \(batch, 12\), scores \(batch, 10\)") as caught:
        scored_for(EMBEDDING | SCORES, classes)
    assert caught.value.field == "model"


def test_outputs_that_are_alike_are_asked_for_at_the_upload() -> None:
    with pytest.raises(InvalidInput, match=r"scores \(batch, 10\), auxiliary \(batch, 10\)") as caught:
        scored_at_upload(SCORES | {"auxiliary": (10,)} | EMBEDDING)
    assert (caught.value.field, caught.value.value) == ("output", ["scores", "auxiliary"])


def test_a_name_that_is_asked_for_is_checked() -> None:
    check_output(EMBEDDING | SCORES, "scores")
    with pytest.raises(InvalidInput, match="it has embedding, map"):
        check_output(EMBEDDING | MAP, "scores")
    with pytest.raises(InvalidInput, match=r"map \(batch, 6, 8, 8\)"):
        check_output(EMBEDDING | MAP, "map")


def test_shapes_that_cannot_be_scores_are_an_error() -> None:
    with pytest.raises(InvalidInput, match="no output of the model has one score per class"):
        scored_for(MAP | {"single": (1,)}, 2)


def test_the_choice_is_kept_with_the_file() -> None:
    network = two_headed()
    embedding, scores = network.outputs
    assert (network.output_name, network.scored) == (embedding, None)
    chosen = decided(network, None, TASK, TargetKind(3))
    assert (chosen.output_name, list(chosen.outputs)) == (scores, [embedding, scores])
    again = load_network(chosen.save())
    assert (again.output_name, list(again.outputs)) == (scores, [embedding, scores])
    assert decided(again, None, TASK, TargetKind(3)).save() == chosen.save()
    assert decided(again, embedding, TASK, TargetKind(3)).output_name == embedding
    assert chosen.digest != network.digest
    assert output_shapes(chosen) == {embedding: (12,), scores: (3,)}


def test_one_output_leaves_no_trace() -> None:
    graph = Graph(3, 8, 6)
    network = graph.network(graph.head(graph.conv("image", "conv", 3, 6), 6))
    assert decided(network, None, TASK, TargetKind(5)).save() == network.save()
    assert not network.to_proto().metadata_props


@pytest.mark.parametrize("alpha", [0.0, 0.9])
def test_training_keeps_the_outputs_that_are_not_scored(alpha: float) -> None:
    network = decided(two_headed(), None, TASK, TargetKind(3))
    (embedding,) = kept_outputs(network)
    images = pixels(96)
    labels = np.random.default_rng(1).integers(0, 3, 96)
    recipe = Recipe(epochs=15, batch=16, lr=0.05, augment="none", alpha=alpha)
    shown = preprocess(images, Preprocessing())
    before = run_onnxruntime(network, shown)[embedding]

    def drifted(teacher: Network | None) -> float:
        trained = network
        for step in fit(network, Part(images, labels), Preprocessing(), recipe, teacher):
            if step.step == step.steps - 1:
                trained = step.network()
        return relative_difference(run_onnxruntime(trained, shown)[embedding], before)

    assert drifted(network) < drifted(None) / 3


def test_outputs_that_are_no_numbers_of_an_image_are_not_held() -> None:
    network = two_headed()
    embedding, scores = network.outputs
    whole = {**network.outputs, embedding: replace(network.outputs[embedding], dtype="int64")}
    assert kept_outputs(replace(network, outputs=whole).scoring(scores)) == ()

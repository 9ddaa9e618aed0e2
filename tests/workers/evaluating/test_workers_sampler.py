"""F4: samples of L-C and of direct compression, in their final precision, and what later ones start from."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing, preprocess
from compress.evidence import Evidence
from compress.graph.edit import edited
from compress.network import Network
from compress.task import Targets
from compress.tasks.classification import TASK
from compress.training.fit import Step
from compress.training.recipe import Recipe
from search.candidate import Candidate
from search.evaluation import Status
from search.space import Value
from workers.errors import InvalidInput
from workers.evaluating.evaluate_safely import attempt
from workers.evaluating.evaluation_files import Material
from workers.evaluating.evaluator import EvaluatorFactory
from workers.evaluating.whole_training import TRAININGS, Sampler
from workers.running import durable

Digits = tuple[np.ndarray, np.ndarray]
QUICK = Recipe(epochs=4, batch=32, lr=0.05, augment="none")
WHOLE: Mapping[str, Value] = {"conv0": 8, "conv1": 32, "conv2": 32}


def material(folder: Path, trained: Network, digits: Digits, *methods: str, training: Part | None = None) -> Material:
    images = preprocess(digits[0], Preprocessing())
    made = Material(folder, tuple((name, {}) for name in methods))
    evidence: Evidence = made.scheme.gather(trained, images[:128], Targets(TASK, digits[1][:128]), 0)
    short = Part(digits[0][:512], digits[1][:512])
    ranking = images[900:1300], digits[1][900:1300]
    made.write(trained, ranking, images[:128], evidence, short, Preprocessing(), training)
    return made


def sample(recipe: str, values: Mapping[str, Value], **more: Any) -> Candidate:
    return Candidate(f"{recipe}-sample", values, fidelity="F4", recipe=recipe, **more)


@pytest.mark.parametrize("recipe", ["lc", "direct"])
def test_a_sparse_sample_in_fp16(tmp_path: Path, trained: Network, digits: Digits, recipe: str) -> None:
    made = material(tmp_path, trained, digits, "weight_prune", "fp16")
    metrics, digest = Sampler(made, QUICK)(sample(recipe, {"weight_prune": 0.1, "fp16": "fp16"}))
    weights = sum(value.size for name, value in trained.constants.items() if value.ndim > 1)
    others = 10 + 2 * 72  # biases, and the norms folded into biases
    assert metrics["nonzeros"] <= 0.1 * weights + others
    assert metrics["stored_bytes"] < 0.4 * len(trained.save())
    assert metrics["accuracy"] > 0.6
    assert digest is not None
    kept = made.kept(digest)
    assert kept.digest == digest
    assert {name: value.shape for name, value in kept.constants.items()} == {
        name: value.shape for name, value in trained.constants.items()
    }


@pytest.mark.parametrize("recipe", ["lc", "direct"])
def test_a_sample_of_fewer_channels_in_int8(tmp_path: Path, trained: Network, digits: Digits, recipe: str) -> None:
    made = material(tmp_path, trained, digits, "filter_prune", "int8_ptq")
    values: dict[str, Value] = {"conv0": 6, "conv1": 16, "conv2": 20, "int8_ptq": "int8"}
    metrics, digest = Sampler(made, QUICK)(sample(recipe, values))
    assert metrics["accuracy"] > 0.8
    assert metrics["stored_bytes"] < 0.5 * len(trained.save())
    # L-C trains the whole shapes, whose zeros go last; a network that is cut has nothing for others to start from.
    assert (digest is None) == (recipe == "direct")


def test_channels_go_before_single_weights(tmp_path: Path, trained: Network, digits: Digits) -> None:
    made = material(tmp_path, trained, digits, "filter_prune", "weight_prune")
    halves: dict[str, Value] = {"conv0": 4, "conv1": 16, "conv2": 16, "weight_prune": 1.0}
    dense, _ = Sampler(made, QUICK)(sample("lc", halves))
    sparse, digest = Sampler(made, QUICK)(sample("lc", halves | {"weight_prune": 0.5}))
    biases = 4 + 16 + 16 + 10
    assert sparse["nonzeros"] - biases == pytest.approx(0.5 * (dense["nonzeros"] - biases), abs=2)
    assert digest is None


def test_a_sample_starts_from_an_earlier_one(tmp_path: Path, trained: Network, digits: Digits) -> None:
    made = material(tmp_path, trained, digits, "weight_prune")
    none = Recipe(epochs=0)
    _, digest = Sampler(made, QUICK)(sample("lc", {"weight_prune": 0.1}))
    cold, _ = Sampler(made, none)(sample("direct", {"weight_prune": 0.1}))
    warm, again = Sampler(made, none)(sample("direct", {"weight_prune": 0.1}, weights_from=digest))
    assert warm["accuracy"] > cold["accuracy"] + 0.1
    assert again == digest


@pytest.mark.parametrize("digest", ["0" * 64, "../../material", ""])
def test_weights_that_were_not_kept_are_refused(tmp_path: Path, trained: Network, digits: Digits, digest: str) -> None:
    made = material(tmp_path, trained, digits, "weight_prune")
    with pytest.raises(InvalidInput, match="no network with this digest"):
        Sampler(made, QUICK)(sample("lc", {"weight_prune": 0.5}, weights_from=digest))


def test_weights_of_another_network_are_refused(tmp_path: Path, trained: Network, digits: Digits) -> None:
    made = material(tmp_path, trained, digits, "weight_prune")
    head = {name: value for name, value in trained.constants.items() if name != "fc.bias"}
    nodes = [node for node in trained.nodes if node.name != "fc"]
    fc = trained.node("fc")
    other = edited(trained, [*nodes, type(fc)("Gemm", "fc", fc.inputs[:2], fc.outputs, fc.attributes)], head)
    with pytest.raises(InvalidInput, match="weights of this network"):
        Sampler(made, QUICK)(sample("lc", {"weight_prune": 0.5}, weights_from=made.keep(other, 1)))


@pytest.mark.parametrize("more", [{"recipe": "magic"}, {"recipe": "lc", "masks": {"conv0": (0, 1)}}])
def test_an_unknown_recipe_and_masks_are_refused(
    tmp_path: Path, trained: Network, digits: Digits, more: dict[str, Any]
) -> None:
    made = material(tmp_path, trained, digits, "filter_prune")
    evaluation = attempt(EvaluatorFactory(made)(), Candidate("c", WHOLE, fidelity="F4", **more))
    assert evaluation.status is Status.FAILED
    assert "lc or direct" in evaluation.reason


def test_whole_trainings_have_images_of_their_own(tmp_path: Path, trained: Network, digits: Digits) -> None:
    more = Part(digits[0][:900], digits[1][:900])
    made = material(tmp_path, trained, digits, "weight_prune", training=more)
    assert len(made.training[0]) == 900
    assert len(made.short[0]) == 512
    assert len(material(tmp_path / "other", trained, digits, "weight_prune").training[0]) == 512


@pytest.mark.parametrize("recipe", ["lc", "direct"])
def test_a_training_whose_worker_is_lost_goes_on_from_its_last_epoch(
    tmp_path: Path, trained: Network, digits: Digits, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = material(tmp_path, trained, digits, "weight_prune")
    wanted = sample(recipe, {"weight_prune": 0.1})
    whole, digest = Sampler(made, QUICK)(wanted)
    checkpoints = tmp_path / "trainings"
    assert list(checkpoints.iterdir()) == [], "what is finished leaves no checkpoint"
    honest, written = durable.write, list[Path]()

    def dying(path: Path, content: bytes) -> Path:
        honest(path, content)
        written.append(path)
        if len(written) == 4:
            raise KeyboardInterrupt
        return path

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write", dying)
        with pytest.raises(KeyboardInterrupt):
            Sampler(made, QUICK)(wanted)
    assert {path.suffix for path in checkpoints.iterdir()} == {".safetensors", ".reached"}
    assert Sampler(made, QUICK).reached(wanted) == pytest.approx(2 / 5, abs=1e-6)
    (said,) = checkpoints.glob("*.reached")
    for broken in ("", "half", "nan", "7"):
        said.write_text(broken)
        assert Sampler(made, QUICK).reached(wanted) == 0.0
    assert Sampler(made, QUICK).reached(replace(wanted, weights_from=digest)) == 0.0
    steps = list[int]()
    train = TRAININGS[recipe]

    def counted(*given: Any) -> Iterator[Step]:
        for step in train(*given):
            steps.append(step.epoch)
            yield step

    monkeypatch.setitem(TRAININGS, recipe, counted)  # type: ignore[arg-type]  # a Mapping to its readers
    assert Sampler(made, QUICK)(wanted) == (whole, digest)
    assert set(steps) == {2, 3}


def test_a_kept_network_says_how_long_it_was_trained(tmp_path: Path, trained: Network, digits: Digits) -> None:
    made = material(tmp_path, trained, digits, "weight_prune")
    _, first = Sampler(made, QUICK)(sample("lc", {"weight_prune": 0.5}))
    assert first is not None
    _, second = Sampler(made, QUICK)(sample("lc", {"weight_prune": 0.3}, weights_from=first))
    assert second is not None
    assert (made.epochs(first), made.epochs(second)) == (QUICK.epochs, 2 * QUICK.epochs)
    assert made.has(first)
    assert not made.has("../../material")


def test_the_evaluator_hands_f4_over(tmp_path: Path, trained: Network, digits: Digits) -> None:
    made = material(tmp_path, trained, digits, "weight_prune")
    wanted = sample("direct", {"weight_prune": 0.05})
    untrained = EvaluatorFactory(made, training=Recipe(epochs=0))()(wanted)
    assert untrained.metrics["accuracy"] < EvaluatorFactory(made, training=QUICK)()(wanted).metrics["accuracy"] - 0.1
    evaluation = EvaluatorFactory(made, training=Recipe(epochs=1))()(sample("direct", {"weight_prune": 1.0}))
    assert evaluation.status is Status.COMPLETED
    assert evaluation.metrics["accuracy"] > 0.9
    assert evaluation.network is not None
    assert made.kept(evaluation.network).digest == evaluation.network


def test_a_material_that_was_read_travels_as_its_paths(tmp_path: Path, trained: Network, digits: Digits) -> None:
    made = material(tmp_path, trained, digits, "filter_prune", "int8_ptq")
    EvaluatorFactory(made)()
    assert made.network.digest == trained.digest
    packed = pickle.dumps(made)
    assert len(packed) < 1000
    assert pickle.loads(packed).network.digest == trained.digest  # noqa: S301 - our own bytes

"""F3 keeps its network, and F2 and F3 candidates that start from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing, preprocess
from compress.graph.cut import cut
from compress.graph.groups import prunable_blocks
from compress.network import Network
from compress.pruning.uncut import uncut
from compress.task import Targets
from compress.tasks.classification import TASK
from search.candidate import Candidate
from search.evaluation import Status
from workers.errors import InvalidInput
from workers.evaluating import evaluator as evaluators
from workers.evaluating.evaluate_safely import attempt
from workers.evaluating.evaluation_files import Material
from workers.evaluating.evaluator import CutEvaluator, EvaluatorFactory
from workers.evaluating.whole_training import Sampler, without_zeros

Digits = tuple[np.ndarray, np.ndarray]
WHOLE = {"conv0": 8, "conv1": 32, "conv2": 32}
NARROW = {**WHOLE, "conv1": 16}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, trained: Network, digits: Digits) -> Material:
    images = preprocess(digits[0], Preprocessing())
    made = Material(tmp_path_factory.mktemp("material"), (("filter_prune", {}), ("int8_ptq", {})))
    evidence = made.scheme.gather(trained, images[:128], Targets(TASK, digits[1][:128]), 0)
    short = Part(digits[0][:512], digits[1][:512])
    made.write(trained, (images[900:1300], digits[1][900:1300]), images[:128], evidence, short, Preprocessing())
    return made


def candidate(widths: Mapping[str, int], fidelity: Any = "F3", **more: Any) -> Candidate:
    return Candidate("c", {**widths, "int8_ptq": "fp32"}, fidelity=fidelity, **more)


@pytest.fixture(scope="module")
def first(material: Material) -> str:
    """The digest of a network whose conv1 kept units 8 to 23."""
    evaluation = EvaluatorFactory(material)()(candidate(NARROW, masks={"conv1": tuple(range(8, 24))}))
    assert evaluation.network is not None
    return evaluation.network


def test_uncut_is_the_inverse_of_cut(trained: Network) -> None:
    blocks = prunable_blocks(trained)
    keep = {"conv0": [1, 2, 5], "conv2": [0, 30]}
    smaller = cut(trained, keep, blocks)
    whole = uncut(smaller, trained, keep, blocks)
    again = cut(whole, keep, blocks)
    assert {n: v.tolist() for n, v in again.constants.items()} == {n: v.tolist() for n, v in smaller.constants.items()}
    assert not whole.constants["conv0.weight"][[0, 3, 4, 6, 7]].any()


def test_f3_keeps_its_network(material: Material, first: str) -> None:
    assert material.has(first)
    assert material.epochs(first) == evaluators.SHORT.epochs
    assert {name: units.tolist() for name, units in material.units(first).items()} == {"conv1": list(range(8, 24))}
    kept = material.kept(first).constants["conv1.weight"]
    assert kept.shape == material.network.constants["conv1.weight"].shape
    assert not np.delete(kept, range(8, 24), axis=0).any()
    assert not np.array_equal(kept[8:24], material.network.constants["conv1.weight"][8:24]), "it was trained"


def test_a_candidate_starts_from_the_last_ones_weights(material: Material, first: str) -> None:
    evaluator = CutEvaluator(material, 512)
    further = candidate({**NARROW, "conv2": 16}, "F2", masks={"conv1": tuple(range(8, 24))}, weights_from=first)
    module, _ = evaluator.cut(further)
    given = material.kept(first).constants["conv1.weight"][8:24]
    np.testing.assert_array_equal(module.to_network().constants["conv1.weight"], given)
    assert module.to_network().constants["conv2.weight"].shape[0] == 16
    evaluation = evaluator(replace(further, fidelity="F3"))
    assert evaluation.metrics["accuracy"] > 0.6
    assert evaluation.network not in (None, first)
    assert material.epochs(str(evaluation.network)) == 2 * evaluators.SHORT.epochs
    assert material.units(str(evaluation.network)).keys() == {"conv1", "conv2"}


def test_f2_scores_the_distilled_weights_and_keeps_none(material: Material, first: str) -> None:
    evaluator = EvaluatorFactory(material)()
    same = candidate(NARROW, "F2", masks={"conv1": tuple(range(8, 24))})
    cold, warm = evaluator(same), evaluator(replace(same, weights_from=first))
    assert (cold.network, warm.network) == (None, None)
    assert warm.metrics["accuracy"] > cold.metrics["accuracy"]


def test_without_a_mask_the_most_important_units_that_are_left_stay(material: Material, first: str) -> None:
    evaluator = CutEvaluator(material, 512)
    module, _ = evaluator.cut(candidate({**WHOLE, "conv1": 4}, "F2", weights_from=first))
    scores = material.evidence.importance["conv1"][8:24]
    best = 8 + np.sort(np.argsort(-scores, kind="stable")[:4])
    expected = material.kept(first).constants["conv1.weight"][best]
    np.testing.assert_array_equal(module.to_network().constants["conv1.weight"], expected)


@pytest.mark.parametrize(
    "wanted",
    [
        candidate(WHOLE, "F2"),
        candidate({**WHOLE, "conv1": 24}, "F2"),
        candidate({**WHOLE, "conv1": 2}, "F2", masks={"conv1": (7, 8)}),
    ],
)
def test_units_that_are_gone_are_refused(material: Material, first: str, wanted: Candidate) -> None:
    evaluation = attempt(EvaluatorFactory(material)(), replace(wanted, weights_from=first))
    assert evaluation.status is Status.FAILED
    assert "no longer has these units" in evaluation.reason or "must keep" in evaluation.reason


def test_a_lost_network_fails_its_candidate_only(material: Material) -> None:
    evaluation = attempt(EvaluatorFactory(material)(), candidate(NARROW, weights_from="0" * 64))
    assert evaluation.status is Status.FAILED
    assert "no network with this digest is stored" in evaluation.reason


def test_another_process_finds_the_network(material: Material, first: str) -> None:
    again = Material(material.folder, material.methods)
    module, _ = CutEvaluator(again, 512).cut(
        candidate(NARROW, "F2", masks={"conv1": tuple(range(8, 24))}, weights_from=first)
    )
    given = material.kept(first).constants["conv1.weight"][8:24]
    np.testing.assert_array_equal(module.to_network().constants["conv1.weight"], given)


def test_a_finalist_continues_from_the_distilled_weights(material: Material, first: str) -> None:
    """The trainer removes the units that are zero: they are the removed ones."""
    kept = material.kept(first)
    left = without_zeros(material, kept, material.scheme.bind(candidate(NARROW).values))
    np.testing.assert_array_equal(left.constants["conv1.weight"], kept.constants["conv1.weight"][8:24])


def test_a_full_training_run_needs_all_units(material: Material, first: str) -> None:
    wanted = Candidate("s", {**WHOLE, "int8_ptq": "fp32"}, fidelity="F4", recipe="direct", weights_from=first)
    with pytest.raises(InvalidInput, match="weights of all units"):
        Sampler(material, evaluators.SHORT)(wanted)


def test_a_network_with_an_added_bias_is_not_kept(material: Material) -> None:
    """What a later cut of the stored weights would not give again must not be offered to start from."""
    inheritance = evaluators.Inheritance(material)
    wanted = candidate(NARROW)
    kept = inheritance.kept(wanted, inheritance.start(wanted))
    network = CutEvaluator(material, 512).cut(wanted)[0].to_network()
    assert inheritance.keep(wanted, network, kept, 1) is not None
    more = replace(network, constants={**network.constants, "extra": np.ones(3, np.float32)})
    assert inheritance.keep(wanted, more, kept, 1) is None

"""What strategies know before any evaluation: the statistics that methods gathered, and F1 made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing, preprocess
from compress.graph.groups import prunable_blocks
from compress.network import Network
from compress.pruning.importance import score
from compress.task import Targets
from compress.tasks.classification import TASK
from search.candidate import Candidate
from search.problem import Objective, Problem
from search.space import Space
from workers.evaluating.evaluation_files import Material
from workers.evaluating.evaluator import EvaluatorFactory
from workers.problem.layer_errors import layer_errors

Digits = tuple[np.ndarray, np.ndarray]
WIDTH = {"conv0": 8, "conv1": 32, "conv2": 32}


def material(folder: Path, trained: Network, digits: Digits, importance: str, **extra: object) -> Material:
    images = preprocess(digits[0], Preprocessing())
    made = Material(folder, (("filter_prune", {"importance": importance}),))
    evidence = made.scheme.gather(trained, images[:256], Targets(TASK, digits[1][:256]), 0)
    evidence = replace(evidence, known={**evidence.known, **extra})  # type: ignore[dict-item]  # a method's own
    short = Part(digits[0][:64], digits[1][:64])
    made.write(trained, (images[900:1300], digits[1][900:1300]), images[:256], evidence, short, Preprocessing())
    return Material(folder, made.methods)


@pytest.mark.parametrize("importance", ["fisher", "l2"])
def test_what_methods_gathered_is_in_the_files(
    tmp_path: Path, trained: Network, digits: Digits, importance: str
) -> None:
    known = material(tmp_path, trained, digits, importance, mine={"conv1": np.arange(3.0)}).known
    assert known.keys() == {"fisher", "gram", "mine"}
    assert known["mine"]["conv1"].tolist() == [0.0, 1.0, 2.0]
    assert {name: len(scores) for name, scores in known["fisher"].items()} == WIDTH
    images, labels = preprocess(digits[0], Preprocessing())[:256], digits[1][:256]
    expected = score(trained, prunable_blocks(trained), "fisher", images, Targets(TASK, labels))
    for name, width in WIDTH.items():
        assert known["fisher"][name] == pytest.approx(expected[name])
        gram = known["gram"][name]
        assert gram.shape == (width, width)
        assert np.linalg.eigvalsh(gram).min() > -1e-9
        assert gram.sum() == pytest.approx(1.0), "with all units all that one reader puts out goes"


def test_without_a_refit_there_is_no_gram(tmp_path: Path, trained: Network, digits: Digits) -> None:
    made = Material(tmp_path, (("filter_prune", {"refit": False}),))
    evidence = made.scheme.gather(
        trained, preprocess(digits[0], Preprocessing())[:64], Targets(TASK, digits[1][:64]), 0
    )
    assert evidence.known["gram"] == {}
    assert evidence.known["fisher"].keys() == WIDTH.keys()


@pytest.mark.parametrize("source", ["ls_error", "gram", "fisher"])
def test_f1_ranks_as_f2_does(tmp_path: Path, trained: Network, digits: Digits, source: str) -> None:
    made = material(tmp_path, trained, digits, "fisher")
    space = Space(made.scheme.knobs(trained, {}))
    known = {"ls_error": layer_errors(space, made), **made.known, "importance": made.evidence.importance}
    kept = {name: known[name] for name in (source, "importance")}
    problem = Problem(space, (Objective("accuracy", "max"),), (), lambda batch: {}, statistics=kept)
    rng = np.random.default_rng(3)
    batch = [space.sample(rng) for _ in range(40)]
    evaluate = EvaluatorFactory(made)()
    accuracy = [evaluate(Candidate(f"c{i}", values)).metrics["accuracy"] for i, values in enumerate(batch)]
    ranks = [np.argsort(np.argsort(column)) for column in (-problem.proxy(batch), accuracy)]
    assert np.corrcoef(ranks)[0, 1] > 0.5

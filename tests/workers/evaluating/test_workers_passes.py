"""Passes: the way in which candidates are run is measured once, is stored, and does not change what they score."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from compress.data.dataset import Part
from compress.data.preprocessing import Preprocessing, preprocess
from compress.network import Network
from compress.task import Targets
from compress.tasks.classification import TASK
from search.candidate import Candidate
from workers.errors import InvalidInput
from workers.evaluating import evaluator as evaluators
from workers.evaluating import passes
from workers.evaluating.evaluation_files import Material
from workers.evaluating.evaluator import NORM_IMAGES, QUICK, CutEvaluator, EvaluatorFactory
from workers.evaluating.passes import Passes, fastest

Digits = tuple[np.ndarray, np.ndarray]
WAYS = [Passes(runtime, last) for runtime in passes.RUNTIMES for last in (False, True)]


def material(folder: Path, trained: Network, digits: Digits, way: Passes | None) -> Material:
    images, labels = preprocess(digits[0], Preprocessing()), digits[1]
    made = Material(folder, (("filter_prune", {}), ("int8_ptq", {})))
    evidence = made.scheme.gather(trained, images[:256], Targets(TASK, labels[:256]))
    short = Part(digits[0][:64], labels[:64])
    ranking = (images[900:1300], labels[900:1300])
    made.write(trained, ranking, images[:400], evidence, short, Preprocessing(), passes=way)
    return Material(folder, made.methods)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_way_gives_the_same_scores(tmp_path: Path, trained: Network, digits: Digits, precision: str) -> None:
    values = {"conv0": 8, "conv1": 20, "conv2": 24, "int8_ptq": precision}
    scores = []
    for number, way in enumerate(WAYS):
        made = material(tmp_path / str(number), trained, digits, way)
        assert made.passes == way
        scores.append(EvaluatorFactory(made)()(Candidate("c", values)).metrics["accuracy"])
    # Sums that are rounded differently may decide one or two close calls of 400.
    assert max(scores) - min(scores) <= 2 / 400
    assert min(scores) > 0.5


def test_the_plain_way_is_taken_if_none_was_measured(tmp_path: Path, trained: Network, digits: Digits) -> None:
    made = material(tmp_path, trained, digits, None)
    assert made.passes == Passes("torch", channels_last=False)
    (tmp_path / "passes.json").unlink()  # a job that an older version began
    assert Material(tmp_path, made.methods).passes == Passes("torch", channels_last=False)
    with pytest.raises(InvalidInput, match="runtime"):
        Passes("gpu")  # type: ignore[arg-type]  # the point of the test


def test_f2_runs_in_the_measured_way_and_a_finalist_in_the_plain_way(
    tmp_path: Path, trained: Network, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, bool]] = []

    def noted(module: object, images: np.ndarray, channels_last: bool = False) -> None:
        seen.append((len(images), channels_last))

    monkeypatch.setattr(evaluators, "reestimate", noted)
    made = material(tmp_path, trained, digits, Passes("onnxruntime", channels_last=True))
    evaluate = CutEvaluator(made, quick_images=64)
    cut, whole = ({"conv0": 8, "conv1": width, "conv2": 32, "int8_ptq": "fp32"} for width in (20, 32))
    evaluate(Candidate("c", cut))
    evaluate.cut(Candidate("c", cut))
    evaluate(Candidate("w", whole))
    assert seen == [(NORM_IMAGES, True), (400, False)], "an uncut network keeps its norms; F2 takes fewer images"
    evaluate(Candidate("q", whole, recipe=QUICK))
    assert seen[2:] == [(16, True)]


def clock(steps: list[float]) -> Iterator[float]:
    now = 0.0
    for step in steps:
        yield now
        now += step
        yield now


@pytest.mark.parametrize(
    ("training_s", "scoring_s", "expected"),
    [
        ([2.0, 1.0], [1.0, 2.0], Passes("onnxruntime", True)),
        ([1.0, 0.9], [1.0, 0.9], Passes("onnxruntime", False)),
        ([1.0, 2.0], [2.0, 1.0], Passes("torch", False)),
    ],
    ids=["clearly", "about the same", "torch"],
)
def test_a_way_is_chosen_if_it_takes_clearly_less_time(
    training_s: list[float],
    scoring_s: list[float],
    expected: Passes,
    trained: Network,
    digits: Digits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = clock([*training_s * passes.ROUNDS, *scoring_s * passes.ROUNDS])
    monkeypatch.setattr(passes.time, "process_time", lambda: next(ticks))
    assert fastest(trained, preprocess(digits[0][:40], Preprocessing())) == expected

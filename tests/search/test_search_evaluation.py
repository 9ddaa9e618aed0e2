from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from search.candidate import Candidate, Fidelity
from search.errors import InvalidInput
from search.evaluation import Evaluation, Status

CANDIDATE = Candidate(
    "greedy-s0-0001",
    {"conv1": 16, "precision": "int8", "ratio": 0.5, "units": (0, 3)},
    masks={"conv2": (1, 2)},
    origin="greedy",
    parents=("greedy-s0-0000",),
    weights_from="abc",
)
EVALUATION = Evaluation(CANDIDATE, Status.COMPLETED, {"accuracy": 0.9, "macs": 10}, 1.5, network="def")


def test_json_and_back() -> None:
    assert Candidate.from_json(json.loads(json.dumps(CANDIDATE.to_json()))) == CANDIDATE
    assert Evaluation.from_json(json.loads(json.dumps(EVALUATION.to_json()))) == EVALUATION


def test_a_search_asked_for_all_but_finalists() -> None:
    searched = [replace(CANDIDATE, fidelity=fidelity) for fidelity in ("F2", "F3", "F4")]
    assert all(each.searched for each in searched)
    assert not any(replace(each, after_search=True).searched for each in searched)
    assert not replace(CANDIDATE, fidelity="F5").searched


@pytest.mark.parametrize(
    ("fidelity", "recipe", "searched"),
    [("F2", "", True), ("F3", "short", True), ("F4", "lc", True), ("F4", "", False), ("F5", "", False)],
)
def test_a_record_that_does_not_say_was_of_a_search_if_it_had_a_recipe(
    fidelity: Fidelity, recipe: str, searched: bool
) -> None:
    record = replace(CANDIDATE, fidelity=fidelity, recipe=recipe).to_json()
    del record["after_search"]
    assert Candidate.from_json(record).searched == searched


def test_the_key_is_of_what_decides_the_result() -> None:
    key = CANDIDATE.key("net", "split", 0)
    same = replace(CANDIDATE, id="other", origin="random", parents=())
    reordered = replace(CANDIDATE, values=dict(reversed(list(CANDIDATE.values.items()))))
    assert same.key("net", "split", 0) == reordered.key("net", "split", 0) == key
    others = [
        CANDIDATE.key("net2", "split", 0),
        CANDIDATE.key("net", "split2", 0),
        CANDIDATE.key("net", "split", 1),
        *(
            replace(CANDIDATE, **change).key("net", "split", 0)
            for change in (
                {"values": {**CANDIDATE.values, "conv1": 8}},
                {"masks": {}},
                {"fidelity": "F3"},
                {"recipe": "long"},
                {"weights_from": None},
            )
        ),
    ]
    assert len({key, *others}) == 1 + len(others)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: replace(CANDIDATE, id=""), "id"),
        (lambda: replace(CANDIDATE, values={}), "values"),
        (lambda: replace(CANDIDATE, fidelity="F9"), "fidelity"),
        (lambda: replace(EVALUATION, metrics={"accuracy": float("nan")}), "metrics.accuracy"),
        (lambda: replace(EVALUATION, metrics={"macs": float("inf")}), "metrics.macs"),
        (lambda: replace(EVALUATION, metrics={"macs": "many"}), "metrics.macs"),
        (lambda: replace(EVALUATION, metrics={}), "metrics"),
        (lambda: replace(EVALUATION, elapsed_s=-1.0), "elapsed_s"),
        (lambda: replace(EVALUATION, status=Status.FAILED), "reason"),
        (lambda: Candidate.from_json({"id": "x"}), "candidate"),
        (lambda: Candidate.from_json({**CANDIDATE.to_json(), "masks": 3}), "candidate"),
        (lambda: Evaluation.from_json({}), "evaluation"),
        (lambda: Evaluation.from_json({**EVALUATION.to_json(), "status": "lost"}), "evaluation.status"),
        (lambda: Evaluation.from_json({**EVALUATION.to_json(), "elapsed_s": -1}), "elapsed_s"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make()
    assert caught.value.field == field


def test_a_failure_has_a_reason_and_needs_no_metrics() -> None:
    assert Evaluation(CANDIDATE, Status.FAILED, reason="NaN loss").metrics == {}

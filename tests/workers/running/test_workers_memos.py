"""What jobs under way have recorded stays readable, under the same names and in the same JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hw_profiles.host_lock import HostLock
from hw_profiles.timing.protocol import Sample
from workers.plan import JobPlan
from workers.progress import Checkpointed
from workers.running import memos
from workers.running.context import Context
from workers.running.memo import Memo
from workers.running.memory_ports import MemoryPorts
from workers.training.parallel_training import Ended

Job = Callable[..., tuple[JobPlan, MemoryPorts]]

CANDIDATE = {
    "id": "c1",
    "values": {"block": 4, "int8_ptq": "int8"},
    "masks": {},
    "origin": "greedy",
    "parents": ["c0"],
    "fidelity": "F2",
    "recipe": "",
    "weights_from": None,
}
CHOSEN = {
    "candidates": [
        {"strategy": "greedy", "candidate": CANDIDATE, "metrics": {"accuracy": 0.5}, "feasible": True, "network": None}
    ]
}
SAMPLE = {"key": "uploaded", "minima_us": [1.0, 2.0], "medians_us": [1.5, 2.5], "extra": {}}
PREDICTED = {"predicted_ms": 1.0, "low_ms": 0.5, "high_ms": 1.5, "level": 0.8}
TRAINED = {"right": [1, 0], "counts": {"macs": 7}, "predicted": {"macs": 8.0}, "elapsed_s": 2.0, "epochs": 3}

ADDED = {"after_search", "out_of_time", "epoch_scores", "notes", "evaluated"}
STORED: list[tuple[str, Memo[Any], dict[str, Any]]] = [
    ("original-right", memos.ORIGINAL_SCORES, {"right": [1, 0, 1]}),
    ("looks-0123456789ab", memos.looks("0123456789abcdef"), {"sensitivity-whole": 0.9, "sensitivity-conv1-4": 0.5}),
    ("mirroring", memos.MIRRORING, {"bears": True, "lost": -0.01}),
    ("second-control", memos.SECOND_CONTROL, {"fits": False}),
    ("out-of-reach", memos.OUT_OF_REACH, {"candidates": []}),
    ("finalists", memos.FINALISTS, CHOSEN),
    ("neighbour-2", memos.neighbour(2), CHOSEN),
    ("search-ended", memos.SEARCH_ENDED, {"end": "wall", "spent_s": 1.5}),
    ("common-epochs", memos.COMMON_EPOCHS, {"epochs": 3}),
    ("filled-dev_1", memos.filled("dev_1"), {"asked": 3, "epoch": 9}),
    ("original-dev_1", memos.timed("original", "dev_1"), {"uploaded": SAMPLE}),
    ("predicted-0-dev_1", memos.predicted(0, "dev_1"), {"finalist-c1": PREDICTED}),
    ("training-3-control-seconds", memos.training_seconds("training-3-control"), {"elapsed_s": 2.5}),
    ("training-3-control-ended", memos.training_ended("training-3-control"), {"state": "trained", "reason": ""}),
    ("trained-plain-control", memos.trained("plain-control"), TRAINED),
    ("test-accuracy", memos.TEST_SCORE, {"name": "finalist-c1", "original": 0.9, "chosen": 0.8}),
]


@pytest.fixture
def ports(job: Job) -> MemoryPorts:
    return job()[1]


@pytest.fixture
def context(job: Job, ports: MemoryPorts, lock: HostLock) -> Context:
    """That of a run which finds whatever `store` has put there."""
    for name, _, content in STORED:
        path = ports.work_dir / f"{name}.json"
        path.write_text(json.dumps(content))
        ports.emit(Checkpointed(name, path))
    return Context(job()[0], ports, ports.recorded(), lock)


@pytest.mark.parametrize(("name", "memo", "content"), STORED, ids=[name for name, _, _ in STORED])
def test_what_a_job_under_way_recorded_is_read_and_written_alike(
    name: str, memo: Memo[Any], content: dict[str, Any], context: Context, ports: MemoryPorts
) -> None:
    def again() -> Any:
        pytest.fail(f"{name} is recorded")

    fact = context.once(memo, again)
    context.keep(memo, fact)
    newest = ports.recorded().checkpoints[name]
    assert newest.parent == context.folder("checkpoints")
    assert _as_old(json.loads(newest.read_text())) == content


def _as_old(content: Any) -> Any:
    """Without the fields that older versions did not write; each has the value that those meant."""
    if isinstance(content, list):
        return [_as_old(each) for each in content]
    if not isinstance(content, dict):
        return content
    assert not any(content.get(name) for name in ADDED)
    return {name: _as_old(value) for name, value in content.items() if name not in ADDED}


def test_facts_have_types(context: Context) -> None:
    scores = context.recall(memos.ORIGINAL_SCORES)
    assert scores is not None
    assert (scores.dtype, scores.tolist()) == (np.float64, [1.0, 0.0, 1.0])
    assert context.recall(memos.timed("original", "dev_1")) == {
        "uploaded": Sample("uploaded", (1.0, 2.0), (1.5, 2.5), {})
    }
    (chosen,) = context.recall(memos.FINALISTS) or ()
    assert (chosen.strategy, chosen.evaluation.candidate.parents, chosen.feasible) == ("greedy", ("c0",), True)
    assert context.recall(memos.training_ended("training-3-control")) == Ended("trained")


def test_a_fact_is_found_out_once(job: Job, lock: HostLock) -> None:
    plan, ports = job()
    memo, made = memos.COMMON_EPOCHS, list[int]()

    def make() -> memos.CommonEpochs:
        made.append(len(made))
        return memos.CommonEpochs(7)

    for _ in range(2):
        assert Context(plan, ports, ports.recorded(), lock).once(memo, make).epochs == 7
    assert made == [0]


def test_a_fact_of_something_else_is_found_out_again(job: Job, lock: HostLock) -> None:
    plan, ports = job()
    context = Context(plan, ports, ports.recorded(), lock)
    context.keep(memos.COMMON_EPOCHS, memos.CommonEpochs(7))
    found = context.once(memos.COMMON_EPOCHS, lambda: memos.CommonEpochs(3), lambda known: known.epochs < 5)
    assert found.epochs == 3
    assert Context(plan, ports, ports.recorded(), lock).recall(memos.COMMON_EPOCHS) == found

"""The recipe: `auto` augments images as far as the task's targets bear it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from compress_graphs import Graph, residual

from compress.network import Network
from workers.errors import InvalidInput
from workers.plan import Training
from workers.running.memos import Mirroring
from workers.training.recipe import recipe_of


@pytest.mark.parametrize(
    ("augments", "bears", "expected"),
    [
        (("none", "crop", "crop_flip"), True, "crop_flip"),
        (("none", "crop", "crop_flip"), False, "crop"),
        (("none", "crop"), True, "crop"),
        (("none",), True, "none"),
    ],
)
def test_auto_chooses_among_what_the_task_allows(augments: Sequence[str], bears: bool, expected: str) -> None:
    known = Mirroring(bears, 0.0)
    context: Any = SimpleNamespace(plan=SimpleNamespace(training=Training(), seed=0), recall=lambda memo: known)
    inputs: Any = SimpleNamespace(task=SimpleNamespace(augments=frozenset(augments)))
    assert recipe_of(context, inputs).augment == expected


def flat() -> Network:
    """A network of one layer over all pixels."""
    graph = Graph((3, 8, 8))
    graph.gemm(graph.op("Flatten", ["image"], "flat"), "logits", (192, 4))
    return graph.network()


@pytest.mark.parametrize(("network", "warned"), [(residual(), False), (flat(), True)])
def test_attention_is_taken_from_the_plan_and_told_if_there_is_nowhere_to_look(network: Network, warned: bool) -> None:
    warnings: list[str] = []
    plan = SimpleNamespace(training=Training(augment="none", attention=1000.0), seed=0)
    context: Any = SimpleNamespace(plan=plan, warn=warnings.append)
    inputs: Any = SimpleNamespace(network=network)
    assert recipe_of(context, inputs).attention == 1000.0
    assert bool(warnings) == warned


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_a_weight_of_attention_is_not_negative(value: float) -> None:
    with pytest.raises(InvalidInput) as caught:
        Training(attention=value)
    assert caught.value.field == "training.attention"

"""The recipe: `auto` augments images as far as the task's targets bear it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

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

"""Ruined: networks that lose more than half of their knowledge in training.

The result of such a training run does not show what can be reached. An accuracy limit relative to it is worthless,
because a network that guesses would meet the limit.
"""

from __future__ import annotations

from collections.abc import Sequence

from search.metric import Metric
from search.ranking.nearness import guesses
from workers.training.parallel_training import CONTROL
from workers.training.trained import Trained

LEAST = 0.5
"""Minimum share that training must keep of a network's score above the score of guessing."""


def ruined(before: float, after: float, chance: float, count: int) -> bool:
    """Return True if training has kept too little of the score.

    Args:
        before, after: mean score on `count` samples.
        chance: the score of guessing.
    """
    return not guesses(before, chance, count) and after - chance < LEAST * (before - chance)


def said_of_ruined(control: Trained, shown: Trained, metric: Metric) -> Sequence[str]:
    """Return one sentence for the control and one for the result, each only if training ruined it."""
    told = []
    if control.ruined:
        was = _said(control, metric)
        told.append(f"{was} Limits on {metric.heading} are checked against the network as it was before.")
    if shown.ruined and shown.candidate_id != control.candidate_id:
        told.append(f"{_said(shown, metric)} The result is this network as it was before.")
    return tuple(told)


def _said(each: Trained, metric: Metric) -> str:
    assert each.left is not None, "a ruined network has the score that training left"
    who = "the control" if each.candidate_id == CONTROL else each.candidate_id
    return (
        f"Training with this recipe ruins {who}: {metric.heading} {metric.told(each.left)} after it and "
        f"{metric.told(each.score)} before, on {len(each.scores)} validation images."
    )

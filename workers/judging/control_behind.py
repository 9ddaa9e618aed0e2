"""Control behind: says by how much the recipe left the unpruned network worse than the original."""

from __future__ import annotations

from compress.scoring.difference import Difference, Scores
from search.metric import Metric
from workers.training.trained import Trained


def said_of_control(original: Scores, control: Trained, lost: Difference, metric: Metric) -> list[str]:
    """Return one sentence if the control is worse than the original by more than chance explains.

    A ruined control has a sentence of its own (`workers.judging.ruined`).
    """
    if control.ruined or lost.low <= 0.0:
        return []
    unit = metric.unit.replace("%", "points")
    return [
        f"Training with this recipe leaves the control {lost.mean * metric.factor:{metric.format}} {unit} below the"
        f" original: {metric.heading} {metric.told(control.score)} against {metric.told(float(original.mean()))}, on"
        f" {lost.count} validation images. Losses are counted from the control."
    ]

"""Common rate: the learning rate at which the control, every sample and every finalist train.

A rate that suits most networks can be too large for a network whose layers have very different scales. The loss of such
a network rises to the loss of a network that predicts nothing, or beyond, and what was learned is lost. So the
control's first epoch decides the rate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.training.fit import Step
from workers.running import memos
from workers.running.context import Context

LOWER = 10.0**-0.5
"""Factor by which a rate that was too large is multiplied."""
TIMES = 4
"""Maximum number of times that a rate is lowered; the lowest rate is then about a hundredth of the first."""


def times_lowered(context: Context, form: str = "") -> int:
    """Return the number of times that the rate of this form of the network was lowered."""
    known = context.recall(memos.milder(form))
    return 0 if known is None else known.times


def common_rate(context: Context, rate: float, form: str = "") -> float:
    """Return the learning rate of all networks: the recipe's rate, or a lower rate if one was decided on."""
    return rate * LOWER ** times_lowered(context, form)


def lowered(context: Context, rate: float, epoch: Sequence[Step], form: str = "") -> bool:
    """Return True if, after this first epoch of the control, all networks must train at a lower rate; the control
    restarts.

    Args:
        rate: the rate at which the epoch was trained.
        epoch: the steps of the epoch.
    """
    before = times_lowered(context, form)
    if before == TIMES or not blew_up(epoch):
        return False
    context.keep(memos.milder(form), memos.Milder(before + 1))
    risen = np.mean([step.loss for step in epoch])
    context.say(
        f"At a learning rate of {rate:.3g} the control's training blows up: its loss rises from {epoch[0].loss:.3g} to "
        f"{risen:.3g}, and a network that predicts nothing has a loss of {epoch[0].blank:.3g}. "
        "All networks train at a third of this rate.",
        "warning",
    )
    return True


def blew_up(epoch: Sequence[Step]) -> bool:
    """Return True if, on average over these steps, a network had less than half of the knowledge that it began with."""
    losses, blanks = ([getattr(step, name) for step in epoch] for name in ("loss", "blank"))
    return losses[0] < blanks[0] and bool(np.mean(losses) > (losses[0] + np.mean(blanks)) / 2)

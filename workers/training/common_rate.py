"""Common rate: the learning rate at which the control, every sample and every finalist train, which the control bears.

A rate that most networks bear can be too large for one whose layers are far out of scale: its loss rises towards that
of a network that says nothing, or beyond, and what it knew is lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.training.fit import Step
from workers.running import memos
from workers.running.context import Context

LOWER = 10.0**-0.5
"""What a rate that was too large is multiplied by."""
TIMES = 4
"""Times that a rate is lowered at most: to a hundredth."""


def times_lowered(context: Context, form: str = "") -> int:
    """How many times the rate of this form of the network was lowered."""
    known = context.recall(memos.milder(form))
    return 0 if known is None else known.times


def common_rate(context: Context, rate: float, form: str = "") -> float:
    """The rate that all train at alike: the recipe's, or the lower one that was decided on."""
    return rate * LOWER ** times_lowered(context, form)


def lowered(context: Context, rate: float, epoch: Sequence[Step], form: str = "") -> bool:
    """After the first epoch of the control: whether all train at a lower rate from now on, itself from the beginning.

    Args:
        rate: the one that it trained at.
        epoch: its steps.
    """
    before = times_lowered(context, form)
    if before == TIMES or not blew_up(epoch):
        return False
    context.keep(memos.milder(form), memos.Milder(before + 1))
    risen = np.mean([step.loss for step in epoch])
    context.say(
        f"At a learning rate of {rate:.3g} the control's training blows up: its loss rises from {epoch[0].loss:.3g} to "
        f"{risen:.3g}, and a network that says nothing has {epoch[0].blank:.3g}. All train at a third of it.",
        "warning",
    )
    return True


def blew_up(epoch: Sequence[Step]) -> bool:
    """Whether a network that knew something has known less than half of it, on average over these steps."""
    losses, blanks = ([getattr(step, name) for step in epoch] for name in ("loss", "blank"))
    return losses[0] < blanks[0] and bool(np.mean(losses) > (losses[0] + np.mean(blanks)) / 2)

"""Common rate: the learning rate at which the control, every sample and every finalist train.

A rate that suits most networks can be too large for a network whose layers have very different scales. The loss of such
a network rises to the loss of a network that predicts nothing, or even higher, and what was learned is lost; or the
loss is not finite. So the control's first epoch decides the rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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


def rate_is_decided(context: Context, form: str = "") -> bool:
    """Return True if the control of this form has trained its first epoch at the common rate."""
    known = context.recall(memos.milder(form))
    return known is not None and known.decided


def lowered(context: Context, rate: float, failed: str | None, form: str = "") -> bool:
    """Return True if, after the first epoch of the control, all networks must train at a lower rate; the control
    then restarts. Otherwise, the rate is decided. It is lowered at most TIMES times, while wall seconds remain.

    Args:
        rate: the rate at which the epoch was trained.
        failed: how the epoch failed, as the end of a sentence; None if it did not fail.
    """
    before = times_lowered(context, form)
    room = before < TIMES and context.spent_s < context.plan.budget.wall_s
    if failed is None or not room or rate_is_decided(context, form):
        context.keep(memos.milder(form), memos.Milder(before, decided=True))
        return False
    context.keep(memos.milder(form), memos.Milder(before + 1))
    told = f"At a learning rate of {rate:.3g} the control's training {failed}."
    context.say(f"{told} All networks train at a third of this rate.", "warning")
    return True


@dataclass(frozen=True)
class Look:
    """The loss of one step, and the loss of a network that predicts nothing on the same batch."""

    loss: float
    blank: float


def blown_up(epoch: Sequence[Look]) -> str | None:
    """Return how the training blew up over these steps, as the end of a sentence, or None if it did not."""
    if not blew_up(epoch):
        return None
    return (
        f"blows up: its loss rises from {epoch[0].loss:.3g} to {np.mean([look.loss for look in epoch]):.3g}, and a "
        f"network that predicts nothing has a loss of {epoch[0].blank:.3g}"
    )


def blew_up(epoch: Sequence[Look]) -> bool:
    """Return True if, on average over these steps, a network had less than half of the knowledge that it began with."""
    if not epoch:
        return False
    losses, blanks = ([getattr(look, name) for look in epoch] for name in ("loss", "blank"))
    return losses[0] < blanks[0] and bool(np.mean(losses) > (losses[0] + np.mean(blanks)) / 2)

"""Common epochs: the number of epochs for the control, all samples and all finalists, chosen so that the wall seconds
suffice.
"""

from __future__ import annotations

from collections.abc import Sequence

from search import strategies
from workers.running import memos
from workers.running.context import Context

WITHOUT = 2
"""Number of training runs for which the wall seconds must be enough: the control and one finalist."""
WITH_SAMPLES = 6
"""The corresponding number if a strategy asks for full training runs, a few of which must also fit into the wall
seconds.
"""


def trains(context: Context) -> bool:
    """Return True if a strategy of the plan asks for full training runs."""
    return any(strategies.load(each.name).trains for each in context.plan.strategies)


def common_epochs(context: Context) -> int:
    """Return the number of epochs that all networks train for: the plan's number, or a smaller number if one was
    decided on.
    """
    known = context.recall(memos.COMMON_EPOCHS)
    return context.plan.training.epochs if known is None else known.epochs


def epochs_are_decided(context: Context) -> bool:
    """Return True if a run of the job has measured the control's speed."""
    return context.recall(memos.COMMON_EPOCHS) is not None


def decided_epochs(context: Context, done: int, epoch_s: float) -> int:
    """Return the common number of epochs, at least one; decide it now if no run of the job has decided it yet.

    Args:
        done: number of finished epochs of the control, with the plan's recipe.
        epoch_s: seconds that one of these epochs took; a finalist is smaller, so its epochs take no longer.
    """
    if not epochs_are_decided(context):
        wanted, left_s = context.plan.training.epochs, context.plan.budget.wall_s - context.spent_s
        trainings = WITH_SAMPLES if trains(context) else WITHOUT
        fits = (trainings * wanted - done) * epoch_s <= left_s
        # A shorter training run has a different learning-rate schedule, so epochs under the long schedule do not count.
        fewer = max(1, int(left_s / (trainings * epoch_s))) if left_s > 0 and not fits else 1
        context.keep(memos.COMMON_EPOCHS, memos.CommonEpochs(wanted if fits else min(wanted, fewer)))
        for warning in shortened(context):
            context.warn(warning)
    return common_epochs(context)


def shortened(context: Context) -> Sequence[str]:
    """Return a sentence if all networks trained for fewer epochs than the plan asks for."""
    wanted, epochs = context.plan.training.epochs, common_epochs(context)
    if epochs == wanted:
        return ()
    whom = "the control, a few samples and one finalist" if trains(context) else "the control and one finalist"
    wall = f"{context.plan.budget.wall_s:g} wall seconds are not enough for {wanted} epochs of {whom}"
    return (f"{wall}, so networks are trained for {epochs} epoch{'' if epochs == 1 else 's'}.",)

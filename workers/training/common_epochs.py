"""Common epochs: how long the control, every sample and every finalist train, so that the wall seconds last for it."""

from __future__ import annotations

from collections.abc import Sequence

from search import strategies
from workers.running import memos
from workers.running.context import Context

WITHOUT = 2
"""Trainings that the wall seconds must last for: the control and one finalist."""
WITH_SAMPLES = 6
"""Where a strategy asks for whole trainings, a few of those besides."""


def trains(context: Context) -> bool:
    """Whether a strategy of the plan asks for whole trainings."""
    return any(strategies.load(each.name).trains for each in context.plan.strategies)


def common_epochs(context: Context) -> int:
    """The epochs that all train for alike: those of the plan, or the fewer that were decided on."""
    known = context.recall(memos.COMMON_EPOCHS)
    return context.plan.training.epochs if known is None else known.epochs


def epochs_are_decided(context: Context) -> bool:
    """Whether a run of the job has looked at the control's pace."""
    return context.recall(memos.COMMON_EPOCHS) is not None


def decided_epochs(context: Context, done: int, epoch_s: float) -> int:
    """The same, decided where no run of the job has yet: at least one.

    Args:
        done: epochs of the control, at the plan's recipe.
        epoch_s: seconds that one of them took; an epoch of a finalist, which is smaller, takes no longer.
    """
    if not epochs_are_decided(context):
        wanted, left_s = context.plan.training.epochs, context.plan.budget.wall_s - context.spent_s
        trainings = WITH_SAMPLES if trains(context) else WITHOUT
        fits = (trainings * wanted - done) * epoch_s <= left_s
        # Fewer epochs are another schedule of learning rates: what is done of the long one counts for nothing.
        fewer = max(1, int(left_s / (trainings * epoch_s))) if left_s > 0 and not fits else 1
        context.keep(memos.COMMON_EPOCHS, memos.CommonEpochs(wanted if fits else min(wanted, fewer)))
        for warning in shortened(context):
            context.warn(warning)
    return common_epochs(context)


def shortened(context: Context) -> Sequence[str]:
    """One sentence where all trained for fewer epochs than the plan asks for."""
    wanted, epochs = context.plan.training.epochs, common_epochs(context)
    if epochs == wanted:
        return ()
    whom = "the control, a few samples and one finalist" if trains(context) else "the control and one finalist"
    wall = f"{context.plan.budget.wall_s:g} wall seconds do not last for {wanted} epochs of {whom}"
    return (f"{wall}: what is trained to its end is trained for {epochs}.",)

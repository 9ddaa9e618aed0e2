"""The recipe that the control, the samples and the finalists share."""

from __future__ import annotations

from compress.training.attention import taps
from compress.training.recipe import Augment, Recipe
from workers.evaluating.scores import scores_in_file
from workers.running import memos
from workers.running.context import Context
from workers.running.inputs import Inputs

STANDARD_ERRORS = 2.0


def recipe_of(context: Context, inputs: Inputs) -> Recipe:
    """Return the plan's recipe; `auto` augments as far as the task allows, and adds mirroring if the original scores as
    well on mirrored images.
    """
    training = context.plan.training
    augment = _chosen(context, inputs) if training.augment == "auto" else training.augment
    if training.attention and not taps(inputs.network):
        context.warn("The original has no step down in resolution, so attention transfer changes nothing.")
    return Recipe(epochs=training.epochs, augment=augment, attention=training.attention, seed=context.plan.seed)


def _chosen(context: Context, inputs: Inputs) -> Augment:
    allowed = inputs.task.augments
    if "crop_flip" in allowed and _bears_mirroring(context, inputs):
        return "crop_flip"
    return "crop" if "crop" in allowed else "none"


def _bears_mirroring(context: Context, inputs: Inputs) -> bool:
    known = context.recall(memos.MIRRORING)
    if known is None:
        known = _mirrored(context, inputs)
        context.keep(memos.MIRRORING, known)
        how = "with" if known.bears else "without"
        metric = context.plan.metric_row
        lost = f"{metric.told(known.lost)} of {metric.heading}"
        context.say(f"Mirrored images cost the original {lost}, so networks are trained {how} mirroring.")
    return known.bears


def _mirrored(context: Context, inputs: Inputs) -> memos.Mirroring:
    images, labels = inputs.validation
    model = inputs.network.save()
    with context.computing():
        plain = scores_in_file(inputs.task, model, images, labels)
        mirrored = scores_in_file(inputs.task, model, images.mirror(), labels)
    lost = plain - mirrored
    error = float(lost.std()) / len(lost) ** 0.5
    return memos.Mirroring(bool(lost.mean() <= STANDARD_ERRORS * error), float(lost.mean()))

"""The train phase: trains the control and the finalists with the same recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.errors import JobFailed
from workers.evaluating.evaluation_files import Material
from workers.phases.search import Result
from workers.phases.statistics import gathered, norm_count
from workers.profiling.time_original import original_scores
from workers.profiling.timed_device import Profile
from workers.progress import Evaluated
from workers.reporting.summary import interval_field, score_fields, summary, training_fields
from workers.running import memos
from workers.running.job_run import JobRun
from workers.training.finalists import finalists
from workers.training.recipe import recipe_of
from workers.training.trained import Trained
from workers.training.trainer import Trainer


@dataclass(frozen=True)
class Taught:
    """The trained networks, and the trainer with which verification trains smaller neighbours."""

    control: Trained
    finalists: Sequence[Trained]
    trainer: Trainer


def train(run: JobRun, result: Result, material: Material) -> Taught:
    """Choose the finalists; train the control and the finalists.

    Raises:
        JobFailed: the training of the control, or of every finalist, diverges.
        PoolBroken: no worker can be started.
        Halted: the user paused or cancelled the job.
    """
    chosen = run.context.once(memos.FINALISTS, lambda: _chosen(run, result))
    run.context.at("train", 0, len(chosen) + 1)
    trainer, control = _control(run, result.profile, material, chosen)
    metric, interval = run.context.plan.metric_row, run.inputs.task.interval(control.scores)
    known = {**score_fields(metric, control.score), **interval_field(metric, interval, len(control.scores))}
    run.summarise("control", summary(known, counts=control.counts, **training_fields(control)))
    trainer.ahead(chosen)
    return Taught(control, _trained(run, trainer, chosen), trainer)


def _chosen(run: JobRun, result: Result) -> Sequence[Evaluated]:
    found, count = result.profile, run.context.plan.budget.finalists
    known = result.evaluated if result.eligible is None else result.eligible
    return finalists(run.context, result.problem, found.builder, found.smallest, known, count)


def _control(run: JobRun, found: Profile, material: Material, chosen: Sequence[Evaluated]) -> tuple[Trainer, Trained]:
    """Return a trainer for the form of the network that trains better, and the control that it trained.

    If the control scores lower with the inserted batch norms, it is trained again without them.
    """
    recipe, total = recipe_of(run.context, run.inputs), len(chosen) + 1
    given_back = norm_count(material.network) != norm_count(run.inputs.network)
    trainer = Trainer(run, material, recipe, total)
    # While the form is in doubt, the control is trained first: finalists of the wrong form would be wasted.
    trainer.ahead(() if given_back else chosen)
    control = trainer.control()
    original = original_scores(run.context, run.inputs)
    if not control.ruined and run.inputs.task.compare(original, control.scores).low <= 0.0:
        return trainer, control
    lost = float(original.mean()) - (control.score if control.left is None else control.left)
    metric = run.context.plan.metric_row
    run.context.say(
        f"After training, the control is {metric.told(lost)} below the original's {metric.heading}.", "warning"
    )
    if not given_back or not _lasts_for_another(run, control):
        return trainer, control
    plain = Trainer(run, gathered(run.context, run.inputs, found, norms=False), recipe, total, form="plain-")
    plain.ahead()
    again = plain.control()
    if (not again.ruined, again.score) <= (not control.ruined, control.score):
        run.context.say("Removing the inserted batch norms did not improve the control; they are kept.")
        return trainer, control
    run.context.say("Removing the inserted batch norms improved the control; they are removed.")
    return plain, again


def _lasts_for_another(run: JobRun, control: Trained) -> bool:
    """Decide once and for all whether the wall seconds are enough for a second control and one finalist."""
    context = run.context

    def decide() -> memos.SecondControl:
        fits = context.spent_s + 2.0 * control.elapsed_s <= context.plan.budget.wall_s
        if not fits:
            text = "The wall seconds are not enough for a second control without the inserted batch norms."
            context.say(text, "warning")
        return memos.SecondControl(fits)

    return context.once(memos.SECOND_CONTROL, decide).fits


def _trained(run: JobRun, trainer: Trainer, chosen: Sequence[Evaluated]) -> list[Trained]:
    """Always train the first finalist; train each further finalist only if the wall seconds are enough for it."""
    context, done, longest_s = run.context, list[Trained](), 0.0
    for each in chosen:
        if done and not trainer.has(each.evaluation) and context.spent_s + longest_s > context.plan.budget.wall_s:
            trainer.out_of_time(each.evaluation)
            continue
        begun_s = context.spent_s
        trained = trainer.finalist(each.strategy, each.evaluation)
        longest_s = max(longest_s, context.spent_s - begun_s)
        done += [trained] if trained is not None else []
    if not done:
        raise JobFailed("finalists_diverged", "train", "the training of every finalist diverged or was stopped")
    return done

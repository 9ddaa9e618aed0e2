"""The statistics phase: computes the facts about a network that all strategies and candidates share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset import Part
from compress.errors import NotTheSame
from compress.graph.rewrites import rewritten
from compress.network import Network
from compress.pruning.reach import untrained
from compress.pruning.settle import settled
from compress.training.recipe import Recipe
from compress.training.renormalise import renormalise
from compress.training.restate import restated
from search.candidate import Candidate
from search.evaluation import Status
from search.space import Space
from workers.evaluating.evaluation_files import Material
from workers.evaluating.evaluator import QUICK, EvaluatorFactory
from workers.evaluating.passes import fastest
from workers.evaluating.scores import scores_in_file
from workers.pools.pool import Pool
from workers.problem.layer_errors import layer_errors
from workers.problem.sensitivity import Looks, Place
from workers.profiling.timed_device import Profile
from workers.running import memos
from workers.running.common_rate import common_rate
from workers.running.context import Context
from workers.running.inputs import Inputs
from workers.running.job_run import JobRun
from workers.training.common_epochs import common_epochs, trains
from workers.training.control_ahead import control_ahead
from workers.training.recipe import recipe_of

SHORT_IMAGES = 2048
"""Number of training images for F3's short distillation."""
TRAINING_BYTES = 2**30
"""Maximum number of bytes of training images for full training runs (F4); a sample is drawn from a larger set."""
_WAIT_S = 1.0
SLOWEST = 5.0
"""Multiple of the control's training time that a sample may take, because L-C is slower and other work may run beside
it.
"""


def gathered(context: Context, inputs: Inputs, profile: Profile, norms: bool = True) -> Material:
    """Write the files from which candidates are evaluated. They are written once; a restarted run uses them again.

    Args:
        norms: True if layers without a batch norm get one for training.

    Raises:
        Halted: the user paused or cancelled the job.
    """
    methods = tuple((method.name, dict(method.settings)) for method in context.plan.methods)
    name = "material" if norms else "material-plain"
    material = Material(context.folder(name), methods, context.plan.task)
    if context.file(name) is not None and material.complete:
        return material
    context.at("statistics", 0, 3)
    effort = context.plan.effort
    images, labels = inputs.reference(effort.renormalise_images)
    with context.computing():
        network = trainable(inputs, profile, images, context.warn, norms)
    context.at("statistics", 1, 3)
    with context.computing():
        evidence = material.scheme.gather(network, images, inputs.targets(labels), context.plan.seed)
    for note in (*evidence.notes, *(untrained(network) if context.plan.training.epochs else ())):
        context.warn(note)
    short = inputs.dataset.sample("train", SHORT_IMAGES, context.plan.seed)
    ranking = inputs.ranking(effort.accuracy_images)
    training = _for_training(context, inputs) if trains(context) else None
    with context.computing():
        passes = fastest(network, images)
    mark = material.write(network, ranking, images, evidence, short, inputs.preprocessing, training, passes)
    context.keep_file(name, mark)
    context.say(f"Gathered statistics of {len(evidence.importance)} blocks on {len(images)} training images.")
    return material


def _for_training(context: Context, inputs: Inputs) -> Part:
    train = inputs.dataset.train
    count = min(len(train), max(TRAINING_BYTES * len(train) // max(train.images.nbytes, 1), SHORT_IMAGES))
    if count < len(train):
        context.warn(
            f"The search trains its samples on {count} of {len(train)} images; finalists are trained on all images."
        )
    return inputs.dataset.sample("train", count, context.plan.seed)


def trainable(
    inputs: Inputs, profile: Profile, images: NDArray[np.float32], warn: Callable[[str], None], norms: bool = True
) -> Network:
    """Return the network in its trainable form, with the same rewrites as its fast form.

    Its batch norms are kept, but their statistics are replaced if those of the images are very different. Missing
    batch norms are inserted if `norms` is True. Constant channels are set to zero. A preparation that would change the
    network's function is left out, with a warning.
    """
    made = rewritten(inputs.network) if profile.network is inputs.rewritten else inputs.network
    for prepare in (restated, settled, *((renormalise,) if norms else ())):
        try:
            made = prepare(made, images)
        except NotTheSame as error:
            warn(f"The network is trained without this preparation: {error.message}.")
    return made


def norm_count(network: Network) -> int:
    """Return the number of batch norms in a network."""
    return sum(node.op_type == "BatchNormalization" for node in network.nodes)


def sensitivities(context: Context, space: Space, material: Material, pool: Pool) -> Mapping[str, NDArray[np.float64]]:
    """Map each knob to (levels,) scores: the score with this knob at each level and all others as in the original.

    Most scores of knobs with layer errors are inferred from a few quick evaluations.
    """
    if context.file("sensitivity") is not None and material.sensitivity:
        return material.sensitivity
    looks = Looks.of(space, layer_errors(space, material))
    wanted = {place: _look(space, place) for place in looks.places}
    whole = Candidate("sensitivity-whole", space.whole, origin="statistics", recipe=QUICK)
    scores = _looked(context, material, pool, [whole, *wanted.values()])
    found = looks.sensitivities(scores[whole.id], {place: scores[each.id] for place, each in wanted.items()})
    context.keep_file("sensitivity", material.write_sensitivity(found))
    if found:
        inferred = sum(int((~each.looked).sum()) for each in found.values())
        context.say(
            f"Measured the sensitivity of {len(found)} knobs with {len(scores)} quick evaluations; the scores of the "
            f"other {inferred} levels are inferred from these and from layer errors."
        )
    return {name: each.scores for name, each in found.items()}


def _look(space: Space, place: Place) -> Candidate:
    name, level = place
    knob = next(knob for knob in space.levelled if knob.name == name)
    values = {**space.whole, name: knob.value(level)}
    return Candidate(f"sensitivity-{name}-{values[name]}", values, origin="statistics", recipe=QUICK)


def _looked(context: Context, material: Material, pool: Pool, wanted: Sequence[Candidate]) -> dict[str, float]:
    """Return candidate id -> score. Each score is recorded at once, so that a later run does not evaluate it again."""
    memo = memos.looks(material.network.digest)
    known = context.recall(memo) or {}
    scores = {each.id: known[each.id] for each in wanted if each.id in known}
    for candidate in wanted:
        if candidate.id not in scores:
            pool.submit(candidate)
    while len(scores) < len(wanted):
        done = pool.next(_WAIT_S)
        if done is not None:
            # A level that cannot be evaluated counts as score 0.
            completed = done.status is Status.COMPLETED
            scores[done.candidate.id] = done.metrics[context.plan.metric] if completed else 0.0
            context.keep(memo, scores)
        context.at("statistics", 2 + len(scores) / len(wanted), 3)
    return scores


@dataclass(frozen=True)
class Statistics:
    """The facts computed once about a network, and the pool that goes on to evaluate candidates.

    If the search trains networks, `reference` is the control's score on the ranking images, and `training` is the
    recipe of the training runs.
    """

    material: Material
    curves: Mapping[str, NDArray[np.float64]]
    reference: float | None
    training: Recipe
    pool: Pool


@contextmanager
def statistics(run: JobRun, found: Profile) -> Iterator[Statistics]:
    """Gather the statistics; the pool that measured the sensitivities stays open for the search.

    Raises:
        JobFailed: the search compares fully trained networks with the control, and the control's training diverges.
        PoolBroken: no evaluator can be started.
        Halted: the user paused or cancelled the job.
    """
    context, effort = run.context, run.context.plan.effort
    material = gathered(context, run.inputs, found)
    reference, training, deadline_s = None, Recipe(), effort.candidate_s
    if trains(context):
        control = control_ahead(run, material)
        with context.computing():
            reference = float(scores_in_file(material.task, control.model, *material.ranking).mean())
        recipe = recipe_of(context, run.inputs)
        training = replace(recipe, epochs=common_epochs(context), lr=common_rate(context, recipe.lr))
        deadline_s += SLOWEST * control.elapsed_s
    factory = EvaluatorFactory(material, training=training)
    with run.executor.pool(factory, effort.processes, deadline_s, context.lock.shared) as pool:
        curves = sensitivities(context, found.builder.space, material, pool)
        yield Statistics(material, curves, reference, training, pool)

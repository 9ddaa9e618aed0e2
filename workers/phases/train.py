"""The train phase: the finalists and the control, the unpruned network, through one and the same recipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from compress.counting.count import Form
from compress.errors import TrainingDiverged
from compress.graph.fold import fold_norms
from compress.method import AFTER_TRAINING, Stage
from compress.network import Network
from compress.training.checkpoint import Checkpoint
from compress.training.direct import fine_tune
from compress.training.fit import Step
from compress.training.recipe import Augment, Recipe
from search.candidate import Candidate
from search.evaluation import NAN, Evaluation, Status
from search.knowledge import values_key
from search.problem import Problem
from search.ranking.nearness import guesses
from search.ranking.preference import preference
from workers.errors import Diverged, JobFailed
from workers.evaluating.accuracy import Right, right_in_file
from workers.evaluating.evaluation_files import Material
from workers.evaluating.evaluator import CutEvaluator
from workers.evaluating.whole_training import without_zeros
from workers.pools.executor import Executor
from workers.problem.counted import counted
from workers.problem.estimated import estimated
from workers.progress import Evaluated, Phase
from workers.running import durable
from workers.running.context import Context
from workers.running.inputs import Inputs
from workers.training.common_epochs import common_epochs, decided_epochs, epochs_are_decided
from workers.training.parallel_training import CONTROL, Course, Ended, Epoch, Lesson

FINALIST = "finalist-"
STANDARD_ERRORS = 2.0


@dataclass(frozen=True)
class Trained:
    """A network after the recipe, as the file it will be. `right`: validation images it gets right.

    `values` is empty for the control; `elapsed_s` is the time that training took, over all runs of the job; `epochs`
    include those of the sample that it went on from.
    """

    name: str
    strategy: str | None
    values: Mapping[str, Any]
    path: Path
    right: Right
    counts: Mapping[str, float]
    predicted: Mapping[str, float]
    elapsed_s: float = 0.0
    epochs: int = 0

    @property
    def candidate_id(self) -> str:
        """Of the candidate that was trained."""
        return self.name.removeprefix(FINALIST)

    @property
    def accuracy(self) -> float:
        """On the whole validation part."""
        return float(self.right.mean())

    @property
    def model(self) -> bytes:
        """The ONNX file."""
        return self.path.read_bytes()


class Trainer:
    """Trains one network after another; each finished one, and each epoch of the one at hand, survives a crash.

    `ahead` lets an executor train several side by side first, from the same checkpoints and to the same ones.

    Args:
        recipe: the same for all, but for its epochs: `workers.training.common_epochs` decides them on the control.
        total: how many networks are to be trained, for the progress.
        form: names the form of the network in checkpoints, where more than one is tried.
        phase: that the progress is of.
    """

    def __init__(
        self,
        context: Context,
        inputs: Inputs,
        material: Material,
        recipe: Recipe,
        total: int,
        form: str = "",
        phase: Phase = "train",
    ) -> None:
        self._context = context
        self._inputs = inputs
        self._material = material
        self._recipe = replace(recipe, epochs=common_epochs(context))
        self._evaluator = CutEvaluator(material, len(material.ranking[1]))
        self._form = form
        self._phase: Phase = phase
        self._seconds: dict[str, float] = {}
        """Name -> seconds that its training has taken."""
        self._done = 0
        self._total = total
        self.given_up: dict[str, str] = {}
        """Candidate id -> why its training was not brought to its end."""

    def has(self, evaluation: Evaluation) -> bool:
        """Whether this candidate's training is over, here or in an earlier run."""
        name = f"{FINALIST}{evaluation.candidate.id}"
        return self._is_trained(name) or self._end(name) is not None

    def ahead(self, executor: Executor, chosen: Sequence[Evaluated] = ()) -> None:
        """Train the control and these candidates as far as the executor does that; the control is never stopped.

        Raises:
            Halted: the user wants it.
            PoolBroken: no worker comes up.
        """
        if not executor.side_by_side or self._recipe.epochs == 0:
            return
        if not self._is_trained(CONTROL) and not epochs_are_decided(self._context):
            self._fitted(CONTROL, self._material.network, {}, epochs=1)
        makers: dict[str, Callable[[], Network]] = {CONTROL: lambda: self._material.network}
        for each in chosen:
            makers[f"{FINALIST}{each.evaluation.candidate.id}"] = partial(self._source, each.evaluation)
        open_names = [name for name in makers if not self._is_trained(name) and self._end(name) is None]
        if not open_names:
            return
        context = self._context
        values = {f"{FINALIST}{each.evaluation.candidate.id}": each.evaluation.candidate.values for each in chosen}
        lessons = {name: self._lesson(name, makers[name](), values.get(name, {})) for name in open_names}
        samples = (each.evaluation.candidate.id for each in chosen if each.evaluation.network)
        course = Course(
            lessons=lessons,
            spared=frozenset([CONTROL, *(f"{FINALIST}{each}" for each in samples)]),
            folder=context.folder("course"),
            processes=max(1, context.plan.effort.processes),
            left_s=context.plan.budget.wall_s - context.spent_s,
            by_accuracy=context.plan.objective_metric == "accuracy",
            one_trained=any(self._reached_the_end(name) for name in makers if name != CONTROL),
            note=self._noted(lessons),
            interrupted=lambda: context.ports.signal() != "continue",
        )
        for name, ended in executor.train(course).items():
            context.keep(f"{self._training(name)}-ended", {"state": ended.state, "reason": ended.reason})
        context.check()

    def _noted(self, lessons: Mapping[str, Lesson]) -> Callable[[str, Epoch, float], None]:
        """What is done at the end of each epoch of trainings that go on side by side."""
        done: dict[str, float] = {}

        def note(name: str, epoch: Epoch, wall_s: float) -> None:
            context, file = self._context, self._training(name)
            context.keep_file(file, lessons[name].checkpoint)
            context.keep(f"{file}-seconds", {"elapsed_s": self._spent_s(name) + epoch.elapsed_s})
            context.spent_s += wall_s
            done[name] = epoch.epoch / epoch.epochs
            whole = self._done + sum(done.values())
            context.at(self._phase, whole, max(self._total, whole))

        return note

    def _lesson(self, name: str, network: Network, values: Mapping[str, Any]) -> Lesson:
        context, plan = self._context, self._context.plan
        folder, file = context.folder("course"), self._training(name)
        saved = context.file(file) or context.folder("checkpoints") / f"{file}.safetensors"
        return Lesson(
            plan=plan,
            model=context.ports.path(plan.model.sha256),
            dataset=context.ports.path(plan.dataset.sha256),
            recipe=self._recipe,
            network=durable.write(folder / f"{file}.onnx", network.save()),
            checkpoint=saved,
            values=values,
            guard=context.lock.shared,
            images=plan.effort.accuracy_images,
        )

    def _is_trained(self, name: str) -> bool:
        return self._context.recall(f"trained-{self._form}{_plain(name)}") is not None

    def _reached_the_end(self, name: str) -> bool:
        """Whether it was trained to the end, here or by an executor."""
        end = self._end(name)
        return self._is_trained(name) or (end is not None and end.state == "trained")

    def _training(self, name: str) -> str:
        return f"training-{self._form}{self._recipe.epochs}-{_plain(name)}"

    def _end(self, name: str) -> Ended | None:
        """How a training by an executor ended, if it did."""
        known = self._context.recall(f"{self._training(name)}-ended")
        return Ended(known["state"], known["reason"]) if known is not None else None

    def _spent_s(self, name: str) -> float:
        known = self._context.recall(f"{self._training(name)}-seconds")
        return float(known["elapsed_s"]) if known is not None else 0.0

    def _source(self, evaluation: Evaluation) -> Network:
        """What a finalist is trained from: the original, cut, or what a sample (F4) has become, which goes on."""
        candidate = evaluation.candidate
        if not self._goes_on(evaluation):
            return self._evaluator.cut(candidate)[0].to_network()
        assert evaluation.network is not None
        bound = self._material.scheme.bind(candidate.values)
        return without_zeros(self._material, self._material.kept(evaluation.network), bound)

    def _goes_on(self, evaluation: Evaluation) -> bool:
        """Whether it starts from a sample, in whose form it is."""
        if evaluation.network is None or self._form:
            return False
        if self._material.has(evaluation.network):
            return True
        self._context.say(f"The file of {evaluation.candidate.id} is lost: it is trained from the original.", "warning")
        return False

    def control(self) -> Trained:
        """The unpruned network, in the form that all candidates are cut from.

        Raises:
            JobFailed: it diverges: then no finalist could be judged.
        """
        end = self._end(CONTROL)
        try:
            if end is not None and end.state == "diverged":
                raise Diverged(end.reason)
            return self._trained(CONTROL, None, self._material.network, None, {})
        except (TrainingDiverged, Diverged) as error:
            raise JobFailed("control_diverged", "train", f"the control's training diverged: {error}") from error

    def finalist(self, strategy: str, evaluation: Evaluation) -> Trained | None:
        """One candidate of the search; None where its training diverges or was stopped, which is recorded."""
        candidate = evaluation.candidate
        name = f"{FINALIST}{candidate.id}"
        end = self._end(name)
        try:
            if end is not None and end.state == "diverged":
                raise Diverged(end.reason)
            if end is not None and end.state == "stopped":
                self._context.say(f"Training of {candidate.id} was stopped: {end.reason}.")
                self._tell_end(strategy, candidate, Status.STOPPED, end.reason, self._spent_s(name))
                return None
            predicted = {k: v for k, v in evaluation.metrics.items() if k != "accuracy"}
            before = self._material.epochs(evaluation.network or "") if self._goes_on(evaluation) else 0
            return self._trained(name, strategy, self._source(evaluation), candidate, predicted, before)
        except (TrainingDiverged, Diverged) as error:
            self._context.say(f"Training of {candidate.id} diverged and is given up: {error}", "warning")
            self._tell_end(strategy, candidate, Status.FAILED, NAN, self._spent_s(name))
            return None

    def give_up(self, evaluation: Evaluation, reason: str) -> None:
        """Leave a candidate out whose training has not begun."""
        self._context.say(f"{evaluation.candidate.id} is not trained: {reason}.", "warning")
        self.given_up[evaluation.candidate.id] = reason

    def _tell_end(self, strategy: str, candidate: Candidate, status: Status, reason: str, elapsed_s: float) -> None:
        self.given_up[candidate.id] = "diverged" if reason == NAN else reason
        own = replace(candidate, id=f"{candidate.id}-trained", fidelity="F4", recipe="", weights_from=None)
        if own.id not in {each.evaluation.candidate.id for each in self._context.recorded.evaluations}:
            given_up = Evaluation(own, status, elapsed_s=elapsed_s, reason=reason)
            self._context.ports.emit(Evaluated(strategy, given_up))

    def _trained(
        self,
        name: str,
        strategy: str | None,
        network: Network,
        candidate: Candidate | None,
        predicted: Mapping[str, float],
        epochs_before: int = 0,
    ) -> Trained:
        values: Mapping[str, Any] = candidate.values if candidate is not None else {}
        file = f"trained-{self._form}{_plain(name)}"
        known = self._context.recall(file)
        path = self._context.file(f"{file}-onnx")
        if known is None or path is None:
            trained = self._fitted(name, network, values)
            final = self._final(trained, candidate)
            model = final.save()
            path = self._context.keep_bytes(f"{file}-onnx", model, ".onnx")
            with self._context.computing():
                right = right_in_file(model, *self._inputs.validation)
            counts = counted(Form(self._final(trained, candidate, "sparsity"), final, model))
            known = {"right": right.astype(int).tolist(), "counts": counts, "predicted": dict(predicted)}
            known |= {"elapsed_s": self._seconds[name], "epochs": epochs_before + self._recipe.epochs}
            self._context.keep(file, known)
            said = f"accuracy {right.mean():.2%} on {len(right)} validation images"
            self._context.say(f"{_label(name)}{', without given-back norms' if self._form else ''}: {said}.")
        self._done += 1
        right = np.array(known["right"], dtype=bool)
        facts = known["counts"], known["predicted"], known["elapsed_s"], known["epochs"]
        return Trained(name, strategy, values, path, right, *facts)

    def _fitted(self, name: str, network: Network, values: Mapping[str, Any], epochs: int | None = None) -> Network:
        """Trained with distillation from the original, checkpointed each epoch, resumed where there is one.

        Args:
            epochs: after which to leave off; None: at the end of the recipe.
        """
        context = self._context
        file = self._training(name)
        saved = context.file(file)
        checkpoint = saved.read_bytes() if saved is not None else None
        part = self._inputs.dataset.train
        bound, pixels = self._material.scheme.bind(values), self._inputs.preprocessing
        steps = fine_tune(network, part, pixels, self._recipe, bound, self._inputs.network, checkpoint)
        self._seconds[name] = self._spent_s(name)
        last: Network | None = None
        while True:
            with context.computing():
                # Within the lock: an agent that times in quiet meanwhile does not use up the job's seconds.
                begun_s = context.clock_s()
                step = next(steps, None)
                if step is not None and step.last_of_epoch:
                    context.keep_bytes(file, step.checkpoint(), ".safetensors")
                    last = step.network()
                elapsed_s = context.clock_s() - begun_s
            context.spent_s += elapsed_s
            self._seconds[name] += elapsed_s
            if step is None:
                break
            if step.last_of_epoch:
                context.keep(f"{file}-seconds", {"elapsed_s": self._seconds[name]})
                if name == CONTROL and self._shortens(step):
                    return network if epochs else self._fitted(name, network, values)
            self._progress(step)
            if step.last_of_epoch and step.epoch + 1 == epochs:
                break
        if last is not None:
            return last
        return network if checkpoint is None else network.with_constants(Checkpoint.from_bytes(checkpoint).weights)

    def _shortens(self, step: Step) -> bool:
        """After an epoch of the control: whether all train for fewer from now on, itself from the beginning."""
        done = step.epoch + 1
        before, epochs = self._recipe.epochs, decided_epochs(self._context, done, self._seconds[CONTROL] / done)
        self._recipe = replace(self._recipe, epochs=epochs)
        return epochs < before

    def _progress(self, step: Step) -> None:
        if step.last_of_epoch:
            done = self._done + (step.step + 1) / step.steps
            self._context.at_even(self._phase, done, max(self._total, done))
        else:
            self._context.check()

    def _final(self, network: Network, candidate: Candidate | None, *stages: Stage) -> Network:
        """Batch norms folded away, then what the candidate chose of these stages; of all after training, if none."""
        folded = fold_norms(network)
        if candidate is None:
            return folded
        bound = self._material.scheme.bind(candidate.values)
        return bound.rewrite(folded, replace(self._material.evidence, statistics=None), *(stages or AFTER_TRAINING))


def recipe_of(context: Context, inputs: Inputs) -> Recipe:
    """The plan's recipe; `auto` adds mirroring if the original classifies mirrored images as well."""
    training = context.plan.training
    if training.augment != "auto":
        augment: Augment = training.augment
    else:
        augment = "crop_flip" if _bears_mirroring(context, inputs) else "crop"
    return Recipe(epochs=training.epochs, augment=augment, seed=context.plan.seed)


def _bears_mirroring(context: Context, inputs: Inputs) -> bool:
    known = context.recall("mirroring")
    if known is None:
        images, labels = inputs.validation
        model = inputs.network.save()
        with context.computing():
            plain = right_in_file(model, images, labels)
            mirrored = right_in_file(model, images.mirror(), labels)
        lost = plain.astype(float) - mirrored.astype(float)
        error = float(lost.std()) / len(lost) ** 0.5
        known = {"bears": bool(lost.mean() <= STANDARD_ERRORS * error), "lost": float(lost.mean())}
        context.keep("mirroring", known)
        how = "with" if known["bears"] else "without"
        context.say(f"Mirrored images cost the original {lost.mean():.2%} of accuracy: training {how} mirroring.")
    return bool(known["bears"])


def chosen_finalists(evaluated: Sequence[Evaluated], problem: Problem, count: int) -> list[Evaluated]:
    """The best feasible candidates of the search by the problem's own estimates, each set of values once; the
    nearest if none is feasible: that of the smallest violation, as accuracy is judged after training, but none that
    guesses.

    Trained samples (F4) and untrained proxies (F2) cannot be compared: the best of each takes its place in turn.
    """
    old = [e for e in evaluated if e.evaluation.status is Status.COMPLETED and e.evaluation.candidate.searched]
    renewed = estimated([each.evaluation for each in old], problem)
    searched = [
        replace(each, evaluation=newest, feasible=problem.feasible(newest.metrics))
        for each, newest in zip(old, renewed, strict=True)
    ]

    def rank(each: Evaluated) -> tuple[float | str, ...]:
        metrics = each.evaluation.metrics
        # Nothing is trained on that guesses before training, while anything else is there.
        blind = not each.feasible and guesses(metrics.get("accuracy", 0.0), problem.chance, problem.images or 1)
        own = preference(problem.objective.utility(metrics), metrics)
        return blind, problem.violation(metrics), *own, each.evaluation.candidate.id

    ordered = sorted(searched, key=rank)
    kinds: dict[str, list[Evaluated]] = {}
    for each in ordered:
        if each.feasible:
            kinds.setdefault(each.evaluation.candidate.fidelity, []).append(each)
    in_turn = [each for turn in zip_longest(*(kinds[name] for name in sorted(kinds, reverse=True))) for each in turn]
    unique: dict[str, Evaluated] = {}
    for each in in_turn:
        if each is not None:
            unique.setdefault(values_key(each.evaluation.candidate.values), each)
    return list(unique.values())[:count] or ordered[:1]


def _plain(name: str) -> str:
    """The name of a file: ids of third parties may hold anything."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _label(name: str) -> str:
    return "The control" if name == CONTROL else name.removeprefix(FINALIST)

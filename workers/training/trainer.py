"""Trainer: trains the control and the finalists, one after another, with the same recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

from compress.errors import TrainingDiverged
from compress.network import Network
from compress.training.best_epoch import BestEpoch
from compress.training.checkpoint import Checkpoint
from compress.training.fit import Step
from compress.training.recipe import Recipe
from search.candidate import Candidate
from search.evaluation import NAN, Evaluation, Status
from workers.errors import Diverged, JobFailed
from workers.evaluating.epoch_score import epoch_score, images_rated
from workers.evaluating.evaluation_files import Material
from workers.evaluating.evaluator import CutEvaluator
from workers.evaluating.whole_training import without_zeros
from workers.profiling.time_original import original_scores
from workers.progress import Evaluated, Phase
from workers.running.common_rate import Look, blown_up, common_rate, lowered, rate_is_decided, times_lowered
from workers.running.job_run import JobRun
from workers.training.common_epochs import common_epochs, decided_epochs, epochs_are_decided
from workers.training.contenders import Contenders, Made
from workers.training.parallel_training import CONTROL, Epoch
from workers.training.side_by_side import Pupil, SideBySide
from workers.training.trained import GivenUp, Trained, finalist_name
from workers.training.training_records import TrainingRecords


class Trainer:
    """Trains one network after another. Finished networks and finished epochs of the current network survive a crash.

    `ahead` lets an executor train several networks in parallel first, with the same checkpoints.

    Args:
        recipe: the recipe of all networks, except for epochs and learning rate, which
            `workers.training.common_epochs` and `workers.running.common_rate` decide while the control is trained.
        total: number of networks to be trained, for the progress.
        form: the name of the network's form in checkpoints, if more than one form is tried.
        phase: the phase for which progress is reported.
    """

    def __init__(
        self,
        run: JobRun,
        material: Material,
        recipe: Recipe,
        total: int,
        form: str = "",
        phase: Phase = "train",
    ) -> None:
        self._run = run
        self._context = run.context
        self._inputs = run.inputs
        self._material = material
        self._rate = recipe.lr
        lr = common_rate(run.context, recipe.lr, form)
        self._recipe = replace(recipe, epochs=common_epochs(run.context), lr=lr)
        self._evaluator = CutEvaluator(material, len(material.ranking[1]))
        self._form = form
        self._phase: Phase = phase
        self._seconds: dict[str, float] = {}
        """Map of each network's name to the seconds that its training has taken."""
        self._done = 0
        self._total = total
        self.given_up: dict[str, GivenUp] = {}
        """Map of each candidate id to the reason why the candidate's training was not completed."""

    def has(self, evaluation: Evaluation) -> bool:
        """Return True if this candidate's training is over, in this run or an earlier run."""
        name = finalist_name(evaluation.candidate.id)
        return self._records.is_over(name)

    def ahead(self, chosen: Sequence[Evaluated] = ()) -> None:
        """Train the control and these candidates if the executor trains in parallel; the control is never stopped.

        Raises:
            JobFailed: the control diverges, so that no finalist could be judged.
            Halted: the user paused or cancelled the job.
            PoolBroken: no worker can be started.
        """
        if not self._run.executor.side_by_side or self._recipe.epochs == 0:
            return
        decided = epochs_are_decided(self._context) and rate_is_decided(self._context, self._form)
        if not self._records.is_over(CONTROL) and not decided:
            with _needed_control():
                self._fitted(CONTROL, self._material.network, {}, epochs=1)
        pupils = [Pupil(CONTROL, {}, lambda: self._material.network, spared=True)]
        pupils += [self._pupil(each.evaluation) for each in chosen]
        SideBySide(self._run, self._records, self._recipe, self._shown).train(pupils)

    def _pupil(self, evaluation: Evaluation) -> Pupil:
        candidate = evaluation.candidate
        name, spared = finalist_name(candidate.id), evaluation.network is not None
        return Pupil(name, candidate.values, partial(self._source, evaluation), spared)

    def _shown(self, ahead: float) -> None:
        """Report the progress of parallel training, counted in trained networks."""
        done = self._done + ahead
        self._context.at(self._phase, done, max(self._total, done))

    @property
    def _records(self) -> TrainingRecords:
        return TrainingRecords(self._context, self._form, self._recipe.epochs, times_lowered(self._context, self._form))

    def _source(self, evaluation: Evaluation) -> Network:
        """Return the network that a finalist's training starts from: the cut original, or the network of its sample
        (F4), whose training continues.
        """
        candidate = evaluation.candidate
        if not self._goes_on(evaluation):
            return self._evaluator.cut(candidate)[0].to_network()
        assert evaluation.network is not None
        bound = self._material.scheme.bind(candidate.values)
        return without_zeros(self._material, self._material.kept(evaluation.network), bound)

    def _goes_on(self, evaluation: Evaluation) -> bool:
        """Return True if the finalist continues a sample of the current form."""
        if evaluation.network is None or self._form:
            return False
        if self._material.has(evaluation.network):
            return True
        self._context.say(
            f"The file of {evaluation.candidate.id} is lost; training starts from the original.", "warning"
        )
        return False

    def control(self) -> Trained:
        """Train the unpruned network, in the form from which all candidates are cut; return it after its best epoch, or
        untrained if training ruins it.

        Raises:
            JobFailed: training diverges, so that no finalist could be judged.
        """
        end = self._records.end(CONTROL)
        with _needed_control():
            if end is not None and end.state == "diverged":
                raise Diverged(end.reason)
            made = self._trained(CONTROL, None, self._material.network, None, {})
            before = float(original_scores(self._context, self._inputs).mean())
            return self._contenders.judged(made, self._material.network, None, before)

    def finalist(self, strategy: str, evaluation: Evaluation) -> Trained | None:
        """Train one candidate of the search; return it trained, after its best epoch or untrained, whichever scores the
        highest. If the training diverges or was stopped, this is recorded, and None is returned.
        """
        candidate = evaluation.candidate
        name = finalist_name(candidate.id)
        end = self._records.end(name)
        try:
            if end is not None and end.state == "diverged":
                raise Diverged(end.reason)
            if end is not None and end.state == "stopped":
                self._context.say(f"Training of {candidate.id} was stopped: {end.reason}.")
                self.given_up[candidate.id] = GivenUp(end.reason, end.out_of_time)
                self._tell_end(strategy, candidate, Status.STOPPED, end.reason, self._records.spent_s(name))
                return None
            predicted = {k: v for k, v in evaluation.metrics.items() if k != self._context.plan.metric}
            before = self._material.epochs(evaluation.network or "") if self._goes_on(evaluation) else 0
            source = self._source(evaluation)
            made = self._trained(name, strategy, source, candidate, predicted, before)
            score = evaluation.metrics.get(self._context.plan.metric)
            return self._contenders.judged(made, source, candidate, score, before)
        except (TrainingDiverged, Diverged) as error:
            self._context.say(f"Training of {candidate.id} diverged and was abandoned: {error}", "warning")
            self.given_up[candidate.id] = GivenUp("diverged")
            self._tell_end(strategy, candidate, Status.FAILED, NAN, self._records.spent_s(name))
            return None

    def out_of_time(self, evaluation: Evaluation) -> None:
        """Leave out a candidate whose training has not started, because the wall seconds are not enough for its
        training.
        """
        given_up = GivenUp("the wall seconds are not enough for it", out_of_time=True)
        self._context.say(f"{evaluation.candidate.id} is not trained: {given_up.reason}.", "warning")
        self.given_up[evaluation.candidate.id] = given_up

    def _tell_end(self, strategy: str, candidate: Candidate, status: Status, reason: str, elapsed_s: float) -> None:
        own = replace(
            candidate, id=f"{candidate.id}-trained", fidelity="F4", recipe="", weights_from=None, after_search=True
        )
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

        def make() -> Made:
            last = self._fitted(name, network, values)
            scores, epochs = self._records.best_epoch(name).scores, epochs_before + self._recipe.epochs
            return Made(last, epochs, self._seconds.get(name, 0.0), predicted, scores)

        facts, path = self._contenders.looked_at(name, make, candidate)
        self._done += 1
        return Trained(
            name=name,
            candidate_id=candidate.id if candidate is not None else CONTROL,
            strategy=strategy,
            values=values,
            path=path,
            scores=facts.scores,
            counts=facts.counts,
            predicted=facts.predicted,
            elapsed_s=facts.elapsed_s,
            epochs=facts.epochs,
            ended_at=facts.epochs,
            epoch_scores=facts.epoch_scores,
        )

    @property
    def _contenders(self) -> Contenders:
        return Contenders(self._run, self._material, self._records)

    def _fitted(self, name: str, network: Network, values: Mapping[str, Any], epochs: int | None = None) -> Network:
        """Train with distillation from the original; rate the network and write a checkpoint after each epoch, and
        resume from a checkpoint if there is one. Return the network after the last epoch.

        Args:
            epochs: number of epochs after which to stop; None means the recipe's number.
        """
        context, records = self._context, self._records
        saved = context.file(records.checkpoint(name))
        checkpoint = saved.read_bytes() if saved is not None else None
        steps, best = self._steps(network, values, checkpoint), BestEpoch.of(checkpoint)
        self._seconds[name] = since_s = records.spent_s(name)
        last: Network | None = None
        first, losses = list[Look](), list[float]()
        while True:
            with context.computing():
                # The time is measured while the lock is held, so that waiting for an agent's timings does not use up
                # the job's seconds.
                begun_s = context.clock_s()
                step, milder = self._advanced(name, steps, first)
                losses += [] if step is None else [step.loss]
                if step is not None and step.last_of_epoch and not milder:
                    last = step.network()
                    best = best.after(step.epoch, self._rated(last), last)
                    elapsed_s = self._seconds[name] - since_s + context.clock_s() - begun_s
                    epoch = Epoch(step.epoch + 1, step.epochs, best.scores[-1], elapsed_s, fmean(losses))
                    content = step.checkpoint(best.arrays)
                    context.keep_bytes(records.checkpoint(name), content, ".safetensors", records.told(name, epoch))
                elapsed_s = context.clock_s() - begun_s
            context.spent_s += elapsed_s
            self._seconds[name] += elapsed_s
            if milder:
                return self._fitted(name, network, values, epochs)
            if step is None:
                break
            if step.last_of_epoch:
                since_s, losses = self._seconds[name], []
                records.note_spent(name, self._seconds[name])
                if name == CONTROL and self._shortens(step):
                    return network if epochs else self._fitted(name, network, values)
            self._progress(step)
            # It may have resumed after that epoch: an earlier run died between its checkpoint and the decision.
            if step.last_of_epoch and epochs is not None and step.epoch + 1 >= epochs:
                break
        if last is not None:
            return last
        return network if checkpoint is None else network.with_constants(Checkpoint.from_bytes(checkpoint).weights)

    def _steps(self, network: Network, values: Mapping[str, Any], checkpoint: bytes | None) -> Iterator[Step]:
        inputs = self._inputs
        part, pixels, bound = inputs.dataset.train, inputs.preprocessing, self._material.scheme.bind(values)
        return self._run.fine_tune(network, part, pixels, self._recipe, bound, inputs.network, checkpoint, inputs.task)

    def _rated(self, network: Network) -> float:
        """Return the score of a network between two epochs."""
        images, labels = self._material.ranking
        count = images_rated(len(labels), len(self._inputs.dataset.train))
        return epoch_score(self._inputs.task, network, images[:count], labels[:count])

    def _advanced(self, name: str, steps: Iterator[Step], first: list[Look]) -> tuple[Step | None, bool]:
        """Return the next step, and True if all networks must train at a lower rate because of it; `first` collects the
        control's first epoch.
        """
        try:
            step = next(steps, None)
        except TrainingDiverged as error:
            failed = f"diverges: its loss is {error.loss} at step {error.step}"
            if name == CONTROL and error.epoch == 0 and self._takes_milder_steps(failed):
                return None, True
            raise
        if name != CONTROL or step is None or step.epoch:
            return step, False
        first.append(Look(step.loss, step.blank()))
        return step, step.last_of_epoch and self._takes_milder_steps(blown_up(first))

    def _takes_milder_steps(self, failed: str | None) -> bool:
        if not lowered(self._context, self._recipe.lr, failed, self._form):
            return False
        self._recipe = replace(self._recipe, lr=common_rate(self._context, self._rate, self._form))
        return True

    def _shortens(self, step: Step) -> bool:
        """Return True if, after this epoch of the control, all networks must train for fewer epochs; the control then
        restarts.
        """
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


@contextmanager
def _needed_control() -> Iterator[None]:
    """Fail the job if the control diverges."""
    try:
        yield
    except (TrainingDiverged, Diverged) as error:
        raise JobFailed("control_diverged", "train", f"the control's training diverged: {error}") from error

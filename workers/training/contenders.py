"""Contenders: a network competes as training left it, after its best epoch, and untrained. The one with the highest
score on the validation images is judged.

Finalists and the control have the same choice of epochs, because a choice flatters: the best of several scores on the
same images is a little too high. The control does not compete untrained, unless training ruins it, because the original
may have seen the validation images in its own training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from compress.network import Network
from compress.scoring.difference import Scores
from search.candidate import Candidate
from workers.evaluating.evaluation_files import Material
from workers.evaluating.scores import scores_in_file
from workers.judging.ruined import ruined
from workers.running import memos
from workers.running.job_run import JobRun
from workers.training.finished import Finished
from workers.training.trained import Trained
from workers.training.training_records import TrainingRecords

UNTRAINED = "untrained-"
"""Prefix that turns the name of a trained network into the name of the same network before training."""
BEST = "best-epoch-"
"""Prefix that turns the name of a trained network into the name of the same network after its best epoch."""


@dataclass(frozen=True)
class Made:
    """A network before its file is made.

    `epochs` is the number of epochs behind its weights, `elapsed_s` the seconds that training took, and `epoch_scores`
    has the score after each epoch of its training.
    """

    network: Network
    epochs: int
    elapsed_s: float = 0.0
    predicted: Mapping[str, float] = field(default_factory=dict)
    epoch_scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Contenders:
    """Makes and scores the contenders' files, each once per job, and chooses among the contenders of one network."""

    run: JobRun
    material: Material
    records: TrainingRecords

    def looked_at(
        self, name: str, make: Callable[[], Made], candidate: Candidate | None
    ) -> tuple[memos.TrainedFacts, Path]:
        """Return the facts about a contender's final file, and the file itself; make both unless an earlier run has
        made them.
        """
        context, inputs = self.run.context, self.run.inputs
        memo, file = self.records.facts(name), self.records.file(name)
        facts, path = context.recall(memo), context.file(file)
        if facts is None or path is None:
            made = make()
            finished = Finished(made.network, candidate, self.material)
            path = context.keep_bytes(file, finished.model, ".onnx")
            with context.computing():
                scores = scores_in_file(inputs.task, finished.model, *inputs.validation)
            known = dict(made.predicted), made.elapsed_s, made.epochs, made.epoch_scores
            facts = memos.TrainedFacts(scores, finished.counts, *known)
            context.keep(memo, facts)
            self._tell(name, candidate, scores)
        return facts, path

    def judged(
        self,
        made: Trained,
        source: Network,
        candidate: Candidate | None,
        before: float | None,
        epochs_before: int = 0,
    ) -> Trained:
        """Return the contender that is judged. A network that training ruined is judged untrained.

        Args:
            made: the network as training left it; source: the network that training started from.
            before: the source's score, if known; epochs_before: its epochs.
        """
        chance, count = self.run.inputs.chance, len(made.scores)
        trained = self._at_best_epoch(made, source, candidate, epochs_before)
        lasts = before is not None and not ruined(before, trained.score, chance, count)
        if made.epochs == epochs_before or (candidate is None and lasts):
            return trained
        untrained = self._contender(UNTRAINED, made, Made(source, epochs_before), candidate)
        if ruined(untrained.score, trained.score, chance, count):
            return replace(untrained, left=trained.score, ruined=True)
        if candidate is None or untrained.score <= trained.score:
            return trained
        self.run.context.say(f"{made.candidate_id} scores higher untrained; it is judged untrained.")
        return replace(untrained, left=trained.score)

    def _at_best_epoch(
        self, made: Trained, source: Network, candidate: Candidate | None, epochs_before: int
    ) -> Trained:
        """Return the network after its best epoch if its file then scores higher than at the end of its training."""
        best = self.records.best_epoch(made.name)
        if best.is_last:
            return made
        found = self._contender(BEST, made, Made(best.network(source), epochs_before + best.epoch), candidate)
        if found.score <= made.score:
            return made
        metric = self.run.context.plan.metric_row
        self.run.context.say(
            f"{made.candidate_id} is judged after epoch {best.epoch} of {len(best.scores)}: {metric.heading} "
            f"{metric.told(found.score)}, against {metric.told(made.score)} at the end of its training."
        )
        return found

    def _contender(self, prefix: str, made: Trained, other: Made, candidate: Candidate | None) -> Trained:
        facts, path = self.looked_at(f"{prefix}{made.name}", lambda: other, candidate)
        return replace(made, path=path, scores=facts.scores, counts=facts.counts, epochs=facts.epochs)

    def _tell(self, name: str, candidate: Candidate | None, scores: Scores) -> None:
        who = candidate.id if candidate is not None else "The control"
        who += ", untrained" if name.startswith(UNTRAINED) else ""
        who += ", after its best epoch" if name.startswith(BEST) else ""
        form = ", without the inserted batch norms" if self.records.form else ""
        metric = self.run.context.plan.metric_row
        told = f"{metric.heading} {metric.told(float(scores.mean()))} on {len(scores)} validation images"
        self.run.context.say(f"{who}{form}: {told}.")

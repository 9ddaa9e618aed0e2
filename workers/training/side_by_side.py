"""SideBySide: trains networks in parallel through an executor, and reads and writes the job's checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from compress.network import Network
from compress.training.recipe import Recipe
from search.space import Values
from workers.evaluating.epoch_score import images_rated
from workers.running import durable
from workers.running.job_run import JobRun
from workers.training.parallel_training import CONTROL, Course, Epoch, Lesson
from workers.training.training_records import TrainingRecords


@dataclass(frozen=True)
class Pupil:
    """A network to be trained. `source` makes the network that training starts from. If `spared` is True, training is
    never stopped.
    """

    name: str
    values: Values
    source: Callable[[], Network]
    spared: bool


@dataclass(frozen=True)
class SideBySide:
    """Trains pupils with the run's executor. `shown` is called with the progress, counted in trained networks."""

    run: JobRun
    records: TrainingRecords
    recipe: Recipe
    shown: Callable[[float], None]

    def train(self, pupils: Sequence[Pupil]) -> None:
        """Train the pupils whose training is not over, and record how each pupil's training ended.

        Raises:
            Halted: the user paused or cancelled the job.
            PoolBroken: no worker can be started.
        """
        left = [each for each in pupils if not self.records.is_over(each.name)]
        if not left:
            return
        for name, ended in self.run.executor.train(self._course(pupils, left)).items():
            self.records.note_end(name, ended)
        self.run.context.check()

    def _course(self, pupils: Sequence[Pupil], left: Sequence[Pupil]) -> Course:
        context, plan = self.run.context, self.run.context.plan
        lessons = {each.name: self._lesson(each) for each in left}
        return Course(
            lessons=lessons,
            spared=frozenset(each.name for each in pupils if each.spared),
            folder=context.folder("course"),
            processes=max(1, plan.effort.processes),
            left_s=plan.budget.wall_s - context.spent_s,
            # Finalists for different devices differ in size, so a lower score does not mean that one is behind.
            by_score=plan.objective_metric == plan.metric and len(plan.targets) <= 1,
            one_trained=any(self.records.reached_the_end(each.name) for each in pupils if each.name != CONTROL),
            note=self._noted(lessons),
            interrupted=lambda: context.ports.signal() != "continue",
            metric=plan.metric_row,
        )

    def _lesson(self, pupil: Pupil) -> Lesson:
        context, plan = self.run.context, self.run.context.plan
        folder, file = context.folder("course"), self.records.checkpoint(pupil.name)
        saved = context.file(file) or context.folder("checkpoints") / f"{file}.safetensors"
        return Lesson(
            plan=plan,
            model=context.ports.path(plan.model.sha256),
            dataset=context.ports.path(plan.dataset.sha256),
            recipe=self.recipe,
            network=durable.write(folder / f"{file}.onnx", pupil.source().save()),
            checkpoint=saved,
            values=pupil.values,
            guard=context.lock.shared,
            images=images_rated(plan.effort.accuracy_images, len(self.run.inputs.dataset.train)),
        )

    def _noted(self, lessons: Mapping[str, Lesson]) -> Callable[[str, Epoch, float], None]:
        """Return the callback for the end of each epoch."""
        done: dict[str, float] = {}

        def note(name: str, epoch: Epoch, wall_s: float) -> None:
            context, records = self.run.context, self.records
            context.keep_file(records.checkpoint(name), lessons[name].checkpoint, records.told(name, epoch))
            records.note_spent(name, records.spent_s(name) + epoch.elapsed_s)
            context.spent_s += wall_s
            done[name] = epoch.epoch / epoch.epochs
            self.shown(sum(done.values()))

        return note

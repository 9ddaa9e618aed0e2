"""Inputs: opens the uploaded network and data, and selects the images that each part of the job uses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from compress.data.dataset import Dataset, Part, cache_beside, load_dataset
from compress.data.preprocessing import Preprocessing, preprocess
from compress.graph.outputs import decided
from compress.importing.input_layout import Layout, image_shape, input_layout
from compress.importing.normalise import load_network
from compress.network import Network
from compress.scoring.difference import Scores
from compress.task import Targets, Task
from compress.tasks import load
from workers.evaluating.images import Preprocessed
from workers.evaluating.scores import Images, Labels, scores_in_file
from workers.plan import JobPlan
from workers.problem.timed_form import cut_forms, timed_form
from workers.running.context import Context


@dataclass(frozen=True)
class Inputs:
    """The opened uploads. For the evaluation cache, `split` identifies the images that are scored."""

    network: Network
    dataset: Dataset
    preprocessing: Preprocessing
    seed: int
    task: Task

    @classmethod
    def open(cls, context: Context) -> Inputs:
        """Open the plan's blobs.

        Raises:
            compress.errors.InvalidInput: a blob passed the checks at upload but cannot be used.
        """
        plan, path = context.plan, context.ports.path
        with context.computing():
            return cls.of(plan, path(plan.model.sha256), path(plan.dataset.sha256))

    @classmethod
    def of(cls, plan: JobPlan, model: Path, data: Path) -> Inputs:
        """Open a plan's blobs by their paths. Workers use this function, because they have no ports to find the paths
        with.
        """
        network = load_network(model)
        preprocessing, task = Preprocessing.from_json(plan.model.preprocessing), load(plan.task)
        dataset = load_dataset(
            data,
            layout=plan.dataset.layout,
            classes=plan.dataset.classes,
            preprocessing=preprocessing,
            input_shape=image_shape(network),
            seed=plan.seed,
            cache=cache_beside(data),
            digest=plan.dataset.sha256,
            task=plan.task,
        )
        network = decided(network, plan.model.output, task, dataset.targets)
        return cls(network, dataset, preprocessing, plan.seed, task)

    @property
    def split(self) -> str:
        """The name under which the evaluation cache knows the images that are scored."""
        return self.dataset.digest

    @cached_property
    def chance(self) -> float:
        """The score of guessing."""
        return self.task.chance(self.dataset.targets, self.dataset.validation.labels)

    @cached_property
    def layout(self) -> Layout:
        """The layout of the network's input images."""
        return input_layout(self.network)

    @cached_property
    def folded(self) -> Network:
        """The uploaded network with its batch norms folded; the original is timed in this form."""
        return timed_form(self.network)

    @cached_property
    def rewritten(self) -> Network:
        """The folded network with every lossless rewrite applied. If none applies, this is the folded network object
        itself.
        """
        return cut_forms(self.folded)[-1]

    def images(self, part: Part) -> tuple[Images, Labels]:
        """Load a small part into memory; return preprocessed images, (N, *input_shape), and labels, (N, ...)."""
        return preprocess(np.asarray(part.images), self.preprocessing, self.layout), part.labels

    def ranking(self, count: int) -> tuple[Images, Labels]:
        """Return up to `count` validation images, by which F2 ranks candidates."""
        return self.images(self.dataset.sample("validation", count, self.seed))

    def reference(self, count: int) -> tuple[Images, Labels]:
        """Return up to `count` training images, for statistics, batch norms and int8 ranges."""
        return self.images(self.dataset.sample("train", count, self.seed))

    @property
    def validation(self) -> tuple[Preprocessed, Labels]:
        """The whole validation part, which decides the verdict; its images are preprocessed in batches as they are
        read.
        """
        return self._whole(self.dataset.validation)

    def targets(self, labels: Labels) -> Targets:
        """Return labels of the data set as targets of the job's task."""
        return Targets(self.task, labels)

    def scores(self, model: bytes) -> Scores:
        """Return the scores of a file on the validation images."""
        return scores_in_file(self.task, model, *self.validation)

    def test_score(self, model: bytes) -> float:
        """Return a file's mean score on the test part; used for the original and the chosen file, at the very end."""
        return float(scores_in_file(self.task, model, *self._whole(self.dataset.test)).mean())

    def _whole(self, part: Part) -> tuple[Preprocessed, Labels]:
        return Preprocessed(part, self.preprocessing, layout=self.layout), part.labels

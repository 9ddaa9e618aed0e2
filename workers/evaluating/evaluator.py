"""CutEvaluator: evaluates candidates at F2 (the proxy that strategies search by), at a quick form of F2 for
sensitivities, at F3 and at F4.

Steps: cut -> least-squares refit (by the method, from statistics) -> batch norms re-estimated -> int8 if chosen ->
score. An evaluation costs as much as running the cut network, which is less than running a masked full network. F3 adds
a short distillation from the uncut network before the precision is chosen. Both run in the way that was measured to be
the fastest (`workers.evaluating.passes`). F4 trains a network until it has the candidate's values (see
`workers.evaluating.whole_training`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from compress.graph.groups import groups
from compress.graph.module import TorchNetwork
from compress.method import AFTER_TRAINING
from compress.network import Network
from compress.scheme import BoundScheme
from compress.scoring.difference import Scores
from compress.training.fit import fit
from compress.training.recipe import Recipe
from compress.training.reestimate import reestimate
from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from workers.errors import InvalidInput
from workers.evaluating.evaluation_files import Material
from workers.evaluating.scores import Images, Labels, scores_in_file, scores_in_torch
from workers.evaluating.whole_training import Sampler
from workers.pools.pool import Evaluator

SHORT = Recipe(epochs=2, batch=64, augment="none")
"""The recipe of F3's distillation, the same for every candidate."""
QUICK = "quick"
"""Recipe of a candidate that is evaluated on only a part of the images, because sensitivities only compare levels."""


@dataclass(frozen=True)
class EvaluatorFactory:
    """Makes the evaluator inside a worker; everything slow is loaded there, once.

    `training` is the recipe of full training runs (F4).
    """

    material: Material
    quick_images: int = 512
    training: Recipe = field(default_factory=Recipe)

    def __call__(self) -> Evaluator:
        """Load the material and make the evaluator."""
        return CutEvaluator(self.material, self.quick_images, self.training)


class CutEvaluator:
    """Evaluates candidates of one network."""

    def __init__(self, material: Material, quick_images: int, training: Recipe | None = None) -> None:
        self._material = material
        self._quick_images = quick_images
        self._sampler = Sampler(material, training or Recipe())
        self._passes = material.passes
        self._network = material.network
        self._evidence = material.evidence
        self._widths = {block.name: block.width for group in groups(self._network) for block in group.blocks}

    def __call__(self, candidate: Candidate) -> Evaluation:
        """Return the candidate's score on the ranking images.

        Raises:
            Diverged, TrainingDiverged: the network's outputs are not finite.
            InvalidInput: a fidelity other than F2, F3 and F4, weights of another network, or an unknown F4 recipe.
        """
        begun_s = time.perf_counter()
        if candidate.fidelity == "F4":
            sampled, digest = self._sampler(candidate)
            return Evaluation(candidate, Status.COMPLETED, sampled, time.perf_counter() - begun_s, network=digest)
        if candidate.fidelity not in ("F2", "F3") or candidate.weights_from is not None:
            raise InvalidInput("candidate", candidate.fidelity, "must be F4, or F2 or F3 with the original's weights")
        (images, labels), reference = self._material.ranking, self._material.reference
        quick = candidate.recipe == QUICK
        if quick:
            few = slice(self._quick_images)
            images, labels, reference = images[few], labels[few], reference[: self._quick_images // 4]
        module, bound = self._cut(candidate, reference, quick, self._passes.channels_last)
        scores = self._scores(candidate, module, bound, images, labels)
        metrics = {self._material.task.metric: float(scores.mean())}
        return Evaluation(candidate, Status.COMPLETED, metrics, time.perf_counter() - begun_s)

    def _scores(
        self, candidate: Candidate, module: TorchNetwork, bound: BoundScheme, images: Images, labels: Labels
    ) -> Scores:
        """Return the untrained candidate's score for each of these images."""
        task, cut = self._material.task, module.to_network()
        if candidate.fidelity == "F3":
            cut = self._distilled(cut)
        final = bound.rewrite(cut, replace(self._evidence, masks={}, statistics=None), *AFTER_TRAINING)
        if final is not cut or self._passes.runtime == "onnxruntime":
            return scores_in_file(task, final.save(), images, labels)
        return scores_in_torch(task, TorchNetwork(cut), images, labels, channels_last=self._passes.channels_last)

    def cut(self, candidate: Candidate, reference: Images | None = None) -> tuple[TorchNetwork, BoundScheme]:
        """Return the candidate's structure as a module, refitted and re-estimated, and the scheme that made it.

        Args:
            reference: images for the batch norms of all candidates, including the uncut network; if None, a cut network
                uses all of the material's images, and an uncut network keeps its batch norms.
        """
        images = self._material.reference if reference is None else reference
        return self._cut(candidate, images, always=reference is not None)

    def _cut(
        self, candidate: Candidate, images: Images, always: bool, channels_last: bool = False
    ) -> tuple[TorchNetwork, BoundScheme]:
        """Return what `cut` returns; if `always`, the batch norms of an uncut network are re-estimated too."""
        bound = self._material.scheme.bind(candidate.values)
        evidence = replace(self._evidence, masks=self._masks(candidate.masks))
        network = bound.rewrite(self._network, evidence, "structure")
        module = TorchNetwork(network)
        if always or network is not self._network:
            reestimate(module, images, channels_last=channels_last)
        return module, bound

    def _distilled(self, network: Network) -> Network:
        """Distil with the recipe SHORT and the uncut network as the teacher."""
        part, preprocessing = self._material.short
        for step in fit(network, part, preprocessing, SHORT, self._network, task=self._material.task):
            if step.step == step.steps - 1:
                return step.network()
        return network

    def _masks(self, kept: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.bool_]]:
        masks = {}
        for name, units in kept.items():
            if name not in self._widths:
                raise InvalidInput(
                    "masks", name, f"the network has no block of this name; known: {sorted(self._widths)}"
                )
            masks[name] = np.isin(np.arange(self._widths[name]), units)
        return masks

"""CutEvaluator: evaluates candidates at F2 (the proxy that strategies search by), at a quick form of F2 for
sensitivities, at F3 and at F4.

Steps: cut -> least-squares refit (by the method, from statistics) -> batch norms re-estimated -> int8 if chosen ->
score. An evaluation costs as much as running the cut network, which is less than running a masked full network. F3 adds
a short distillation from the uncut network before the precision is chosen. Both run in the way that was measured to be
the fastest (`workers.evaluating.passes`), and may start from the weights of an earlier F3 evaluation (see
`workers.evaluating.inheritance`). F4 trains a network until it has the candidate's values (see
`workers.evaluating.whole_training`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

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
from workers.evaluating.inheritance import Inheritance
from workers.evaluating.scores import Images, Labels, scores_in_file, scores_in_torch
from workers.evaluating.whole_training import Sampler
from workers.pools.pool import Evaluator

SHORT = Recipe(epochs=2, batch=64, augment="none")
"""The recipe of F3's distillation, the same for every candidate."""
QUICK = "quick"
"""Recipe of a candidate that is evaluated on only a part of the images, because sensitivities only compare levels."""
NORM_IMAGES = 256
"""Number of images for the batch norms of a candidate at F2 and F3; `benchmarks/f2_cost.py` compares it with others."""


@dataclass(frozen=True)
class EvaluatorFactory:
    """Makes the evaluator inside a worker; everything slow is loaded there, once.

    `training` is the recipe of full training runs (F4).
    """

    material: Material
    quick_images: int = 512
    training: Recipe = field(default_factory=Recipe)
    norm_images: int = NORM_IMAGES

    def __call__(self) -> Evaluator:
        """Load the material and make the evaluator."""
        return CutEvaluator(self.material, self.quick_images, self.training, self.norm_images)


class CutEvaluator:
    """Evaluates candidates of one network."""

    def __init__(
        self,
        material: Material,
        quick_images: int,
        training: Recipe | None = None,
        norm_images: int = NORM_IMAGES,
    ) -> None:
        self._material = material
        self._quick_images = quick_images
        self._norm_images = norm_images
        self._sampler = Sampler(material, training or Recipe())
        self._passes = material.passes
        self._network = material.network
        self._evidence = material.evidence
        self._inheritance = Inheritance(material)

    def __call__(self, candidate: Candidate) -> Evaluation:
        """Return the candidate's score on the ranking images; after F3 and F4, also the digest of a network that other
        candidates can start from.

        Raises:
            Diverged, TrainingDiverged: the network's outputs are not finite.
            InvalidInput: a fidelity other than F2, F3 and F4, weights that are not stored or lack units that the
                candidate keeps, or an unknown F4 recipe.
        """
        begun_s = time.perf_counter()
        if candidate.fidelity == "F4":
            sampled, digest = self._sampler(candidate)
            return Evaluation(candidate, Status.COMPLETED, sampled, time.perf_counter() - begun_s, network=digest)
        if candidate.fidelity not in ("F2", "F3"):
            raise InvalidInput("fidelity", candidate.fidelity, "must be F2, F3 or F4")
        (images, labels), reference = self._material.ranking, self._material.reference[: self._norm_images]
        quick = candidate.recipe == QUICK
        if quick:
            few = slice(self._quick_images)
            images, labels, reference = images[few], labels[few], self._material.reference[: self._quick_images // 4]
        module, bound = self._cut(candidate, reference, quick, self._passes.channels_last)
        network, digest = module.to_network(), None
        if candidate.fidelity == "F3":
            network = self._distilled(network)
            digest = self._kept(candidate, network)
        scores = self._scores(network, bound, images, labels)
        metrics = {self._material.task.metric: float(scores.mean())}
        return Evaluation(candidate, Status.COMPLETED, metrics, time.perf_counter() - begun_s, network=digest)

    def _scores(self, network: Network, bound: BoundScheme, images: Images, labels: Labels) -> Scores:
        """Return the score of the cut network, in its final precision, for each of these images."""
        task = self._material.task
        final = bound.rewrite(network, replace(self._evidence, masks={}, statistics=None), *AFTER_TRAINING)
        if final is not network or self._passes.runtime == "onnxruntime":
            return scores_in_file(task, final.save(), images, labels)
        return scores_in_torch(task, TorchNetwork(network), images, labels, channels_last=self._passes.channels_last)

    def _kept(self, candidate: Candidate, trained: Network) -> str | None:
        """Store a distilled network for others to start from; return its digest, or None if it cannot be stored."""
        start = self._inheritance.start(candidate)
        kept = self._inheritance.kept(candidate, start)
        return self._inheritance.keep(candidate, trained, kept, start.epochs + SHORT.epochs)

    def cut(self, candidate: Candidate, reference: Images | None = None) -> tuple[TorchNetwork, BoundScheme]:
        """Return the candidate's structure as a module, refitted and re-estimated, and the scheme that made it.

        The weights of an earlier candidate are not refitted, because the statistics belong to the original's weights.

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
        start = self._inheritance.start(candidate)
        evidence = replace(self._evidence, masks=self._inheritance.masks(self._inheritance.kept(candidate, start)))
        if candidate.weights_from is not None:
            evidence = replace(evidence, statistics=None)
        network = bound.rewrite(start.network, evidence, "structure")
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

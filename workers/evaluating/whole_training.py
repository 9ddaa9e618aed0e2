"""Sampler: makes a full sample of sparsity inference (F4): a network in its final form, trained until it has the
candidate's values.

The recipe `lc` is L-C; the recipe `direct` projects once and trains the remaining weights. Both are in
`compress.training` and use the same number of epochs. A sample may start from the network of an earlier sample, which
the material stores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from compress.counting.count import Form
from compress.graph.fold import fold_norms
from compress.graph.groups import prunable_blocks
from compress.graph.module import TorchNetwork
from compress.method import AFTER_TRAINING
from compress.network import Network
from compress.pruning.importance import score
from compress.scheme import BoundScheme
from compress.training.checkpoint import Checkpoint
from compress.training.direct import direct
from compress.training.fit import Step
from compress.training.lc import lc
from compress.training.recipe import Recipe
from compress.training.reestimate import reestimate
from search.candidate import Candidate
from workers.errors import InvalidInput
from workers.evaluating.evaluation_files import Material
from workers.evaluating.scores import scores_in_file
from workers.problem.counted import counted_by_weights
from workers.running import durable

TRAININGS: Mapping[str, Callable[..., Iterator[Step]]] = {"lc": lc, "direct": direct}
"""Training functions of samples, by the recipe that the candidate names."""


class Sampler:
    """Trains samples of one network.

    Args:
        recipe: recipe of every sample, whichever training function it uses. The job's finalists have the same recipe,
            so that a sample reaches the score that a finalist would reach.
    """

    def __init__(self, material: Material, recipe: Recipe) -> None:
        self._material = material
        self._recipe = recipe

    def __call__(self, candidate: Candidate) -> tuple[dict[str, float], str | None]:
        """Train one sample; return its metrics and the digest of a network that other samples can start from.

        The metrics are the score on the ranking images and counts of the file. The digest is None if channels were
        removed for good.

        Raises:
            InvalidInput: the recipe is unknown, there is a mask, or the weights are not stored or not of this network.
            Diverged, TrainingDiverged: a loss or an output is not finite.
        """
        if candidate.recipe not in TRAININGS or candidate.masks:
            seen = candidate.recipe if not candidate.masks else dict(candidate.masks)
            raise InvalidInput("candidate", seen, f"F4 must use the recipe {' or '.join(TRAININGS)}, without masks")
        bound = self._material.scheme.bind(candidate.values)
        start = self._start(candidate)
        after = BoundScheme(bound.steps(*AFTER_TRAINING))
        # The density is a share of the weights that remain after the cut, because single weights can be chosen only
        # after the channels.
        early = candidate.recipe == "direct" or bool(BoundScheme(bound.steps("sparsity")).projected(start))
        source = self._cut(start, bound, candidate.weights_from is None) if early else start
        trained = self._trained(candidate, source, after if early else bound)
        left = trained if early else without_zeros(self._material, trained, bound)
        evidence = replace(self._material.evidence, masks={}, statistics=None)
        sparse = after.rewrite(fold_norms(left), evidence, "sparsity")
        final = after.rewrite(sparse, evidence)
        file = final.save()
        task = self._material.task
        scores = scores_in_file(task, file, *self._material.ranking)
        metrics = {task.metric: float(scores.mean()), **counted_by_weights(Form(sparse, final, file))}
        return metrics, self._kept(candidate, trained)

    def _kept(self, candidate: Candidate, trained: Network) -> str | None:
        if not fits(trained, self._material.network):
            return None
        before = 0 if candidate.weights_from is None else self._material.epochs(candidate.weights_from)
        return self._material.keep(trained, before + self._recipe.epochs)

    def _start(self, candidate: Candidate) -> Network:
        whole = self._material.network
        if candidate.weights_from is None:
            return whole
        kept = self._material.kept(candidate.weights_from)
        if not fits(kept, whole):
            raise InvalidInput("weights_from", candidate.weights_from, "must be weights of this network")
        if self._material.units(candidate.weights_from):
            raise InvalidInput("weights_from", candidate.weights_from, "must be weights of all units")
        return whole.with_constants({name: kept.constants[name] for name in whole.constants})

    def _cut(self, start: Network, bound: BoundScheme, original: bool) -> Network:
        """Cut channels, refit if the statistics belong to these weights, and re-estimate batch norms."""
        evidence = self._material.evidence if original else replace(self._material.evidence, statistics=None)
        return _renewed(self._material, start, bound.rewrite(start, evidence, "structure"))

    def _trained(self, candidate: Candidate, network: Network, bound: BoundScheme) -> Network:
        """Train a network; if a worker was lost during its training, continue after the last finished epoch."""
        part, preprocessing = self._material.training
        file = self._material.checkpoint(self._key(candidate))
        saved = file.read_bytes() if file.exists() else None
        train = TRAININGS[candidate.recipe]
        teacher, task = self._material.network, self._material.task
        last = None
        for step in train(network, part, preprocessing, self._recipe, bound, teacher, saved, task):
            last = step
            if step.last_of_epoch:
                durable.write(file, step.checkpoint())
                # The evaluation counts as one more epoch, because it takes place after the last epoch.
                durable.write(_reached(file), f"{(step.epoch + 1) / (step.epochs + 1):.6f}".encode())
        if last is None:
            return network if saved is None else network.with_constants(Checkpoint.from_bytes(saved).weights)
        trained = last.network()
        _reached(file).unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        return trained

    def reached(self, candidate: Candidate) -> float:
        """Return the finished share of a candidate's training, from 0 to 1, to show to waiting users.

        The training may run on any machine. The share is 0 if it is unknown or if the training is over.
        """
        try:
            share = float(_reached(self._material.checkpoint(self._key(candidate))).read_text())
        except (OSError, ValueError):
            return 0.0
        return share if 0.0 <= share <= 1.0 else 0.0

    def _key(self, candidate: Candidate) -> str:
        told = [dict(candidate.values), candidate.recipe, candidate.weights_from, self._recipe.to_json()]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _reached(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".reached")


def without_zeros(material: Material, sample: Network, bound: BoundScheme) -> Network:
    """Return a sample, in the material's form, without the units that training set to zero (the units of least
    weight).
    """
    evidence = replace(material.evidence, importance=score(sample, prunable_blocks(sample), "l2"), statistics=None)
    return _renewed(material, sample, bound.rewrite(sample, evidence, "structure"))


def _renewed(material: Material, before: Network, network: Network) -> Network:
    if network is before:
        return network
    module = TorchNetwork(network)
    reestimate(module, material.reference)
    return module.to_network()


def fits(network: Network, whole: Network) -> bool:
    """Return True if all constants of `whole` are in the network, with the same shapes."""
    return all(
        name in network.constants and np.shape(network.constants[name]) == value.shape
        for name, value in whole.constants.items()
    )

"""Finished: a network after training, as its final file, with the file's counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from compress.counting.count import Form
from compress.graph.fold import fold_norms
from compress.method import AFTER_TRAINING, Stage
from compress.network import Network
from search.candidate import Candidate
from workers.evaluating.evaluation_files import Material
from workers.problem.counted import counted


@dataclass(frozen=True)
class Finished:
    """A trained network with its batch norms folded and its candidate's other choices applied. The control has no
    candidate.
    """

    trained: Network
    candidate: Candidate | None
    material: Material

    @cached_property
    def model(self) -> bytes:
        """The ONNX file."""
        return self._final.save()

    @property
    def counts(self) -> Mapping[str, float]:
        """The counts of the file."""
        before_bits = final_form(self.trained, self.candidate, self.material, "sparsity")
        return counted(Form(before_bits, self._final, self.model))

    @cached_property
    def _final(self) -> Network:
        return final_form(self.trained, self.candidate, self.material)


def final_form(network: Network, candidate: Candidate | None, material: Material, *stages: Stage) -> Network:
    """Fold the batch norms, then apply the candidate's choices in these stages; if no stages are given, apply the
    choices of all stages after training.
    """
    folded = fold_norms(network)
    if candidate is None:
        return folded
    bound = material.scheme.bind(candidate.values)
    return bound.rewrite(folded, replace(material.evidence, statistics=None), *(stages or AFTER_TRAINING))

"""Layerwise: a network cut layer by layer to its target, with a short distillation (F3) after each layer.

Each stage starts from the weights of the stage before, so that the layers already cut have recovered (Hu et al., arXiv
1805.11394). The stages before the last are larger than the target, and thus over the limits.
"""

from __future__ import annotations

from collections.abc import Sequence

from search.candidate import Candidate
from search.evaluation import Evaluation, Status
from search.knowledge import values_key
from search.space import Value, Values


class Layerwise:
    """The stages of one target. `knobs` are turned in this order; all other values are the target's from the start."""

    def __init__(self, whole: Values, target: Values, knobs: Sequence[str], origin: str) -> None:
        self._origin = origin
        self._results: dict[str, Evaluation] = {}
        self._pending: set[str] = set()
        self.stages: list[Values] = []
        at: dict[str, Value] = {**target, **{name: whole[name] for name in knobs}}
        for name in knobs:
            if at[name] != target[name]:
                at = {**at, name: target[name]}
                self.stages.append(at)

    def note(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        """Record the arguments of `Strategy.tell`; their order does not matter."""
        for evaluation in sorted(evaluations, key=lambda each: each.candidate.id):
            if self._ours(evaluation.candidate):
                self._results.setdefault(values_key(evaluation.candidate.values), evaluation)
        self._pending = {values_key(candidate.values) for candidate in pending if self._ours(candidate)}

    def next(self) -> tuple[Values, str | None] | None:
        """Return the values of the next stage and the digest of the network that it starts from.

        None while a stage is in flight, at the end, and after a stage that gave no network to start from. New estimates
        may change the target: after twice as many results as stages, no stage follows.
        """
        network: str | None = None
        for values in self.stages:
            found = self._results.get(values_key(values))
            if found is None:
                over = values_key(values) in self._pending or len(self._results) >= 2 * len(self.stages)
                return None if over else (values, network)
            if found.status is not Status.COMPLETED or found.network is None:
                return None
            network = found.network
        return None

    def asked(self, values: Values) -> None:
        """Count the stage with these values as in flight, until the next call of `note`."""
        self._pending.add(values_key(values))

    def _ours(self, candidate: Candidate) -> bool:
        return candidate.fidelity == "F3" and candidate.origin == self._origin

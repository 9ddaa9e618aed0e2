"""Synthetic problems with known true scores, to test searches in milliseconds without training a network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.candidate import Candidate
from search.errors import InvalidInput
from search.evaluation import Evaluation, Status
from search.knowledge import values_key
from search.metrics import latency_metric
from search.problem import Constraint, Objective, Problem
from search.space import Values
from search.strategy import Strategy
from search.synthetic.network import PRECISION, Kernels, SyntheticNetwork
from search.terms import Terms

DEVICES: Mapping[str, Kernels] = {
    "small-cpu": Kernels(tile_in=4, tile_out=8, ms_per_mega_mac=0.05, overhead_ms=0.004, int8_factor=0.58),
    "wide-gpu": Kernels(tile_in=16, tile_out=16, ms_per_mega_mac=0.01, overhead_ms=0.02, int8_factor=0.85),
}
_LARGEST = 2_000_000  # the most points that `optimum` enumerates


@dataclass(frozen=True, eq=False)
class Replay:
    """A problem with immediate evaluations.

    `noise` is the standard deviation of the error that F2 on a few thousand images adds to the true score. The error is
    a function of the values, as with a fixed evaluation set.
    """

    problem: Problem
    network: SyntheticNetwork
    noise: float

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Return the evaluation of a candidate of any fidelity, always the same for the same values.

        A distillation (F3) and a full training run (F4) give a network from which a later candidate may start.
        """
        levels = self.network.space.levels(candidate.values)[None]
        metrics = {name: float(column[0]) for name, column in self.problem.estimate([candidate.values]).items()}
        accuracy = self.network.accuracy(levels)[0] + self.noise * self._draw(candidate.values)
        metrics["accuracy"] = float(np.clip(accuracy, 0.0, 1.0))
        network = candidate.key(self.problem.network, "replay", 0) if candidate.fidelity in ("F3", "F4") else None
        return Evaluation(candidate, Status.COMPLETED, metrics, elapsed_s=0.001, network=network)

    def accuracy(self, values: Values) -> float:
        """Return the true score, without noise."""
        return float(self.network.accuracy(self.network.space.levels(values)[None])[0])

    @cached_property
    def optimum(self) -> tuple[Values, float]:
        """Return the feasible values with the highest true score, by enumeration.

        Raises: InvalidInput if the space is too large to enumerate or has no feasible point.
        """
        space = self.network.space
        if np.prod(space.level_counts) > _LARGEST:
            raise InvalidInput("space", space.level_counts, f"more than {_LARGEST} points; make a smaller problem")
        levels = np.indices(space.level_counts).reshape(len(space.knobs), -1).T.astype(np.int64)
        metrics = _metrics(self.network, self.problem.terms, levels)
        violations = sum(c.violations(metrics[c.metric]) for c in self.problem.constraints)
        accuracy = np.where(violations == 0.0, self.network.accuracy(levels), -np.inf)
        at = int(np.argmax(accuracy))
        if accuracy[at] == -np.inf:
            raise InvalidInput("constraints", self.problem.constraints, "no point of the space meets these constraints")
        return space.values_of(levels[at]), float(accuracy[at])

    def _draw(self, values: Values) -> float:
        digest = hashlib.sha256(f"{self.network.seed} {values_key(values)}".encode()).digest()
        return float(np.random.default_rng(list(digest)).standard_normal())


def make_replay(
    seed: int,
    *,
    knobs: int = 8,
    levels: int = 8,
    precision: bool = True,
    evaluations: int = 40,
    ratios: Mapping[str, float] | None = None,
    statistics: bool = True,
    noise: float = 0.004,
) -> Replay:
    """Return a problem drawn from `seed`.

    `ratios` maps a metric key to its limit as a share of the original's value; the default is 0.4 of the latency on
    small-cpu. The devices are `DEVICES`; other metrics are `macs` and `size_bytes`.
    """
    network = SyntheticNetwork(seed, knobs, levels, precision)
    terms = {latency_metric(name): network.latency(kernels) for name, kernels in DEVICES.items()}
    top = np.array([[count - 1 for count in network.space.level_counts]], dtype=np.int64)
    if precision:
        top[0, network.space.names.index(PRECISION)] = 0
    original = {name: float(column[0]) for name, column in _metrics(network, terms, top).items()}
    wanted = {latency_metric("small-cpu"): 0.4} if ratios is None else ratios
    problem = Problem(
        space=network.space,
        objectives=(Objective("accuracy", "max"),),
        constraints=tuple(Constraint(key, ratio * original[key], "max") for key, ratio in wanted.items()),
        estimate=lambda batch: _metrics(network, terms, network.space.levels_of(batch)),
        terms=terms,
        statistics=_statistics(network, top[0], noise) if statistics else {},
        original={**original, "accuracy": network.accuracy.original},
        network=f"synthetic-{seed}",
        evaluations=evaluations,
    )
    return Replay(problem, network, noise)


def run(strategy: Strategy, replay: Replay, evaluations: int | None = None, batch: int = 4) -> list[Evaluation]:
    """Run the strategy until the budget is spent or the strategy has finished."""
    done: list[Evaluation] = []
    budget = replay.problem.evaluations if evaluations is None else evaluations
    while len(done) < budget:
        asked = strategy.ask(min(batch, budget - len(done)))
        if not asked:
            break
        told = [replay.evaluate(candidate) for candidate in asked]
        strategy.tell(told, [])
        done += told
    return done


def _metrics(
    network: SyntheticNetwork, terms: Mapping[str, Terms], levels: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Return every cheap metric at (n, d) levels. Like latency, MACs and bytes are summed from tables."""
    found = {key: table.latency_ms(levels) for key, table in terms.items()}
    return found | {
        "macs": network.macs.latency_ms(levels),
        "size_bytes": network.size_bytes.latency_ms(levels),
    }


def _statistics(
    network: SyntheticNetwork, top: NDArray[np.int64], noise: float
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return statistics as real data would give them: related to the truth, but not equal to it."""
    rng = np.random.default_rng([network.seed, 2])
    names = ("sensitivity", "ls_error", "importance", "fisher", "gram")
    found: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in names}
    # A separate random stream, so that these two statistics do not change the other draws.
    further = np.random.default_rng([network.seed, 3])
    for column, (name, widths) in enumerate(network.widths.items()):
        alone = np.repeat(top[None], len(widths), axis=0)
        alone[:, column] = np.arange(len(widths))
        accuracy = network.accuracy(alone)
        lost = (network.accuracy.original - accuracy) / network.accuracy.original
        found["sensitivity"][name] = accuracy + noise * rng.standard_normal(len(widths))
        found["ls_error"][name] = lost**0.8 * float(rng.lognormal(0.0, 0.3))
        found["importance"][name] = _importance(widths, rng)
        found["fisher"][name] = found["importance"][name] * further.lognormal(0.0, 0.2, widths[-1])
        found["gram"][name] = _gram(found["importance"][name], further)
    return found


def _importance(widths: Sequence[int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return one score per unit: a few high scores and a tail of low scores, shuffled."""
    scores = np.exp(-rng.uniform(1.0, 4.0) * np.arange(widths[-1]) / widths[-1])
    return np.asarray(rng.permutation(scores))


def _gram(importance: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a positive semi-definite Gram matrix whose diagonal follows the scores and whose entries sum to 1."""
    made = rng.standard_normal((len(importance), 2 * len(importance))) * np.sqrt(importance)[:, None]
    gram = made @ made.T
    return np.asarray(gram / gram.sum())

"""The contract every strategy keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from search.candidate import Candidate
from search.evaluation import Evaluation
from search.problem import Problem


class Strategy(Protocol):
    """Proposes candidates of one problem and learns from evaluations; knows nothing else.

        strategy = family.make(problem, settings, seed=0)
        strategy.ask(4)                       [a, b, c, d]
        strategy.tell([eval_b], [a, c, d])    b is done, the others run
        strategy.ask(1)                       [e]

    - Candidates satisfy the space, and their ids are unique, also over a restart.
    - The same problem, settings, seed and tells give the same asks, in another process too.
    - Results come in any order. FAILED ones, and ones of other strategies (foreign), are knowledge like any.
    - Telling the same evaluation again changes nothing.
    - After a restart, or when a new latency table changed the estimates, the loop makes a fresh strategy and
      tells it every recorded evaluation.

    `StrategyContract` in search.testing holds an implementation against this.
    """

    def ask(self, count: int) -> list[Candidate]:
        """At most `count` candidates worth evaluating; fewer, even none, while results are awaited.

        None with nothing pending means finished. Raises: Infeasible if nothing under the limits is found.
        """
        ...

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        """`evaluations`: finished since the last tell. `pending`: every candidate that runs or waits now.

        A candidate that was asked for and is in neither is lost: its values may be asked for again.
        """
        ...


def no_startup(_settings: Any) -> int:
    """A strategy that uses its first result."""
    return 0


@dataclass(frozen=True)
class StrategyFamily:
    """A strategy as the catalogue shows it. Each file of search/strategies offers one as `STRATEGY`.

    `source`: the paper; `settings`: a frozen dataclass (search.space.settings); `make(problem, settings, seed)`;
    `baseline`: there to be beaten, so not held to beat random itself; `trains`: asks for whole trainings (F4);
    `needs_sparsity`: turns one sparsity of the whole network, so that a method with widths or densities must be there;
    `startup(settings)`: evaluations before it models anything, and until which it draws at random.
    """

    name: str
    summary: str
    source: str
    settings: type[Any]
    make: Callable[[Problem, Any, int], Strategy]
    baseline: bool = False
    trains: bool = False
    needs_sparsity: bool = False
    startup: Callable[[Any], int] = no_startup

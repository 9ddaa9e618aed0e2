"""The contract of every strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from search.candidate import Candidate
from search.evaluation import Evaluation
from search.problem import Problem


class Strategy(Protocol):
    """A strategy proposes candidates of one problem and learns from their evaluations; it needs nothing else.

        strategy = family.make(problem, settings, seed=0)
        strategy.ask(4)                       [a, b, c, d]
        strategy.tell([eval_b], [a, c, d])    b is done, the others run
        strategy.ask(1)                       [e]

    - Candidates lie in the space, and their ids are unique, also across a restart.
    - The same problem, settings, seed and results lead to the same proposals, also in another process.
    - Results may come in any order. FAILED results and results of other strategies (foreign) are used like any other.
    - Telling the same evaluation again changes nothing.
    - After a restart, or after a new latency table changes the estimates, the loop makes a new strategy and tells it
      every recorded evaluation.

    `StrategyContract` in search.testing tests an implementation against this contract.
    """

    def ask(self, count: int) -> list[Candidate]:
        """Return at most `count` candidates to evaluate; fewer, or even none, while the strategy waits for results.

        An empty answer while nothing is pending means that the search has finished. Raises: Infeasible if no point
        within the limits is found.
        """
        ...

    def tell(self, evaluations: Sequence[Evaluation], pending: Sequence[Candidate]) -> None:
        """Take the evaluations that finished since the last call, and `pending`: all candidates now running or waiting.

        A candidate that is in neither list is lost, so the strategy may propose its values again.
        """
        ...


@runtime_checkable
class Noted(Protocol):
    """A strategy that also has something to say to the users of its results, e.g. that a bound is not exact."""

    @property
    def notes(self) -> Sequence[str]:
        """Whole sentences about the search, not about single candidates. Each becomes one warning of the job.

        There may be more after an `ask`. A sentence never changes, and a restart repeats it word for word, so it has no
        number that depends on how far the search is.
        """
        ...


def notes_of(strategy: Strategy) -> Sequence[str]:
    """Return the notes of a strategy; most have none."""
    return tuple(strategy.notes) if isinstance(strategy, Noted) else ()


def no_startup(_settings: Any) -> int:
    """Return 0, for a strategy that uses its first result."""
    return 0


@dataclass(frozen=True)
class StrategyFamily:
    """An entry of the catalogue of strategies. Each file of search/strategies offers one as `STRATEGY`.

    `source` is the paper. `settings` is a frozen dataclass (search.space.settings). `make(problem, settings, seed)`
    returns the strategy. `baseline` is True for a baseline, which need not beat random search. `trains` is True if the
    strategy requests full training runs (F4). `needs_sparsity` is True if it sets one sparsity for the whole network,
    which needs a method with widths or densities. `startup(settings)` is the number of points that the strategy draws
    at random before it models anything.
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

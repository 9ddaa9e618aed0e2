"""JobRun: the objects that the phases of a run work with, and the current rows of the result table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from compress.training.fit import Step
from workers.pools.executor import Executor
from workers.progress import Slot, Summarised
from workers.running.context import Context
from workers.running.inputs import Inputs

FineTune: TypeAlias = Callable[..., Iterator[Step]]
"""Function that trains a network: `compress.training.direct.fine_tune`, or a test's replacement."""


@dataclass
class JobRun:
    """The state that the phases of a run share. `summaries` maps each slot to the row that was last shown in it.

    `executor` evaluates and trains in parallel; `fine_tune` trains one network in this process.
    """

    context: Context
    inputs: Inputs
    executor: Executor
    fine_tune: FineTune
    summaries: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def summarise(self, slot: Slot, row: Mapping[str, Any]) -> None:
        """Show a row of the result table."""
        self.summaries[slot] = row
        self.context.ports.emit(Summarised(slot, row))

    def clear(self, slot: Slot) -> None:
        """Empty a slot, because a result announced during the search may miss the limits in the end."""
        self.summaries.pop(slot, None)
        self.context.ports.emit(Summarised(slot, None))

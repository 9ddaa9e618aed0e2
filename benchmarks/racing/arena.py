"""Arena: one problem that entrants search, made as a job makes it: profile, statistics, problem."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from compress.network import Network
from compress.training.direct import fine_tune
from compress.training.recipe import Recipe
from hw_profiles.tables.table import LatencyTable
from hw_profiles.timing.file_timing import time_models
from hw_profiles.timing.protocol import BurstProtocol, Failure, Sample
from racing.start import Start, folder_of
from search.problem import Problem
from workers.evaluating.evaluation_files import Material
from workers.phases.profile import profile
from workers.phases.search import problem_of
from workers.phases.statistics import Statistics, gathered, statistics
from workers.plan import Budget, DatasetInput, JobPlan, ModelInput, Named, Target, Training
from workers.pools.executor import LocalExecutor
from workers.pools.in_process_pool import InProcessPool
from workers.pools.pool import EvaluatorFactory, Pool
from workers.pools.process_child import Guard
from workers.ports import Recorded
from workers.profiling.timed_device import Profile
from workers.running.context import Context
from workers.running.inputs import Inputs
from workers.running.job_run import JobRun
from workers.running.memory_ports import MemoryPorts
from workers.training.recipe import recipe_of

DEVICE = "bench"
FINALISTS = 3
"""Number of candidates of each entrant that get the final recipe."""
AT_ONCE = 2
"""Number of candidates that the loop asks for ahead, as with two workers."""
NO_LIMIT_S = 1e9
ORIGINAL = "original"


class OneProcess(LocalExecutor):
    """Evaluates in this process, so that the seconds of a search are the seconds of one core."""

    def pool(self, make_evaluator: EvaluatorFactory, processes: int, deadline_s: float, guard: Guard) -> Pool:
        """Make a pool that evaluates in the caller's thread."""
        pool = InProcessPool(make_evaluator, guard)
        pool.capacity = AT_ONCE
        return pool


@dataclass(frozen=True)
class Contest:
    """What is searched: a table's name, its methods and its limit, as a share of the original's measured latency."""

    table: str
    methods: tuple[str, ...]
    ratio: float
    evaluations: int


@dataclass(frozen=True)
class Arena:
    """A contest on one start with one seed. `run` is a job's run with ports in memory; `found` is its profile."""

    start: Start
    contest: Contest
    seed: int
    run: JobRun
    found: Profile

    @classmethod
    def open(cls, start: Start, contest: Contest, seed: int, strategies: Sequence[str], work: Path) -> Arena:
        """Profile the device and the network; rows of the latency table are kept in `work`, and reused."""
        folder = folder_of(work, start, contest.table, seed)
        kept = folder_of(work, start, "tables") / f"{'-'.join(contest.methods)}.json"
        known = {DEVICE: LatencyTable.from_json(json.loads(kept.read_text()))} if kept.exists() else {}
        ports = MemoryPorts(folder, start.runtime, {DEVICE: start.device}, start.kernels, known)
        context = Context(_plan(start, contest, seed, strategies, ports), ports, Recorded())
        run = JobRun(context, Inputs.open(context), OneProcess(), fine_tune)
        found = profile(context, run.inputs)
        kept.write_text(json.dumps(ports.table(DEVICE).to_json()))
        return cls(start, contest, seed, run, found)

    def fresh(self) -> JobRun:
        """Return a run of the same plan without records, for one entrant."""
        context = self.run.context
        mine = Context(context.plan, context.ports, Recorded(), context.lock)
        return JobRun(mine, self.run.inputs, self.run.executor, self.run.fine_tune)

    @cached_property
    def material(self) -> Material:
        """The network in the form from which candidates are cut, and the evidence about it."""
        return gathered(self.run.context, self.run.inputs, self.found)

    @cached_property
    def recipe(self) -> Recipe:
        """The final recipe, the same for every entrant of this seed."""
        return recipe_of(self.run.context, self.run.inputs)

    @contextmanager
    def searching(self) -> Iterator[tuple[Statistics, Callable[[Profile], Problem]]]:
        """Gather the statistics; yield them and the function that makes the problem under a profile."""
        with statistics(self.run, self.found) as known:

            def make(newest: Profile) -> Problem:
                return problem_of(
                    self.run.context, newest, known.curves, known.material, known.reference, self.run.inputs.chance
                )

            yield known, make

    def timed(self, models: Mapping[str, bytes], protocol: BurstProtocol) -> Mapping[str, Sample]:
        """Time files interleaved with the original.

        Raises:
            SystemExit: a file does not run.
        """
        files = {ORIGINAL: self.run.inputs.network.save(), **models}
        timed = time_models(self.start.runtime, files, self.start.device, protocol)
        failed = {name: each.reason for name, each in timed.items() if isinstance(each, Failure)}
        if failed:
            raise SystemExit(f"not timed: {failed}")
        return {name: each for name, each in timed.items() if isinstance(each, Sample)}

    @property
    def original(self) -> Network:
        """The uploaded network, which is also the teacher."""
        return self.run.inputs.network


def _plan(start: Start, contest: Contest, seed: int, strategies: Sequence[str], ports: MemoryPorts) -> JobPlan:
    return JobPlan(
        job_id="job_bench",
        name=contest.table,
        model=ModelInput(ports.put_bytes(start.model), start.name, start.preprocessing),
        dataset=DatasetInput(ports.put_bytes(start.data), start.name, start.data_name),
        methods=tuple(map(Named, contest.methods)),
        strategies=tuple(map(Named, strategies)),
        targets=(Target(DEVICE, start.device.name, max_latency_ratio=contest.ratio),),
        budget=Budget(contest.evaluations, NO_LIMIT_S, FINALISTS),
        training=Training(start.epochs, start.augment),
        effort=start.effort,
        seed=seed,
    )

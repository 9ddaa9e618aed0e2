"""run: runs one job from a plan to an outcome, through the phases of a job's life.

    profile -> statistics -> search -> train -> verify -> package

Each phase continues from the records of earlier runs of the same job. So a run may die at any point, and the next run
repeats at most one evaluation, one epoch or one measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from compress.training.direct import fine_tune
from hw_profiles.host_lock import HostLock
from workers.phases.conclude import conclude, original_row
from workers.phases.missed import nothing_near, under_the_floor
from workers.phases.package import package
from workers.phases.profile import profile
from workers.phases.search import search, search_on
from workers.phases.statistics import statistics
from workers.phases.train import train as train_all
from workers.phases.trial import trial
from workers.phases.verify import verify
from workers.plan import JobPlan
from workers.pools.executor import Executor, LocalExecutor
from workers.ports import Outcome, Ports, Recorded
from workers.running.context import Context, Halted
from workers.running.inputs import Inputs
from workers.running.job_run import FineTune, JobRun

__all__ = ["JobPlan", "Outcome", "Ports", "Recorded", "run"]


def run(
    plan: JobPlan,
    ports: Ports,
    lock: HostLock | None = None,
    executor: Executor | None = None,
    clock_s: Callable[[], float] = time.monotonic,
    train: FineTune = fine_tune,
) -> Outcome:
    """Run a job, or continue it.

    Args:
        lock: a lock that is shared during heavy work; the default is this machine's lock.
        executor: evaluates and trains; the default uses child processes on this machine.
        clock_s: the clock, in seconds, by which budgets are counted.
        train: trains one network in this process.

    Raises:
        JobFailed: the job cannot go on; `code`, `step`, `field` and `detail` say why.
        LeaseLost, DeviceOffline, MeasurementFailed: raised by the ports; the job is not the cause.
        PoolBroken: no evaluator can be started; the job is not the cause.
    """
    context = Context(plan, ports, ports.recorded(), lock or HostLock(), clock_s)
    try:
        return _phases(JobRun(context, Inputs.open(context), executor or LocalExecutor(), train))
    except Halted as halted:
        return Outcome("paused" if halted.end == "paused" else "cancelled", None, f"{halted.end} by the user")


def _phases(job: JobRun) -> Outcome:
    found = profile(job.context, job.inputs)
    job.summarise("original", original_row(job.context.plan.metric_row, found))
    if early := under_the_floor(job, found):
        return early
    with statistics(job, found) as known:
        result = search(job, found, known)
        if early := nothing_near(job, result):
            return early
        result = trial(job, result, lambda ended, corrected: search_on(job, known, ended, corrected))
    taught = train_all(job, result, known.material)
    verdicts = verify(job, result, taught)
    return package(job, result.profile, conclude(job, result, taught, verdicts))

"""Shows the progress of a job on a terminal."""

from __future__ import annotations

import sys
from typing import Self

from netlathe.results import Job


class _NoBars:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, job: Job) -> None:
        return None


class _Bars(_NoBars):
    """Shows the job's phase, then a bar, then the best network so far."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task("queued", total=1.0, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, job: Job) -> None:
        phase = job.phase if job.state == "running" and job.phase else job.state
        self._progress.update(self._task, description=phase, completed=job.progress.fraction, note=note(job))


class _Lines(_NoBars):
    """Prints a line for each phase, which suits the log of a pipeline."""

    def __init__(self) -> None:
        self._last = ""

    def show(self, job: Job) -> None:
        phase = job.phase if job.state == "running" and job.phase else job.state
        if phase != self._last:
            self._last = phase
            text = note(job)
            sys.stderr.write(f"{phase}{': ' if text else ''}{text}\n")
            sys.stderr.flush()


def shown(progress: bool) -> _NoBars:
    """Choose how to show progress on stderr: a bar on a terminal, otherwise lines. Stdout stays free for output that is
    piped.
    """
    if not progress:
        return _NoBars()
    return _Bars() if sys.stderr.isatty() else _Lines()


def note(job: Job) -> str:
    """Describe a job's state, such as `12 evaluations · best 0.975 at 1.234 ms · 40 s left`."""
    parts = []
    if job.waiting_for:
        parts.append(f"waiting for {job.waiting_for.get('device')}")
    if job.evaluations_done:
        parts.append(f"{job.evaluations_done} evaluation{'' if job.evaluations_done == 1 else 's'}")
    score = None if job.best is None else job.best.score(job.metric)
    if job.best is not None and score is not None:
        known = [latency.measured or latency.predicted for latency in job.best.latency_ms.values()]
        at = "".join(f" at {latency_ms:.3f} ms" for latency_ms in known[:1] if latency_ms is not None)
        parts.append(f"best {score:.3f}{at}")
    if job.eta_s:
        parts.append(f"{job.eta_s:.0f} s left")
    return " · ".join(parts)

"""Jobs: submitted searches, their evaluations, logs and files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from netlathe.errors import Conflict, Problem
from netlathe.progress import shown
from netlathe.reading import read
from netlathe.resources.artifacts import Artifacts
from netlathe.resources.resource import Resource
from netlathe.results import Artifact, Evaluation, Job, Json, Layer, Named, Page

_UNTOLD = frozenset({"log.line", "evaluation.added", "training.epoch"})  # events that do not change a job's own record


class Jobs(Resource):
    """Jobs, their evaluations, logs and files."""

    path = "/api/v1/jobs"

    def create(
        self,
        *,
        model: str,
        dataset: str,
        name: str | None = None,
        targets: Sequence[Json] = (),
        limits: Json | None = None,
        methods: Sequence[Named] | None = None,
        strategies: Sequence[Named] | None = None,
        budget: Json | None = None,
        training: Json | None = None,
        task: str | None = None,
        metric: str | None = None,
        objective: Json | None = None,
        seed: int = 0,
        force: bool = False,
    ) -> Job:
        """Submit a job. If an argument is None, the server's default applies. The contract describes all fields."""
        asked = {
            "name": name, "model": model, "dataset": dataset,
            "targets": list(targets), "limits": limits, "methods": methods, "strategies": strategies,
            "budget": budget, "training": training, "task": task, "metric": metric, "objective": objective,
            "seed": seed, "force": force,
        }  # fmt: skip
        body = {key: value for key, value in asked.items() if value is not None}
        return read(Job, self._connection.post(self.path, body))

    def get(self, job: str) -> Job:
        return read(Job, self._connection.get(self._at(job)))

    def list(
        self, *, state: str | None = None, device: str | None = None, page: int = 1, sort: str | None = None
    ) -> Page[Job]:
        return self._page(Job, self.path, state=state, device=device, page=page, sort=sort)

    def _act(self, job: str, verb: Literal["cancel", "pause", "resume", "retry"]) -> Job:
        return read(Job, self._connection.post(self._at(job, verb)))

    def cancel(self, job: str) -> Job:
        return self._act(job, "cancel")

    def pause(self, job: str) -> Job:
        return self._act(job, "pause")

    def resume(self, job: str) -> Job:
        return self._act(job, "resume")

    def retry(self, job: str) -> Job:
        """Create a new job with the same request."""
        return self._act(job, "retry")

    def delete(self, job: str) -> None:
        self._connection.delete(self._at(job))

    def evaluations(self, job: str, *, since: int | None = None, page: int = 1) -> Page[Evaluation]:
        return self._page(Evaluation, self._at(job, "evaluations"), since=since, page=page)

    def front(
        self,
        job: str,
        *,
        max_latency_ms: float | None = None,
        max_accuracy_drop: float | None = None,
        device: str | None = None,
        page: int = 1,
    ) -> Page[Evaluation]:
        """Return the evaluations that no other one beats, within limits if given; with `device`, on it alone."""
        query = {"max_latency_ms": max_latency_ms, "max_accuracy_drop": max_accuracy_drop, "device": device}
        return self._page(Evaluation, self._at(job, "front"), page=page, **query)

    def layers(self, job: str, *, evaluation: str | None = None) -> tuple[Layer, ...]:
        """Return what happened to each layer of the job's result, or of the finalist with this evaluation.

        Raises:
            Conflict: the job has not ended, or the evaluation is of no finalist.
        """
        return self._page(Layer, self._at(job, "layers"), evaluation=evaluation).items

    def training(self, job: str) -> Json:
        """Return `items`: each epoch of the control and the finalists, with its loss and its score on validation."""
        return self._connection.get(self._at(job, "training"))

    def log(self, job: str, *, tail: int = 1000, before: int | None = None) -> Json:
        return self._connection.get(self._at(job, "log"), {"tail": tail, "before": before})

    def artifacts(self, job: str) -> Page[Artifact]:
        return self._page(Artifact, self._at(job, "artifacts"))

    def download(self, job: str, folder: str | Path) -> tuple[Path, ...]:
        """Download and check every artifact of the job; create the folder if it is missing.

        Raises:
            Conflict: the job has not ended and has no files yet.
        """
        artifacts, found = Artifacts(self._connection), self.artifacts(job)
        if not found.items:
            self._check_ended(job)
        return tuple(artifacts.download(artifact, folder) for artifact in found)

    def _check_ended(self, job: str) -> None:
        found = self.get(job)
        if not found.finished:
            raise Conflict(
                Problem(409, "Conflict", f"job {found.name} is {found.state} and has no files yet", "no_files")
            )

    def watch(self, job: str) -> Iterator[Job]:
        """Yield the job now and after each of its events, until it is in a final state."""
        found = self.get(job)
        yield found
        if found.finished:
            return
        for event in self._connection.events([f"job:{found.id}"]):
            changed = found if event.type in _UNTOLD else self.get(found.id)
            if changed != found:
                found = changed
                yield found
            if found.finished:
                return

    def wait(self, job: str, *, progress: bool = False) -> Job:
        """Wait until the job is in a final state and return it. With `progress`, show the progress while waiting."""
        found: Job | None = None
        with shown(progress) as bars:
            for found in self.watch(job):
                bars.show(found)
        assert found is not None, "watch gives the job at least once"
        return found

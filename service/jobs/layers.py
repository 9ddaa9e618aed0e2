"""Layers of a job's networks: what was cut, what it saves and costs, and why, as the run wrote it into its report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from service.errors import Conflict, NotFound
from service.files.blobs import Blobs
from service.store.base import Tx
from service.store.jobs import artifacts, evaluations
from service.store.jobs.artifacts import Artifact
from service.store.jobs.evaluations import EvaluationRow
from service.store.jobs.jobs import Job
from service.store.jobs.states import FINAL


class LayerPublic(BaseModel):
    """One layer before and after the cut, or the whole network.

    `group` names the channels that are cut together, or the setting that acts on the layer. `role` says what `before`
    and `after` are: a width, bits, a rank, a density or an option. `latency_ms` maps each device id to the predicted
    latencies before and after; the rows of a network add up to its prediction. `share` is the layer's share of the
    original's predicted time on the first device. `sensitivity` is the score lost, by quick evaluations, if only this
    layer is cut; 0.01 is one point, and a positive number is a loss.
    """

    layer: str
    group: str | None
    role: str | None
    before: int | float | str | None
    after: int | float | str | None
    latency_ms: dict[str, tuple[float, float]]
    share: float | None
    sensitivity: float | None
    reason: str


class LayersPublic(BaseModel):
    """The layers of one judged network; `evaluation_id` is the evaluation in which it was timed.

    If the job ended before any network was judged, these are the layers of the nearest network, and `evaluation_id` is
    its evaluation in the search, or null if the search did not evaluate it.
    """

    evaluation_id: str | None
    strategy: str | None
    items: list[LayerPublic]


def layers_of(tx: Tx, blobs: Blobs, job: Job) -> Sequence[LayersPublic]:
    """Return the layers of every network that the job judged, the result first, or of the nearest network if the job
    judged none; empty if the report has none.
    """
    report, result = _report(tx, blobs, job), _origin_of_result(tx, job)
    rows = {row.candidate_id: row for row in evaluations.of_job(tx, job.id)}
    found = [each for each in report.get("finalists", ()) if "layers" in each]  # older versions kept no layers
    found.sort(key=lambda each: each["candidate"] != result)
    if (untrained := report.get("untrained")) is not None:
        return [_public(untrained, rows.get(untrained["candidate"]))]
    return [_public(each, rows[f"{each['candidate']}-timed"]) for each in found]


def layers(tx: Tx, blobs: Blobs, job: Job, evaluation_id: str | None) -> LayersPublic:
    """Return the layers of the network of one evaluation; of the result if None.

    Raises:
        NotFound: the job has no such evaluation.
        Conflict: the job has no layers (yet), or the evaluation is of no network that was judged.
    """
    found = layers_of(tx, blobs, job)
    if not found:
        raise _missing(job, judged=bool(_report(tx, blobs, job).get("finalists")))
    if evaluation_id is None:
        return found[0]
    row = tx.session.get(EvaluationRow, evaluation_id)
    if row is None or row.job_id != job.id:
        raise NotFound("evaluation of this job", evaluation_id)
    shown = evaluations.of_candidate(tx, job.id, f"{row.origin}-timed") or row
    known = {each.evaluation_id: each for each in found if each.evaluation_id is not None}
    if shown.id not in known:
        told = f"the finalists are {', '.join(known)}" if known else "the nearest network was not evaluated"
        raise Conflict(f"evaluation {evaluation_id} is no finalist; {told}", code="state")
    return known[shown.id]


def _missing(job: Job, judged: bool) -> Conflict:
    if job.state not in FINAL:
        return Conflict(f"job {job.name} is {job.state}; its layers are known when it has ended", code="state")
    why = "was run by an earlier version, which kept no layers" if judged else "ended before any network was judged"
    return Conflict(f"job {job.name} {why}", code="no_layers")


def _report(tx: Tx, blobs: Blobs, job: Job) -> Mapping[str, Any]:
    rows = artifacts.selected(job.id).where(Artifact.kind == "report_json")
    file = tx.session.execute(rows).scalars().first()
    found: Mapping[str, Any] = {} if file is None else json.loads(blobs.path(file.sha256).read_bytes())
    return found


def _origin_of_result(tx: Tx, job: Job) -> str | None:
    name = (job.best or job.nearest or {}).get("evaluation_id")
    row = None if name is None else tx.session.get(EvaluationRow, name)
    return None if row is None else row.origin


def _public(network: Mapping[str, Any], row: EvaluationRow | None) -> LayersPublic:
    known = None if row is None else row.id
    return LayersPublic.model_validate(
        {"evaluation_id": known, "strategy": network["strategy"], "items": network["layers"]}
    )

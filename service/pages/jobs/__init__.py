"""Jobs page: all jobs with their state, their progress and their best result within the limits."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, get_args

from fastapi import Request
from sqlalchemy import func, select

from search.metrics import row_of
from service.depends import State
from service.jobs.view import job_public
from service.pages.page import Page
from service.store import events
from service.store.devices import devices
from service.store.jobs import jobs
from service.store.jobs.states import State as JobState

PAGE_SIZE = 50


def _fill(request: Request, state: State) -> Mapping[str, Any]:
    wanted = request.query_params.get("state", "")
    chosen = next((known for known in get_args(JobState) if known == wanted), None)
    number = max(int(text), 1) if (text := request.query_params.get("page", "1")).isdecimal() else 1
    with state.store.read() as tx:
        since = events.newest(tx)
        rows = jobs.selected(chosen)
        total = tx.session.execute(select(func.count()).select_from(rows.subquery())).scalar_one()
        last = max(ceil(total / PAGE_SIZE), 1)
        number = min(number, last)
        shown = rows.order_by(jobs.Job.created_at.desc(), jobs.Job.id.desc())
        shown = shown.offset((number - 1) * PAGE_SIZE).limit(PAGE_SIZE)
        items = [job_public(tx, job) for job in tx.session.execute(shown).scalars()]
        names = {device.id: device.name for device in tx.session.execute(devices.rows()).scalars()}
    return {
        "jobs": items,
        "scores": {job.metric: row_of(job.metric) for job in items},
        "total": total,
        "number": number,
        "last": last,
        "states": get_args(JobState),
        "chosen": chosen,
        "device_names": names,
        "since": since,
    }


PAGE = Page("jobs", "/jobs", _fill, label="Jobs", order=1)

"""Verbs on jobs: list jobs, show them, wait for them, control them and download their files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.verbs.terminal import AsJson, JobRef, connect, exit_code, moment, print_table, show


def jobs(
    state: Annotated[
        str | None,
        typer.Option(help="Only jobs in this state: queued, running, paused, succeeded, failed or cancelled."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Only jobs for this device.")] = None,
    page: Annotated[int, typer.Option(min=1, help="Page of the list; a page has 50 jobs.")] = 1,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first.

    \b
      netlathe jobs
      netlathe jobs --state running --device pi5-onnxruntime-t1-fp32
    """
    with connect() as client:
        found = client.jobs.list(state=state, device=device, page=page)

    def human() -> None:
        rows = (
            (
                job.name,
                job.state,
                job.verdict,
                job.phase,
                f"{job.progress.fraction:.0%}",
                moment(job.created_at),
                job.id,
            )
            for job in found
        )
        print_table(("job", "state", "verdict", "phase", "done", "created", "id"), rows, "no jobs yet")

    show([job.raw for job in found], as_json, human)


def show_job(
    job: JobRef,
    watch: Annotated[bool, typer.Option("--watch", help="Wait until the job ends, with progress bars.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Show what happened to each layer, and why.")] = False,
    as_json: AsJson = False,
) -> int:
    """Show a job: its state, and the original, the control and the best network side by side.

    Exit codes: 0 all limits met, or not finished; 1 a limit missed; 3 failed or cancelled.

    \b
      netlathe show digits-half
      netlathe show digits-half --watch && echo met
      netlathe show digits-half --layers
    """
    from service.verbs.report import print_job, print_layers

    with connect() as client:
        found = client.jobs.wait(job, progress=not as_json) if watch else client.jobs.get(job)
        rows = client.jobs.layers(job) if layers else ()
    if layers:
        show([row.raw for row in rows], as_json, lambda: print_layers(found, rows))
    else:
        show(found.raw, as_json, lambda: print_job(found))
    return exit_code(found)


def cancel(job: JobRef, as_json: AsJson = False) -> None:
    """Cancel a job. The results it has so far are kept.

    \b
      netlathe cancel digits-half
    """
    _steer(job, "cancel", as_json)


def pause(job: JobRef, as_json: AsJson = False) -> None:
    """Pause a job once its running evaluations have ended; `netlathe resume` continues it.

    \b
      netlathe pause digits-half
    """
    _steer(job, "pause", as_json)


def resume(job: JobRef, as_json: AsJson = False) -> None:
    """Continue a paused job; no evaluation is lost or repeated.

    \b
      netlathe resume digits-half
    """
    _steer(job, "resume", as_json)


def retry(job: JobRef, as_json: AsJson = False) -> None:
    """Submit the request of a finished job again, as a new job.

    \b
      netlathe retry digits-half
    """
    _steer(job, "retry", as_json)


def _steer(job: str, verb: str, as_json: bool) -> None:
    with connect() as client:
        found = getattr(client.jobs, verb)(job)
    goal = {"pause": "paused", "cancel": "cancelled"}.get(verb, found.state)
    later = f" and will be {goal} soon" if found.state == "running" != goal else ""
    show(found.raw, as_json, lambda: typer.echo(f"{found.name} ({found.id}) is {found.state}{later}"))


def artifacts(
    job: JobRef,
    download: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Download all files into this folder and check their sha256."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the files that a job made: the ONNX file, the report, the manifest.

    \b
      netlathe artifacts digits-half
      netlathe artifacts digits-half --download out/
    """
    with connect() as client:
        found = client.jobs.artifacts(job)
        paths = () if download is None else client.jobs.download(job, download)

    def human() -> None:
        rows = ((item.name, item.kind, f"{item.size_bytes:,}", item.sha256[:12], item.id) for item in found)
        print_table(("artifact", "kind", "bytes", "sha256", "id"), rows, "no artifacts yet")
        for path in paths:
            typer.echo(path)

    show([item.raw for item in found] if download is None else [str(path) for path in paths], as_json, human)


def register(app: typer.Typer) -> None:
    for verb in (jobs, cancel, pause, resume, retry, artifacts):
        app.command()(verb)
    app.command("show")(show_job)

"""Verbs that run a part of the service: serve, conduct, agent, migrate, doctor, demo."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.verbs.terminal import FAILED, MET, AsJson, show

if TYPE_CHECKING:
    from service.settings import Settings


def _folder(given: str) -> Path:
    """Return the path. Refuse an empty path, which an unset variable gives, because it would mean the working
    folder.
    """
    if not given:
        raise typer.BadParameter("the path is empty")
    return Path(given)


DataDir = Annotated[
    Path | None,
    typer.Option(
        parser=_folder,
        metavar="PATH",
        help="Folder for uploads, results, the SQLite database and the first user's token. [NETLATHE_DATA_DIR]",
    ),
]
DatabaseUrl = Annotated[
    str | None, typer.Option(help="PostgreSQL to use instead of SQLite. [NETLATHE_DATABASE_URL, or a file: ..._FILE]")
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help="host:port of a Ray cluster's head; RAY_AUTH_TOKEN_PATH names its token file. Default: a local Ray."
    ),
]


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; default 8000, 0 for any free port.")
    ] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    ray_address: RayAddress = None,
    tls_cert: Annotated[Path | None, typer.Option(help="The server's certificate chain, in PEM format.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's private key, in PEM format.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow plain HTTP on an address that other machines can reach.")
    ] = False,
    conductor: Annotated[bool, typer.Option(help="Also run a conductor, which runs jobs on this machine.")] = True,
    agent: Annotated[bool, typer.Option(help="Also run an agent, which offers this machine as a device.")] = True,
    as_json: AsJson = False,
) -> int:
    """Run the service: API, dashboard, a conductor and an agent for this machine, by default with SQLite.

    Prints a one-time sign-in link if the output is a terminal. Every setting can also be an environment variable:
    NETLATHE_PORT, NETLATHE_DATA_DIR, ...

    \b
      netlathe serve
      netlathe serve --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem
      netlathe serve --no-conductor --no-agent --database-url postgresql://...   one of several API servers
    """
    settings = _settings(
        host=host,
        port=port,
        data_dir=data_dir,
        database_url=database_url,
        ray_address=ray_address,
        tls_cert=tls_cert,
        tls_key=tls_key,
        insecure=insecure or None,
    )

    from service.processes.serve import serve as run

    def ready(url: str) -> None:
        show({"url": url}, as_json, lambda: typer.echo(f"Netlathe listens on {url}"))

    return run(settings, conductor=conductor, agent=agent, ready=ready)


def conduct(
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> int:
    """Run jobs for `netlathe serve --no-conductor`, with the same data folder and database.

    \b
      netlathe conduct --data-dir /srv/netlathe --database-url postgresql://...
      netlathe conduct --data-dir /srv/netlathe --database-url postgresql://... --ray-address head:6379
    """
    from service.conducting.conductor import conduct as run
    from service.files import data_folder

    settings = _settings(data_dir=data_dir, database_url=database_url, ray_address=ray_address)
    data_folder.prepare(settings.data_dir)
    show({"data_dir": str(settings.data_dir)}, as_json, lambda: typer.echo(f"running jobs of {settings.data_dir}"))
    return run(settings)


def agent(
    url: Annotated[str | None, typer.Option(help="Address of the server. [NETLATHE_URL]")] = None,
    machine: Annotated[str | None, typer.Option(help="First part of the device names; default: the host name.")] = None,
    enrolment_token: Annotated[
        str | None,
        typer.Option(
            help="One-time token; only the first start needs it. [NETLATHE_ENROLMENT_TOKEN, or a file: ..._FILE]"
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None, typer.Option(help="Offer only this runtime; repeat the option for several.")
    ] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Folder for the agent's credentials.")] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            help="Certificate of the server or of its CA, in PEM format; default: SSL_CERT_FILE, then the usual CAs."
        ),
    ] = None,
    offer_again: Annotated[
        bool, typer.Option("--offer-again", help="Offer devices again that were deleted on the server.")
    ] = False,
    print_unit: Annotated[bool, typer.Option("--print-unit", help="Print a systemd user unit and exit.")] = False,
    as_json: AsJson = False,
) -> int:
    """Make this machine a device: run the timings that the server asks for, until stopped. Works behind NAT.

    A proxy is used only if NETLATHE_PROXY names it, or if NETLATHE_PROXY is `environment` and http_proxy or a similar
    variable names it. Loopback is always reached directly.

    \b
      netlathe tokens create pi5 --kind enrolment          (on the server; prints nl_e_...)
      NETLATHE_ENROLMENT_TOKEN=nl_e_... netlathe agent --url https://netlathe.example --machine pi5
      netlathe agent --url https://netlathe.example --print-unit > ~/.config/systemd/user/netlathe-agent.service

    \b
    Through ssh, if the server listens on loopback only:
      ssh -N -R 8000:127.0.0.1:8000 pi5 &                  (on the server)
      netlathe agent --url http://127.0.0.1:8000           (on pi5)
    """
    from netlathe import DEFAULT_URL

    url = url or os.environ.get("NETLATHE_URL") or DEFAULT_URL
    from hw_profiles.agent import agent as profiling

    if print_unit:
        unit = profiling.print_unit(url, machine, ca)
        show({"unit": unit}, as_json, lambda: typer.echo(unit))
        return MET
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO, every request is logged
    token = enrolment_token or _secret("NETLATHE_ENROLMENT_TOKEN")
    chosen: dict[str, Any] = {} if machine is None else {"machine": machine}
    chosen |= {"state_dir": state_dir, "ca": ca, "offer_again": offer_again}
    made = profiling.Agent(url, runtimes=runtime, enrolment_token=token, **chosen)
    return made.run()


def migrate(data_dir: DataDir = None, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Bring the database to the newest schema; with SQLite, `netlathe serve` does this itself.

    \b
      netlathe migrate --database-url postgresql://...
    """
    from service.files import data_folder
    from service.store import make_engine
    from service.store.migrate import migrate as run
    from service.store.migrate import newest_revision

    settings = _settings(data_dir=data_dir, database_url=database_url)
    if settings.database_url is None:
        data_folder.prepare(settings.data_dir)
    engine = make_engine(settings.url)
    try:
        run(engine)
    finally:
        engine.dispose()
    revision = newest_revision()
    show({"revision": revision}, as_json, lambda: typer.echo(f"the database is at {revision}"))


def doctor(data_dir: DataDir = None, as_json: AsJson = False) -> int:
    """Check this installation: extras, data folder, proxy, server, token, devices, and ports open to the network.

    \b
      netlathe doctor
    """
    from service.doctor import examine

    findings = examine(data_dir)
    marks = {"ok": "ok  ", "note": "note", "wrong": "BAD "}

    def human() -> None:
        for finding in findings:
            typer.echo(f"{marks[finding.state]} {finding.name}: {finding.detail}")

    show([vars(finding) for finding in findings], as_json, human)
    return FAILED if any(finding.state == "wrong" for finding in findings) else MET


def demo(as_json: AsJson = False) -> int:
    """Run the whole path on this machine in a few minutes: train a small network, halve its latency, check the result.

    The demo uses the handwritten digits that scikit-learn ships, a server on a free port and a temporary data folder.
    It leaves its files in netlathe-demo/ and stops the server. With KEEP=1, the server keeps running so that you can
    look at the dashboard.

    \b
      netlathe demo
      KEEP=1 netlathe demo
    """
    from service.demo.demo import run

    return run(as_json=as_json)


def _settings(**given: Any) -> Settings:
    """Return the settings from the environment, overridden by the command line."""
    from pydantic import ValidationError

    from service.settings import Settings

    given["database_url"] = given.get("database_url") or _secret("NETLATHE_DATABASE_URL")
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise typer.BadParameter(f"{place}: {first['msg']}" if place else first["msg"]) from error


def _secret(name: str) -> str | None:
    """Return a secret from the environment: the value of `name`, or the content of the file that `name`_FILE names."""
    file = os.environ.get(f"{name}_FILE")
    return os.environ.get(name) or (Path(file).read_text().strip() if file else None)


def register(app: typer.Typer) -> None:
    for verb in (serve, conduct, agent, migrate, doctor, demo):
        app.command()(verb)

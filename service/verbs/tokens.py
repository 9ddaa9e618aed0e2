"""Verbs on tokens: tokens of people, and one-time tokens that enrol a machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from service.verbs.terminal import AsJson, connect, moment, print_table, show

MIN_DAYS, MAX_DAYS = 0.001, 36_500

tokens = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    help="""List, create and revoke tokens.

\b
  netlathe tokens
  netlathe tokens create ci --days 90                  a token for a person or a pipeline
  netlathe tokens create pi5 --kind enrolment          lets one machine enrol as a device, once
  netlathe tokens delete tok_1a2b
""",
)


@tokens.callback()
def listed(
    context: typer.Context,
    page: Annotated[int, typer.Option(min=1, help="Page of the list; a page has 50 tokens.")] = 1,
    as_json: AsJson = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        found = client.tokens.list(page=page)
    rows = ((token.name, token.kind, moment(token.expires_at), moment(token.used_at), token.id) for token in found)
    show([t.raw for t in found], as_json, lambda: print_table(("token", "kind", "expires", "used", "id"), rows))


@tokens.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the token, e.g. of the person or machine that will use it.")],
    kind: Annotated[
        str, typer.Option(help="user, for a person or a pipeline, or enrolment, to enrol one machine once.")
    ] = "user",
    days: Annotated[
        float | None, typer.Option(help="Days until the token expires; if omitted, it never expires.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a token and print its secret, which is never shown again.

    \b
      netlathe tokens create pi5 --kind enrolment --days 1
    """
    if kind not in ("user", "enrolment"):
        raise typer.BadParameter(f"--kind is user or enrolment, got {kind!r}")
    if days is not None and not MIN_DAYS <= days <= MAX_DAYS:  # NaN fails this check, too
        raise typer.BadParameter(f"--days is a number from {MIN_DAYS:g} to {MAX_DAYS:g}, got {days:g}")
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with connect() as client:
        made = client.tokens.create(name, kind="enrolment" if kind == "enrolment" else "user", expires_at=expires_at)
    show(made.raw, as_json, lambda: typer.echo(made.token))


@tokens.command()
def delete(token: Annotated[str, typer.Argument(help="Id of the token, as listed by `netlathe tokens`.")]) -> None:
    """Revoke a token at once.

    \b
      netlathe tokens delete tok_1a2b
    """
    with connect() as client:
        client.tokens.delete(token)


def register(app: typer.Typer) -> None:
    app.add_typer(tokens, name="tokens")

"""The command line: one verb a function; everything heavy is imported inside the verb that needs it."""

import typer

app = typer.Typer(no_args_is_help=True, help="Netlathe: smaller networks whose latency was measured.")


@app.callback()
def root() -> None:
    """Netlathe."""


def main() -> None:
    """Entry point of the `netlathe` command."""
    app()

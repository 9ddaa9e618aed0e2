"""The command line: `netlathe <verb>`. Verbs live in service/verbs and import what they need when they are called.

Exit codes: 0 done and all limits met, 1 done but a limit missed, 2 wrong usage, 3 failed, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import netlathe

FAILED = 3
FOLDERS = ("service", "workers", "compress", "hw_profiles", "search")  # errors of these packages are written for people


def build() -> typer.Typer:
    """Build the application with every verb of service/verbs."""
    import service.verbs
    from search.discovery import modules

    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        help=service.verbs.__doc__,
    )
    for module in modules(service.verbs.__name__):
        if hasattr(module, "register"):
            module.register(app)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. An error is one or two lines on stderr, or one JSON line with
    --json.
    """
    as_json = "--json" in arguments
    try:
        result = build()(args=list(arguments), prog_name="netlathe", standalone_mode=False)
    except typer.Abort:
        return _fail("aborted", 130, as_json)
    except typer.TyperException as error:
        return _usage(error, as_json)
    except ModuleNotFoundError as error:
        return _fail(_missing(error), FAILED, as_json)
    except Exception as error:
        from service.processes.switch import is_on

        if is_on("NETLATHE_TRACE"):
            raise
        return _fail(*_told(error), as_json, getattr(error, "problem", None))
    return result if isinstance(result, int) else 0


def main() -> None:
    """Run the `netlathe` command with this process's arguments."""
    raise SystemExit(run(sys.argv[1:]))


def _fail(line: str, code: int, as_json: bool, problem: netlathe.Problem | None = None) -> int:
    """Print an error. The JSON form includes the fields of the server's problem document, if there is one."""
    if as_json:
        typer.echo(json.dumps({**(asdict(problem) if problem else {}), "detail": line, "exit_code": code}), err=True)
    else:
        typer.echo(f"netlathe: {line}", err=True)
    return code


def _usage(error: typer.TyperException, as_json: bool) -> int:
    """Print a usage error and how to get help. A missing verb is a usage error, too."""
    context = getattr(error, "ctx", None)
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    where = context.command_path if context is not None else "netlathe"
    if as_json and message:
        return _fail(" ".join(message.split()), getattr(error, "exit_code", 2), as_json)
    if message and not message.startswith("Usage:"):
        typer.echo(f"{where}: {' '.join(message.split())}\nTry '{where} --help'.", err=True)
    else:
        typer.echo(message or (context.get_help() if context is not None else ""), err=True)
    return getattr(error, "exit_code", 2)


def _missing(error: ModuleNotFoundError) -> str:
    from hw_profiles.errors import install_command
    from service.extras import extra_of

    module = (error.name or "").split(".")[0]
    extra = extra_of(module)
    return str(error) if extra is None else f"this needs {module}: {install_command(extra)}"


def _told(error: Exception) -> tuple[str, int]:
    """Return an error's line to print and its exit code: 2 for a wrong request, 3 for any other failure."""
    import netlathe
    from service.errors import REFUSALS

    if isinstance(error, netlathe.Invalid | netlathe.BadProxy):
        return f"{error}", 2
    if isinstance(error, netlathe.Unauthorized):
        return f"{error}: set NETLATHE_TOKEN, or NETLATHE_DATA_DIR to the server's data folder", FAILED
    if isinstance(error, netlathe.Unreachable):
        return f"{error}: is `netlathe serve` running, and is NETLATHE_URL right?", FAILED
    if isinstance(error, netlathe.NetlatheError):
        return f"{error}", FAILED
    if isinstance(error, REFUSALS):
        return " ".join(str(error).split()), 2
    text = " ".join(str(error).split())[:300]
    if isinstance(error, OSError) or type(error).__module__.split(".")[0] in FOLDERS:
        return text, FAILED
    return f"unexpected {type(error).__name__}: {text} (NETLATHE_TRACE=1 shows where)", FAILED

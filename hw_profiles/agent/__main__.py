"""python -m hw_profiles.agent: runs the agent without the other commands of Netlathe.

The enrolment token is read from $NETLATHE_ENROLMENT_TOKEN, so that process lists do not show it.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from hw_profiles.agent.agent import Agent, print_unit
from hw_profiles.agent.exit_codes import FAILED
from hw_profiles.lifeline import watch_parent

GRACE_S = 5.0
"""Seconds allowed for giving a lease back; after that the process ends, whatever it is doing."""
TOKEN_VARIABLE = "NETLATHE_ENROLMENT_TOKEN"


def main(arguments: list[str] | None = None) -> int:
    """Run an agent with these command-line arguments; return its exit code."""
    given = _parser().parse_args(arguments)
    if given.print_unit:
        sys.stdout.write(print_unit(given.url, given.machine, given.ca))
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    agent = Agent(
        given.url,
        machine=given.machine,
        runtimes=given.runtime,
        enrolment_token=os.environ.pop(TOKEN_VARIABLE, None),
        state_dir=given.state_dir,
        ca=given.ca,
        offer_again=given.offer_again,
    )
    if given.end_with_stdin:
        _end_with_stdin(agent)
    return agent.run()


def _end_with_stdin(agent: Agent) -> None:
    """End this process when stdin closes, so that an agent started by a server ends with that server.

    Its lease is given back if the server still answers; else the lease expires and its work returns to the queue.
    """

    def give_back() -> None:
        agent.leave()
        time.sleep(GRACE_S)
        os._exit(FAILED)

    watch_parent(give_back)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="netlathe agent", description=__doc__)
    parser.add_argument("--url", default=os.environ.get("NETLATHE_URL", "http://127.0.0.1:8000"))
    parser.add_argument("--machine", help="first part of device names; default: the host's name")
    parser.add_argument("--runtime", action="append", help="offer only this runtime; repeat for several")
    parser.add_argument("--state-dir", type=Path, help="folder for the agent's credentials")
    parser.add_argument(
        "--ca",
        type=Path,
        help="certificate of the server or of its CA, PEM; default: SSL_CERT_FILE, then the usual CAs",
    )
    parser.add_argument("--offer-again", action="store_true", help="offer a device again after it was deleted")
    parser.add_argument("--end-with-stdin", action="store_true", help="exit when stdin closes")
    parser.add_argument("--print-unit", action="store_true", help="print a systemd user unit and exit")
    return parser


if __name__ == "__main__":
    sys.exit(main())

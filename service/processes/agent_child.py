"""The agent of the server's own machine: a child process that makes the same REST calls as any other agent."""

from __future__ import annotations

import secrets
from datetime import timedelta
from pathlib import Path

from hw_profiles.agent.__main__ import GRACE_S, TOKEN_VARIABLE
from service.files.secret_values import new_secret
from service.processes.child import Child
from service.processes.restarting import KeptAlive
from service.store import tokens
from service.store.engine import Store

MACHINE = "local"
TOKEN_LIFE = timedelta(minutes=10)


def agent_child(
    url: str,
    store: Store,
    state_dir: Path,
    *,
    machine: str = MACHINE,
    runtimes: tuple[str, ...] | None = None,
    ca: Path | None = None,
) -> KeptAlive:
    """Return an agent that is restarted whenever it dies, and that ends with this process in any case.

    Args:
        state_dir: folder that keeps the agent's credentials between starts.
        runtimes: runtimes to offer; None offers all except simulated runtimes.
        ca: the server's own certificate.
    """
    arguments = ["--url", url, "--machine", machine, "--state-dir", str(state_dir), "--end-with-stdin", "--offer-again"]
    if ca is not None:
        arguments += ["--ca", str(ca.absolute())]
    for name in runtimes or ():
        arguments += ["--runtime", name]

    def spawn() -> Child:
        secret = new_secret("enrolment")
        with store.begin() as tx:
            name = f"agent-{secrets.token_hex(4)}"
            tokens.create(tx, "enrolment", name, secret, expires_at=tx.now + TOKEN_LIFE)
        return Child("hw_profiles.agent", arguments, {TOKEN_VARIABLE: secret})

    # The agent gives its timing process GRACE_S to end, and then ends itself.
    return KeptAlive("the agent of this machine", spawn, GRACE_S + 1.0)

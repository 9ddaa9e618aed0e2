"""Child: a process of the service that shuts down cleanly when its stdin closes.

However this process ends, the kernel closes the pipe, and the child sees the end of its stdin and shuts down.
The child gets no signal before that, so a conductor can give back its jobs, and an agent can give back its lease.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hw_profiles.child_environment import child_environment
from hw_profiles.child_process import ChildProcess, python_module


class Child(ChildProcess):
    """A child process with `python -P -m module arguments` in its own session, so that Ctrl-C reaches only the parent.

    The child inherits the environment without the settings of this process; `environment` has the settings that the
    child needs.
    """

    def __init__(
        self, module: str, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(
            python_module(module, *arguments),
            environment={**child_environment(with_packages=True), **(environment or {})},
            output="ours",
            own_session=True,
            dies_by=None,
        )

"""Child: one of the service's own processes, which ends in order when its stdin does.

When this process ends, in whatever way, the kernel closes the pipe; the child sees the end of its stdin and leaves.
No signal comes before that: a conductor gives its jobs back, and an agent its lease.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hw_profiles.child_environment import child_environment
from hw_profiles.child_process import ChildProcess, python_module


class Child(ChildProcess):
    """One child process, running `python -P -m module arguments` in a session of its own; Ctrl-C is for us.

    It inherits our environment without our settings; what it is to know is in `environment`.
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

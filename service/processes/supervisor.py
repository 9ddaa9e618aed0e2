"""Supervisor: the children of `serve`. A child that dies is restarted; all of them end with this process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from service.processes.child import Child
from service.processes.restarting import KeptAlive
from service.settings import Settings
from service.store.engine import Store


class Supervisor:
    """Keeps a conductor and the agent of this machine running. `grace_s` is the time that a conductor has to end."""

    def __init__(self, settings: Settings, store: Store, url: str, grace_s: float) -> None:
        self._settings = settings
        self._store = store
        self._url = url
        self._grace_s = grace_s
        self._children: list[KeptAlive] = []
        self._ending = threading.Event()

    def start_conductor(self) -> None:
        """Start a conductor, which is restarted whenever it dies."""
        environment = _environment(self._settings)
        self._start(
            KeptAlive("the conductor", lambda: Child("service.conducting.conductor", (), environment), self._grace_s)
        )

    def start_agent(self) -> None:
        """Start the agent of this machine, which enrols over REST like any other agent."""
        from service.processes.agent_child import agent_child

        self._start(agent_child(self._url, self._store, self._settings.data_dir / "agent", ca=self._settings.tls_cert))

    def ask_to_end(self) -> None:
        """Tell the children to end, without waiting for them. They end while the last requests are answered."""
        self._ending.set()
        for child in self._children:
            child.ask_to_end()

    def end(self) -> None:
        """End all children, and wait until all have ended."""
        self.ask_to_end()
        with ThreadPoolExecutor() as together:
            for child in self._children:
                together.submit(child.end)

    def _start(self, child: KeptAlive) -> None:
        self._children.append(child)  # before the check below, so that a concurrent `ask_to_end` finds the child
        if not self._ending.is_set():
            child.start()


def _environment(settings: Settings) -> Mapping[str, str]:
    """Return the settings as environment variables for a child."""
    prefix = settings.model_config["env_prefix"]
    plain = settings.model_dump(mode="json", exclude_none=True)
    plain["allowed_hosts"] = None  # a conductor does not listen
    return {f"{prefix}{name.upper()}": str(value) for name, value in plain.items() if value is not None}

"""Client: a connection to a server, with the server's resources."""

from __future__ import annotations

from functools import cached_property

from netlathe.connection import Connection
from netlathe.resources.artifacts import Artifacts
from netlathe.resources.datasets import Datasets
from netlathe.resources.devices import Devices
from netlathe.resources.jobs import Jobs
from netlathe.resources.models import Models
from netlathe.resources.tokens import Tokens
from netlathe.results import Json


class Client(Connection):
    """A Connection with the resources of the REST contract, version 1. It takes the same arguments as Connection."""

    @cached_property
    def models(self) -> Models:
        return Models(self)

    @cached_property
    def datasets(self) -> Datasets:
        return Datasets(self)

    @cached_property
    def jobs(self) -> Jobs:
        return Jobs(self)

    @cached_property
    def artifacts(self) -> Artifacts:
        return Artifacts(self)

    @cached_property
    def devices(self) -> Devices:
        return Devices(self)

    @cached_property
    def tokens(self) -> Tokens:
        return Tokens(self)

    def ready(self) -> Json:
        """Return the server's `{store, writes, executor, conductors}`. Raises ServerFailed while the server is not
        ready.
        """
        return self.get("/readyz")

    def catalogue(self) -> Json:
        """Return strategies, methods and metrics, with the JSON Schemas of their settings, and the agents' runtimes."""
        return self.get("/api/v1/catalogue")

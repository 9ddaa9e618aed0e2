"""Tokens of users, and one-time tokens that enrol an agent."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from netlathe.reading import read
from netlathe.resources.resource import Resource
from netlathe.results import Page, Token


class Tokens(Resource):
    """Tokens of users, and one-time tokens that enrol an agent."""

    path = "/api/v1/tokens"

    def create(
        self, name: str, *, kind: Literal["user", "enrolment"] = "user", expires_at: datetime | None = None
    ) -> Token:
        """Create a token; its `token` is never shown again."""
        at = None if expires_at is None else expires_at.isoformat()
        return read(Token, self._connection.post(self.path, {"kind": kind, "name": name, "expires_at": at}))

    def list(self, *, page: int = 1) -> Page[Token]:
        return self._page(Token, self.path, page=page)

    def delete(self, token: str) -> None:
        self._connection.delete(self._at(token))

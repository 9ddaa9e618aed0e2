"""Once: runs a POST that creates something at most once per Idempotency-Key (contract: Jobs).

    @router.post("", status_code=201, response_model=JobPublic)
    def create(body: JobCreate, once: OnceDep) -> Response:
        return once(lambda tx: Answer(public(jobs.create(tx, body))), of=body)

The key and the answer are stored in the same transaction as the new resource, so that after a crash either all
exist or none. Secrets of an answer are not stored; a repeated request derives the same secret again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from service.files.secret_values import derived_secret, new_secret, read_or_make_key
from service.store import idempotency as kept_answers
from service.store.base import Tx
from service.store.engine import Store


@dataclass(frozen=True)
class Answer:
    """The answer that describes a new resource. `secret_field` names the top-level field of `body` that holds a secret
    of `secret_kind`.
    """

    body: BaseModel
    status: int = 201
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_field: str | None = None
    secret_kind: str = "user"


@dataclass(frozen=True)
class Once:
    """Runs a request's work at most once per `key`. If `key` is None, the client sent no key, and the work always
    runs.
    """

    store: Store
    owner: str
    key: str | None
    route: str
    keep: timedelta
    key_path: Path

    def __call__(self, make: Callable[[Tx], Answer], *, of: BaseModel | Mapping[str, Any]) -> Response:
        """Return the answer of `make`, or the earlier answer to this key. Two requests are the same if their `of`
        values are equal.

        Raises:
            Conflict: the key was used for a different request.
        """
        if self.key is None:
            with self.store.begin() as tx:
                return _response(make(tx))
        try:
            return self._make_or_replay(make, self._fingerprint(of))
        except kept_answers.Raced:
            return self._make_or_replay(make, self._fingerprint(of))

    def replayed(self, of: BaseModel | Mapping[str, Any]) -> Response | None:
        """Return the stored answer, so that expensive work such as an upload's checks is skipped. None means that no
        answer is stored and the work is needed.

        Raises:
            Conflict: the key was used for a different request.
        """
        if self.key is None:
            return None
        with self.store.read() as tx:
            kept = kept_answers.find(tx, self.owner, self.key, self._fingerprint(of), self.keep)
            return None if kept is None else self._replay(kept)

    def secret(self, kind: str) -> str:
        """Return a new secret. With a key, it is derived from the key, so that a repeated request returns the same
        secret.
        """
        if self.key is None:
            return new_secret(kind)
        return derived_secret(kind, read_or_make_key(self.key_path), self.owner, self.key, self.route)

    def _make_or_replay(self, make: Callable[[Tx], Answer], fingerprint: str) -> Response:
        assert self.key is not None
        with self.store.begin() as tx:
            kept = kept_answers.find(tx, self.owner, self.key, fingerprint, self.keep)
            if kept is not None:
                return self._replay(kept)
            claimed = kept_answers.claim(tx, self.owner, self.key, fingerprint, self.keep)
            answer = make(tx)
            claimed.status = answer.status
            claimed.headers = dict(answer.headers)
            claimed.body = _without_secret(answer)
            if answer.secret_field is not None:
                claimed.secret = {"field": answer.secret_field, "kind": answer.secret_kind}
            return _response(answer)

    def _replay(self, kept: kept_answers.KeptAnswer) -> Response:
        body = dict(kept.body)
        if kept.secret is not None:
            body[kept.secret["field"]] = self.secret(kept.secret["kind"])
        return JSONResponse(body, kept.status, {**kept.headers, "Idempotent-Replayed": "true"})

    def _fingerprint(self, of: BaseModel | Mapping[str, Any]) -> str:
        # Defaults are left out, so that a key stays valid after an upgrade that adds an optional field.
        content = of.model_dump(mode="json", exclude_unset=True) if isinstance(of, BaseModel) else dict(of)
        text = json.dumps([self.route, content], sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _without_secret(answer: Answer) -> dict[str, Any]:
    body: dict[str, Any] = answer.body.model_dump(mode="json")
    if answer.secret_field is not None:
        del body[answer.secret_field]
    return body


def _response(answer: Answer) -> Response:
    return JSONResponse(answer.body.model_dump(mode="json"), answer.status, dict(answer.headers))

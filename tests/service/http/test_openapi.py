"""The committed OpenAPI document is the one of the routes."""

from __future__ import annotations

import json

from service.openapi import PATH, document


def test_the_committed_document_is_the_one_of_the_routes() -> None:
    assert PATH.read_text() == document(), "the routes have changed: run `python -m service.openapi` and commit it"


def test_operations_have_distinct_ids_and_every_route_tells_its_problems() -> None:
    paths = json.loads(document())["paths"]
    operations = [operation for path in paths.values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    for path, methods in paths.items():
        for method, operation in methods.items():
            if path.startswith("/api/v1/") and path != "/api/v1/session":
                assert "401" in operation["responses"], f"{method} {path} does not tell that it needs a token"

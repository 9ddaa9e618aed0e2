"""Contents of artifacts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path
from starlette.responses import FileResponse, Response

from service.depends import BlobsDep, StoreDep, UserDep
from service.http.downloads import BINARY, file_answer
from service.http.problem_details import documented
from service.store.jobs import artifacts

router = APIRouter(prefix="/api/v1/artifacts", tags=["artifacts"])
IMMUTABLE = "private, immutable, max-age=31536000"


@router.head("/{artifact_id}/content", include_in_schema=False)
@router.get(
    "/{artifact_id}/content",
    response_class=FileResponse,
    responses={**documented(401, 403, 404, 416), 304: {"description": "The client has the current content"}},
)
def read_content(
    artifact_id: Annotated[str, Path(max_length=80)],
    store: StoreDep,
    blobs: BlobsDep,
    _user: UserDep,
    if_none_match: Annotated[str | None, Header(max_length=1000)] = None,
) -> Response:
    """Download the file of an artifact. Its sha256 is the ETag, and its content never changes."""
    with store.read() as tx:
        artifact = artifacts.get(tx, artifact_id)
    media_type = "application/json" if artifact.name.endswith(".json") else BINARY
    return file_answer(blobs, artifact.sha256, artifact.name, if_none_match, cache=IMMUTABLE, media_type=media_type)

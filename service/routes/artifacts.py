"""The bytes of an artifact."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path
from starlette.responses import FileResponse, Response

from service.depends import BlobsDep, StoreDep, UserDep
from service.problems import documented
from service.store import artifacts

router = APIRouter(prefix="/api/v1/artifacts", tags=["artifacts"])


@router.get(
    "/{artifact_id}/content",
    response_class=FileResponse,
    responses={**documented(401, 403, 404), 304: {"description": "The client has these bytes"}},
)
def read_content(
    artifact_id: Annotated[str, Path(max_length=80)],
    store: StoreDep,
    blobs: BlobsDep,
    _user: UserDep,
    if_none_match: Annotated[str | None, Header(max_length=1000)] = None,
) -> Response:
    """The file, always as a download; its sha256 is the ETag, and the bytes behind it never change."""
    with store.read() as tx:
        artifact = artifacts.get(tx, artifact_id)
    headers = {"ETag": f'"{artifact.sha256}"', "Cache-Control": "private, immutable, max-age=31536000"}
    if if_none_match is not None and artifact.sha256 in if_none_match:
        return Response(status_code=304, headers=headers)
    # A type that no browser renders: a report is user content and must not run on our origin.
    media_type = "application/json" if artifact.name.endswith(".json") else "application/octet-stream"
    return FileResponse(blobs.path(artifact.sha256), headers=headers, media_type=media_type, filename=artifact.name)

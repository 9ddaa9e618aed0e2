"""Content: uploaded files given back, always as downloads."""

from __future__ import annotations

from starlette.responses import FileResponse, Response

from service.blobs import Blobs


def file_answer(blobs: Blobs, sha256: str, file_name: str, if_none_match: str | None) -> Response:
    """A stored content as a download under a name. Its sha256 is the ETag.

    The type is one that no browser renders: users' files must not run on our origin.
    """
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "private, no-cache"}
    if if_none_match is not None and sha256 in if_none_match:
        return Response(status_code=304, headers=headers)
    return FileResponse(blobs.path(sha256), headers=headers, media_type="application/octet-stream", filename=file_name)

"""Assets: the pages' scripts and styles, and plotly from its wheel. Addresses contain a digest, so they never
change.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

from service.errors import NotFound

FOLDER = Path(__file__).parent
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
PLOTLY_URL = f"/assets/plotly-{version('plotly')}/plotly.min.js"
IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}

router = APIRouter(include_in_schema=False)


@cache
def _paths() -> dict[str, Path]:
    """Return every asset by its name, such as "job/page.js"; requests can read only these assets."""
    found = (path for path in sorted(FOLDER.rglob("*")) if path.suffix in KINDS)
    return {path.relative_to(FOLDER).as_posix(): path for path in found}


@cache
def _digest() -> str:
    """Return one digest over all assets. If one asset changes, all addresses must change, because modules import each
    other by relative paths.
    """
    content = b"".join(name.encode() + path.read_bytes() for name, path in _paths().items())
    return hashlib.sha256(content).hexdigest()[:12]


def asset_url(name: str) -> str:
    """Return the address of an asset. Raises KeyError if there is no asset of this name."""
    return f"/assets/{_digest()}/{_paths()[name].relative_to(FOLDER).as_posix()}"


@cache
def _plotly() -> bytes:
    content = files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    return gzip.compress(content, compresslevel=6, mtime=0)


@router.get(PLOTLY_URL, name="plotly")
def read_plotly() -> Response:
    """Return plotly.js from its Python package, compressed once with gzip, which every browser since 1999 can read."""
    return Response(_plotly(), media_type="text/javascript", headers={**IMMUTABLE, "Content-Encoding": "gzip"})


@router.get("/assets/{digest}/{name:path}", name="asset")
def read_asset(digest: str, name: str) -> Response:
    """Return one of the pages' scripts or styles."""
    path = _paths().get(name)
    if path is None or digest != _digest():
        raise NotFound("asset", name)
    return Response(path.read_bytes(), media_type=KINDS[path.suffix], headers=IMMUTABLE)

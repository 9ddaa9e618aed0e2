"""Artifacts: files that jobs made."""

from __future__ import annotations

from pathlib import Path

from netlathe.errors import invalid
from netlathe.resources.resource import Resource
from netlathe.results import Artifact


class Artifacts(Resource):
    """Files that jobs made."""

    path = "/api/v1/artifacts"

    def download(self, artifact: Artifact, folder: str | Path) -> Path:
        """Download an artifact into a folder and check its sha256.

        Raises:
            Invalid: the folder is a file.
            Damaged: the file's sha256 differs from the sha256 that the server announced.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise invalid("folder", str(folder), "is a file; give a folder")
        folder.mkdir(parents=True, exist_ok=True)
        # The name that the server sent must not act as a path: only its last part may name a file here.
        name = Path(artifact.name).name or artifact.id
        return self._connection.download(f"{self.path}/{artifact.id}/content", folder / name, artifact.sha256)

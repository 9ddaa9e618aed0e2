"""Artifacts: files that jobs made."""

from __future__ import annotations

from pathlib import Path

from netlathe.resources.resource import Resource
from netlathe.results import Artifact


class Artifacts(Resource):
    """Files that jobs made."""

    path = "/api/v1/artifacts"

    def download(self, artifact: Artifact, folder: str | Path) -> Path:
        """The artifact in a folder, its sha256 checked.

        Raises:
            Damaged: the bytes are not those that the server promised.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # The server's name is no path: only its last part may choose a file here.
        name = Path(artifact.name).name or artifact.id
        return self._connection.download(f"{self.path}/{artifact.id}/content", folder / name, artifact.sha256)

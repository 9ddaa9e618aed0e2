"""Models: uploaded networks."""

from __future__ import annotations

import json
from pathlib import Path

from netlathe.reading import read
from netlathe.resources.resource import Resource, default_name
from netlathe.results import Json, Model, Page


class Models(Resource):
    """Uploaded networks."""

    path = "/api/v1/models"

    def create(
        self, file: str | Path, name: str | None = None, *, preprocessing: Json | None = None, output: str | None = None
    ) -> Model:
        """Upload an ONNX file; if `name` is None, the name is made from the file's name. Uploading the same content
        again returns the same model.

        If the network has several outputs, `output` names the scored one; the other outputs are kept unchanged.
        """
        name = name or default_name(Path(file), preprocessing, *([] if output is None else [output]))
        pixels = None if preprocessing is None else json.dumps(preprocessing)
        return self._create_from_file(Model, file, {"name": name, "preprocessing": pixels, "output": output})

    def get(self, model: str) -> Model:
        return read(Model, self._connection.get(self._at(model)))

    def list(self, *, page: int = 1, sort: str | None = None) -> Page[Model]:
        return self._page(Model, self.path, page=page, sort=sort)

    def delete(self, model: str) -> None:
        self._connection.delete(self._at(model))

    def preflight(self, model: str, device: str | None = None) -> Json:
        """Return the prunable share, the frozen groups with the reasons, each layer's predicted share of the time, the
        lowest latency that pruning can reach, and the table's coverage.
        """
        return self._connection.get(self._at(model, "preflight"), {"device": device})

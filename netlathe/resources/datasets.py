"""Datasets: uploaded data sets."""

from __future__ import annotations

from pathlib import Path

from netlathe.reading import read
from netlathe.resources.resource import Resource, default_name
from netlathe.results import Dataset, Page


class Datasets(Resource):
    """Uploaded data sets."""

    path = "/api/v1/datasets"

    def create(
        self, file: str | Path, name: str | None = None, *, layout: str | None = None, classes: int | None = None
    ) -> Dataset:
        """Upload an .npz, Parquet or zip file; if `name` is None, the name is made from the file's name."""
        name = name or default_name(Path(file), layout, classes)
        return self._create_from_file(Dataset, file, {"name": name, "layout": layout, "classes": classes})

    def get(self, dataset: str) -> Dataset:
        return read(Dataset, self._connection.get(self._at(dataset)))

    def list(self, *, page: int = 1, sort: str | None = None) -> Page[Dataset]:
        return self._page(Dataset, self.path, page=page, sort=sort)

    def delete(self, dataset: str) -> None:
        self._connection.delete(self._at(dataset))

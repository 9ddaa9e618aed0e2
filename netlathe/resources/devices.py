"""Devices: configurations of machines, with their latency tables and predictions."""

from __future__ import annotations

from netlathe.reading import read
from netlathe.resources.resource import Resource
from netlathe.results import Device, Json, Measurement, Page, Prediction


class Devices(Resource):
    """Configurations of machines, with their latency tables and their predictions for a network."""

    path = "/api/v1/devices"

    def list(self, *, page: int = 1) -> Page[Device]:
        return self._page(Device, self.path, page=page)

    def get(self, device: str) -> Device:
        return read(Device, self._connection.get(self._at(device)))

    def delete(self, device: str) -> None:
        self._connection.delete(self._at(device))

    def table(self, device: str) -> Json:
        return self._connection.get(self._at(device, "table"))

    def import_table(self, device: str, table: Json) -> Json:
        return self._connection.post(self._at(device, "table"), table)

    def predict(self, device: str, model: str, *, fill: bool = False) -> Prediction:
        """Return the latency that the table predicts. If `fill` is True, the agent measures missing rows for later
        calls.
        """
        return read(Prediction, self._connection.post(self._at(device, "predict"), {"model": model, "fill": fill}))

    def measure(self, device: str, model: str, *, wait: bool = True, poll_s: float = 1.0) -> Measurement:
        """Time a whole network on the device; return the finished measurement if `wait`, else the queued one."""
        data = self._connection.post(self._at(device, "measurements"), {"model": model})
        found = read(Measurement, data)
        while wait and found.state not in ("done", "failed"):
            self._connection.sleep(poll_s)
            found = read(Measurement, self._connection.get(f"/api/v1/measurements/{found.id}"))
        return found

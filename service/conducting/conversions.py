"""Conversions: a run asks a device to convert networks to the format of the device's engine, and reads the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import hw_profiles.errors
from hw_profiles.runtimes import Arrays
from hw_profiles.timing.conversion import Conversion
from hw_profiles.timing.protocol import Failure
from hw_profiles.wire.arrays import pack, unpack
from service.files.blobs import Blobs
from service.store.devices import conversions, devices
from service.store.devices.conversions import Answered, Question
from service.store.engine import Store
from service.store.jobs import job_leases
from service.store.jobs.job_leases import Held


@dataclass(frozen=True)
class Conversions:
    """Conversions on one device, for one held job."""

    store: Store
    blobs: Blobs
    held: Held
    device_id: str

    def ask(self, models: Sequence[bytes], samples: Arrays) -> Sequence[Question]:
        """Ask the device about the models, and return the questions in the order of the models. Answered questions are
        not asked again.

        Raises:
            LeaseLost: another conductor has the job now.
        """
        files = [self.blobs.put_bytes(content) for content in (pack(samples), *models)]
        shown, *networks = files
        wanted = [Question(network.sha256, shown.sha256) for network in networks]
        with self.store.begin() as tx:
            job_leases.fence(tx, self.held)
            for blob in files:
                self.blobs.record(tx, blob)
            conversions.ask(tx, self.device_id, wanted, self.held.job_id)
        return wanted

    def found(self, wanted: Sequence[Question]) -> Sequence[Conversion | Failure] | str:
        """Return the device's answers in the order of the questions, or a description of what is missing. A conversion
        that the device could not do is a Failure.
        """
        with self.store.read() as tx:
            known = conversions.answered(tx, devices.get(tx, self.device_id), wanted)
        if any(each.digest not in known for each in wanted):
            return "the files that its engine builds from networks"
        return [self._read(each.network, known[each.digest]) for each in wanted]

    def _read(self, network: str, answer: Answered) -> Conversion | Failure:
        if answer.failure:
            return Failure(network, answer.failure)
        try:
            outputs = unpack(self.blobs.path(answer.outputs).read_bytes())
        except hw_profiles.errors.InvalidInput as error:
            return Failure(network, f"its agent sent no outputs: {error}")
        return Conversion(self.blobs.path(answer.file).read_bytes(), outputs)

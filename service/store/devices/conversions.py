"""Conversions: files that a device built from networks in its engine's format, and their outputs for samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ForeignKey, String, delete, literal, select
from sqlalchemy.orm import Mapped, mapped_column

from hw_profiles.wire.result import Result
from service.errors import InvalidInput
from service.store.base import Base, Tx
from service.store.blobs import Blob
from service.store.devices import devices, questions, work_items
from service.store.devices.devices import Device
from service.store.devices.wishes import USER
from service.store.devices.work_items import WorkItem


@dataclass(frozen=True)
class Question:
    """A network to convert and the samples on which to run the result, both given as digests of recorded blobs."""

    network: str
    samples: str

    @property
    def digest(self) -> str:
        """Digest that identifies the question."""
        return hashlib.sha256(f"{self.network} {self.samples}".encode()).hexdigest()


@dataclass(frozen=True)
class Answered:
    """Digests of the engine's file and of that file's outputs; if there are no files, `failure` says why."""

    file: str = ""
    outputs: str = ""
    failure: str = ""


class ConversionRow(Base):
    """One question to a device. The row keeps the digests of the files to send until the question is answered, and the
    digests of the answer's files until `release`. `created_at` is the time of the last question or answer.
    """

    __tablename__ = "conversions"
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True)
    config_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    question: Mapped[str] = mapped_column(String(64), primary_key=True)
    network_sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"), index=True)
    samples_sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"), index=True)
    file_sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"), index=True)
    outputs_sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"), index=True)
    failure: Mapped[str] = mapped_column(String(2000), default="")
    created_at: Mapped[datetime]


def answered(tx: Tx, device: Device, wanted: Iterable[Question]) -> dict[str, Answered]:
    """Return the device's answers on its current configuration, by the question's digest."""
    mine = select(ConversionRow).where(
        ConversionRow.device_id == device.id, ConversionRow.config_id == device.config_id
    )
    rows = tx.session.execute(mine.where(ConversionRow.question.in_({each.digest for each in wanted}))).scalars()
    return {
        row.question: Answered(row.file_sha256 or "", row.outputs_sha256 or "", row.failure)
        for row in rows
        if row.file_sha256 is not None or row.failure
    }


def ask(tx: Tx, device_id: str, wanted: Iterable[Question], job_id: str = USER) -> None:
    """Ask a device on behalf of a job; answered questions are not asked again unless the answer was a failure.

    Raises:
        NotFound: there is no such device.
    """
    device = devices.get(tx, device_id)
    for question in wanted:
        row = _row(tx, device, question.digest)
        row.created_at = tx.now  # an answer that is used again is kept for one more day
        if row.file_sha256 is None:
            row.network_sha256, row.samples_sha256, row.failure = question.network, question.samples, ""
            files = question.network, question.samples
            questions.queue(tx, device, "check", key_of(question.digest), files, job_id)
    tx.session.flush()


def key_of(question: str) -> str:
    """Return the key of the work item."""
    return f"check-{question}"


def _row(tx: Tx, device: Device, question: str) -> ConversionRow:
    row = tx.session.get(ConversionRow, (device.id, device.config_id, question))
    if row is None:
        names = {"device_id": device.id, "config_id": device.config_id, "question": question}
        row = ConversionRow(**names, failure="", created_at=tx.now)
        tx.session.add(row)
    return row


def record(tx: Tx, item: WorkItem, result: Result) -> None:
    """Store a device's answer about one network.

    Raises:
        InvalidInput: a file of the answer was not uploaded before.
    """
    if result.converted is not None:
        files = result.converted.sha256, result.converted.outputs_sha256
        for name, sha256 in zip(("converted.sha256", "converted.outputs_sha256"), files, strict=True):
            if tx.session.get(Blob, sha256) is None:
                raise InvalidInput(name, sha256, "was not uploaded before the result")
        _end(tx, item, "done", files=files)
    elif result.failure == "error":  # the runtime refused the network, and would refuse it again
        _end(tx, item, "failed", failure=result.reason or "the device gave no reason")
    else:  # the process crashed or timed out, so another attempt may succeed
        give_back(tx, item, f"{result.failure}: {result.reason}", blame=True)


def give_back(tx: Tx, item: WorkItem, reason: str, *, blame: bool) -> None:
    """Put a leased item back into the queue; if the item was lost too often, mark it as refused."""
    work_items.give_back(tx, item, reason, blame=blame)
    if item.state == "poisoned":
        _end(tx, item, "poisoned", failure=reason)


def _end(
    tx: Tx, item: WorkItem, state: str, files: tuple[str | None, str | None] = (None, None), failure: str = ""
) -> None:
    row = _row(tx, devices.get(tx, item.device_id), item.key.removeprefix(key_of("")))
    row.network_sha256 = row.samples_sha256 = None
    row.file_sha256, row.outputs_sha256 = files
    row.failure = item.reason = failure[:2000]
    row.created_at = tx.now
    item.state = state


def release(tx: Tx, before: datetime) -> None:
    """Release the files of answers that have not been requested since `before`, and of questions that remain
    unanswered. A run that still needs such a file asks again.
    """
    row = ConversionRow
    answer = row.network_sha256.is_(None)
    waiting = questions.is_open(row.device_id, row.config_id, literal(key_of("")) + row.question)
    tx.session.execute(delete(row).where((answer & (row.created_at < before)) | (~answer & ~waiting)))

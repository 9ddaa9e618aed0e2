"""Artifacts: the finished files of a job."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Select, String, select
from sqlalchemy.orm import Mapped, mapped_column

from service.errors import NotFound
from service.store.base import Base, Tx, new_id
from service.store.blobs import StoredBlob
from service.store.jobs.job_leases import Held, fence
from service.store.jobs.jobs import topic


class Artifact(Base):
    """A file that users may download."""

    __tablename__ = "artifacts"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]


def add(tx: Tx, held: Held, kind: str, name: str, blob: StoredBlob) -> Artifact:
    """Store a recorded file as an artifact; it replaces an earlier artifact of the same kind and name.

    Raises:
        LeaseLost: another conductor has the job now.
    """
    fence(tx, held)
    for old in tx.session.execute(selected(held.job_id).where(Artifact.kind == kind, Artifact.name == name)).scalars():
        tx.session.delete(old)
    artifact = Artifact(
        id=new_id("art"),
        job_id=held.job_id,
        kind=kind,
        name=name,
        sha256=blob.sha256,
        size_bytes=blob.size_bytes,
        created_at=tx.now,
    )
    tx.session.add(artifact)
    tx.session.flush()
    tx.emit(topic(held.job_id), "job.state", {"state": "running", "artifact": {"id": artifact.id, "kind": kind}})
    return artifact


def get(tx: Tx, artifact_id: str) -> Artifact:
    """Return the artifact with this id.

    Raises:
        NotFound: there is no such artifact.
    """
    artifact = tx.session.get(Artifact, artifact_id)
    if artifact is None:
        raise NotFound("artifact", artifact_id)
    return artifact


def selected(job_id: str) -> Select[Artifact]:
    """Select the artifacts of a job."""
    return select(Artifact).where(Artifact.job_id == job_id)

"""conversions"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema up to this revision."""
    op.create_table(
        "conversions",
        sa.Column("device_id", sa.String(length=40), nullable=False),
        sa.Column("config_id", sa.String(length=64), nullable=False),
        sa.Column("question", sa.String(length=64), nullable=False),
        sa.Column("network_sha256", sa.String(length=64), nullable=True),
        sa.Column("samples_sha256", sa.String(length=64), nullable=True),
        sa.Column("file_sha256", sa.String(length=64), nullable=True),
        sa.Column("outputs_sha256", sa.String(length=64), nullable=True),
        sa.Column("failure", sa.String(length=2000), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_conversions_device_id_devices"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["file_sha256"], ["blobs.sha256"], name=op.f("fk_conversions_file_sha256_blobs")),
        sa.ForeignKeyConstraint(["network_sha256"], ["blobs.sha256"], name=op.f("fk_conversions_network_sha256_blobs")),
        sa.ForeignKeyConstraint(["outputs_sha256"], ["blobs.sha256"], name=op.f("fk_conversions_outputs_sha256_blobs")),
        sa.ForeignKeyConstraint(["samples_sha256"], ["blobs.sha256"], name=op.f("fk_conversions_samples_sha256_blobs")),
        sa.PrimaryKeyConstraint("device_id", "config_id", "question", name=op.f("pk_conversions")),
    )
    with op.batch_alter_table("conversions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_conversions_file_sha256"), ["file_sha256"], unique=False)
        batch_op.create_index(batch_op.f("ix_conversions_network_sha256"), ["network_sha256"], unique=False)
        batch_op.create_index(batch_op.f("ix_conversions_outputs_sha256"), ["outputs_sha256"], unique=False)
        batch_op.create_index(batch_op.f("ix_conversions_samples_sha256"), ["samples_sha256"], unique=False)

    with op.batch_alter_table("agent_lease_items", schema=None) as batch_op:
        batch_op.add_column(sa.Column("suffix", sa.String(length=16), nullable=True))

    with op.batch_alter_table("devices", schema=None) as batch_op:
        batch_op.add_column(sa.Column("suffix", sa.String(length=16), server_default=".onnx", nullable=False))

    with op.batch_alter_table("work_items", schema=None) as batch_op:
        batch_op.add_column(sa.Column("suffix", sa.String(length=16), nullable=True))


def downgrade() -> None:
    """Bring the schema back to the one before."""
    with op.batch_alter_table("work_items", schema=None) as batch_op:
        batch_op.drop_column("suffix")

    with op.batch_alter_table("devices", schema=None) as batch_op:
        batch_op.drop_column("suffix")

    with op.batch_alter_table("agent_lease_items", schema=None) as batch_op:
        batch_op.drop_column("suffix")

    with op.batch_alter_table("conversions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_conversions_samples_sha256"))
        batch_op.drop_index(batch_op.f("ix_conversions_outputs_sha256"))
        batch_op.drop_index(batch_op.f("ix_conversions_network_sha256"))
        batch_op.drop_index(batch_op.f("ix_conversions_file_sha256"))

    op.drop_table("conversions")

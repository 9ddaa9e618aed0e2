"""fusions"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema up to this revision."""
    op.create_table(
        "fusions",
        sa.Column("device_id", sa.String(length=40), nullable=False),
        sa.Column("config_id", sa.String(length=64), nullable=False),
        sa.Column("wiring", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("sets", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("failure", sa.String(length=2000), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_fusions_device_id_devices"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["sha256"], ["blobs.sha256"], name=op.f("fk_fusions_sha256_blobs")),
        sa.PrimaryKeyConstraint("device_id", "config_id", "wiring", name=op.f("pk_fusions")),
    )
    with op.batch_alter_table("fusions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_fusions_sha256"), ["sha256"], unique=False)


def downgrade() -> None:
    """Bring the schema back to the one before."""
    with op.batch_alter_table("fusions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_fusions_sha256"))

    op.drop_table("fusions")

"""inputs of models and the output that is scored"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema up to this revision."""
    with op.batch_alter_table("models", schema=None) as batch_op:
        batch_op.add_column(sa.Column("inputs", sa.JSON(none_as_null=True), server_default="[]", nullable=False))
        batch_op.add_column(sa.Column("output", sa.String(length=400), nullable=True))


def downgrade() -> None:
    """Take the schema back to the revision before."""
    with op.batch_alter_table("models", schema=None) as batch_op:
        batch_op.drop_column("output")
        batch_op.drop_column("inputs")

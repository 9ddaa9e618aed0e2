"""targets that are not class numbers, and scores by task"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema up to this revision."""
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("target_shape", sa.JSON(none_as_null=True), server_default="[]", nullable=False))
    with op.batch_alter_table("scores", schema=None) as batch_op:
        batch_op.add_column(sa.Column("task", sa.String(length=64), server_default="classification", nullable=False))
        batch_op.add_column(sa.Column("chance", sa.Double(), nullable=True))
        batch_op.alter_column("right", existing_type=sa.Integer(), type_=sa.Double(), existing_nullable=False)


def downgrade() -> None:
    """Take the schema back to the revision before."""
    with op.batch_alter_table("scores", schema=None) as batch_op:
        batch_op.alter_column("right", existing_type=sa.Double(), type_=sa.Integer(), existing_nullable=False)
        batch_op.drop_column("chance")
        batch_op.drop_column("task")
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.drop_column("target_shape")

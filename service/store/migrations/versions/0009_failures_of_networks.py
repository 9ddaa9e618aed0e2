"""a measurement tells the failure of each network"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema up to this revision."""
    with op.batch_alter_table("measured_networks", schema=None) as batch_op:
        batch_op.add_column(sa.Column("failure", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Take the schema back to the revision before."""
    with op.batch_alter_table("measured_networks", schema=None) as batch_op:
        batch_op.drop_column("failure")

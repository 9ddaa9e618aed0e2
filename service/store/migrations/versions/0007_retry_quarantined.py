"""quarantined devices are tried again"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema up to this revision. Devices that are in quarantine for refused sessions are tried at once."""
    with op.batch_alter_table("devices", schema=None) as batch_op:
        batch_op.add_column(sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE devices SET retry_at = last_seen_at WHERE quarantined AND refused > 0")


def downgrade() -> None:
    """Take the schema back to the revision before."""
    with op.batch_alter_table("devices", schema=None) as batch_op:
        batch_op.drop_column("retry_at")

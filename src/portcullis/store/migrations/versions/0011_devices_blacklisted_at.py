"""Devices that cannot be added again (before the roll-out; adds the column at once)."""

from alembic import op
from sqlalchemy import Column

from portcullis.store.schema import UtcDateTime

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("devices", Column("blacklisted_at", UtcDateTime))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("devices", "blacklisted_at")

"""Since when the orders of an EMM have waited (before the roll-out; adds the column at once)."""

from alembic import op
from sqlalchemy import Column

from portcullis.store.schema import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("emms", Column("ordered_at", UtcDateTime))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("emms", "ordered_at")

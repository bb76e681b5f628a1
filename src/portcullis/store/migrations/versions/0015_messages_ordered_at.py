"""When it was ordered (before the roll-out; instant; the release before leaves it NULL)."""

from alembic import op
from sqlalchemy import Column

from portcullis.store.schema import UtcDateTime

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add `messages.ordered_at`."""
    op.add_column("messages", Column("ordered_at", UtcDateTime))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("messages", "ordered_at")

"""When it was ordered (before the roll-out; instant; the release before leaves it NULL)."""

from alembic import op
from sqlalchemy import Column

from portcullis.store.schema import UtcDateTime

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add `entitlements.ordered_at`."""
    op.add_column("entitlements", Column("ordered_at", UtcDateTime))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("entitlements", "ordered_at")

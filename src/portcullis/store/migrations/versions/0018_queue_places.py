"""How far the queue is claimed (before the roll-out)."""

from alembic import op
from sqlalchemy import BigInteger, Column, SmallInteger

from portcullis.store.schema import UtcDateTime

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make `queue_places`."""
    op.create_table(
        "queue_places",
        Column("priority", SmallInteger, primary_key=True, autoincrement=False),
        Column("due_at", UtcDateTime),
        Column("state_sealed_at", UtcDateTime),
        Column("device_id", BigInteger),
        Column("begun_at", UtcDateTime),
    )


def downgrade() -> None:
    """Drop `queue_places`."""
    op.drop_table("queue_places")

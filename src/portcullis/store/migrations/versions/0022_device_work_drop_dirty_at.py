"""What waits is found by when it is due (after the roll-out; instant)."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_device_work_dirty_at", "device_work")


def downgrade() -> None:
    """Index it."""
    op.create_index("ix_device_work_dirty_at", "device_work", ["dirty_at"])

"""The queue without the age of states (after the roll-out; instant)."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_device_work_priority_due_at", "device_work")


def downgrade() -> None:
    """Index it."""
    op.create_index("ix_device_work_priority_due_at", "device_work", ["priority", "due_at"])
